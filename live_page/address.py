"""The query of a page's address: what its reader has chosen, so that a link, Back and a reload show the same."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from nicegui import ui
from nicegui.elements.mixins.value_element import ValueElement

MAX_QUERY: Final = 8_000
"""Characters; some servers and proxies refuse a longer address."""
# Changes the entry of the browser's history, unless the reader has left the page meanwhile.
_REPLACE: Final = """(path, changes) => {
  const prefix = window.path_prefix || "", url = new URL(location);
  if (![path, encodeURI(path)].includes(url.pathname.slice(prefix.length))) return;
  for (const [name, value] of Object.entries(changes))
    value ? url.searchParams.set(name, value) : url.searchParams.delete(name);
  history.replaceState({page: (url.pathname + url.search + url.hash).slice(prefix.length)}, "", url);
}"""


def path_of(address: str) -> str:
    """Return an address without its query.

    >>> path_of("/users?search=a#b")
    '/users'
    """
    return address.partition("#")[0].partition("?")[0]


def query_of(address: str) -> dict[str, str]:
    """Return the values of an address by name; of a name that occurs twice the last.

    >>> query_of("/users?search=a%26b+c&page=2"), query_of("/users")
    ({'search': 'a&b c', 'page': '2'}, {})
    """
    return dict(parse_qsl(address.partition("#")[0].partition("?")[2]))


def with_query(address: str, changes: Mapping[str, str]) -> str:
    """Return an address with some values changed: an empty one is left out, and one that makes it too long.

    >>> with_query("/users?search=a&page=2", {"search": "b&c", "page": ""})
    '/users?search=b%26c'
    """
    values = {name: value for name, value in {**query_of(address), **changes}.items() if value}
    # Half of a surrogate pair has no encoding.
    query = urlencode(values, errors="replace")
    if len(query) > MAX_QUERY:
        longest = max(values, key=lambda name: len(urlencode({name: values[name]}, errors="replace")))
        return with_query(address, {**changes, longest: ""})
    return f"{path_of(address)}?{query}" if query else path_of(address)


def one_of(value: str | None, options: Collection[str], default: str) -> str:
    """Return a value of an address if it is one of the options."""
    return value if value is not None and value in options else default


def whole(value: str | None, lowest: int, highest: int, default: int) -> int:
    """Return a value of an address if it is a whole number within the bounds.

    >>> [whole(value, 1, 9, 1) for value in ("3", "10", "-3", "³", "1e1", "", None)]
    [3, 1, 1, 1, 1, 1, 1]
    """
    # A longer text of digits is refused before it is read, however long it is.
    is_number = value is not None and value.isascii() and value.isdigit() and len(value) <= len(str(highest))
    return int(value) if value is not None and is_number and lowest <= int(value) <= highest else default


def current_query() -> dict[str, str]:
    """Return the values of the address of the page that is being built or shown."""
    return query_of(ui.context.client.sub_pages_router.current_path)


def set_query(changes: Mapping[str, str]) -> None:
    """Change values of the address that the browser shows, without a new entry in its history."""
    client = ui.context.client
    router = client.sub_pages_router
    before, after = router.current_path, with_query(router.current_path, changes)
    if query_of(before) == query_of(after):
        return
    router.current_path = after
    values = query_of(after)
    shown = {name: values.get(name, "") for name in {**query_of(before), **changes}}
    client.run_javascript(f"({_REPLACE})({json.dumps(path_of(before))}, {json.dumps(shown)})")


def remember(element: ValueElement[Any], name: str, default: Callable[[], object]) -> None:
    """Keep the value of an element in the address, unless it is the default."""
    element.on_value_change(lambda event: set_query({name: "" if event.value == default() else f"{event.value or ''}"}))
