"""Names and paths of the pages."""

import re
import string
from typing import Final
from urllib.parse import unquote

from contract.declared import TABLES
from contract.tables import Table, decode_row_id
from contract.windows import DAY
from live_page.formatting import format_time

_UNRESERVED: Final = frozenset(string.ascii_letters + string.digits + "_-")

KEYED = tuple(table for table in TABLES if table.key)
"""Tables with a page of rows: every table that has a key."""


def plural(table: Table) -> str:
    """Return the noun for a table's rows, such as `users`."""
    return table.plural.lower()


def noun(table: Table) -> str:
    """Return the noun for a table's row, such as `user` or `item by hour`."""
    if len(table.key) == 1:
        return table.key[0].removesuffix("_id").replace("_", " ")
    rows, by, key = plural(table).partition(" by ")
    return f"{_singular(rows)}{by}{key}"


def _singular(nouns: str) -> str:
    """Return the singular of a regular noun.

    >>> [_singular(each) for each in ("items", "cities", "days", "branches", "prices", "series of readings")]
    ['item', 'city', 'day', 'branch', 'price', 'series of reading']
    """
    for ending, singular in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("s", "")):
        if nouns.endswith(ending):
            return nouns.removesuffix(ending) + singular
    return nouns


def row_label(table: Table, row_id: str) -> str:
    """Return the id of a row to be read: in those of windows, the start is a time as on all pages."""
    window = table.key.window
    parts = decode_row_id(row_id) if len(table.key) > 1 else [row_id]
    if window is None or len(parts) != len(table.key):
        return row_id
    texts = dict(zip(table.key, parts, strict=True))
    return ", ".join((texts | {window.name: format_time(texts[window.name], is_day=window.size == DAY)}).values())


def table_href(table: Table) -> str:
    """Return the path of a table's page."""
    return f"/{encode_id(plural(table).replace(' ', '-'))}"


def row_href(table: Table, row_id: str) -> str:
    """Return the path of a row's page."""
    return f"{table_href(table)}/{encode_id(row_id)}"


def mistyped_row(path: str) -> tuple[Table, str] | None:
    """Return the row that a path of no page may mean, such as one with a slash in its id that was typed.

    >>> [(table.title, row_id) for table, row_id in [mistyped_row("/users/a/b%2Fc")]], mistyped_row("/nothing/a")
    ([('Users', 'a/b/c')], None)
    """
    for table in KEYED:
        if path.startswith(f"{table_href(table)}/"):
            row_id = decode_id(path.removeprefix(f"{table_href(table)}/"))
            return (table, row_id) if row_id.strip("/") else None
    return None


def encode_id(row_id: str) -> str:
    """Encode an id as one path segment that stays the same however often percent signs are decoded.

    >>> encode_id("user_1"), encode_id("a/b%25 ..")
    ('user_1', 'a~2Fb~2525~20~2E~2E')
    """
    data = row_id.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if chr(byte) in _UNRESERVED else f"~{byte:02X}" for byte in data)


def decode_id(segment: str) -> str:
    """Decode the id of a path segment.

    >>> decode_id(encode_id("50% off; ~2F?#é")), decode_id("user%201")
    ('50% off; ~2F?#é', 'user 1')
    """
    # `encode_id` writes no percent signs: they are of an address typed or encoded elsewhere.
    plain = unquote(segment).encode("utf-8", "surrogatepass")
    data = re.sub(rb"~([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), plain)
    return data.decode("utf-8", "replace")
