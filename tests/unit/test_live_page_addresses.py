"""The addresses of the live page without a browser: their queries, and what a wrong one says."""

from typing import Any

import pytest

from contract.declared import table_named
from live_page.address import MAX_QUERY, one_of, path_of, query_of, whole, with_query
from live_page.layout import tab_title
from live_page.pages.links import encode_id, mistyped_row, row_href
from live_page.pages.rows import pagination_of, query_of_pagination

USERS = table_named("agg_interactions_user")
VALUES = (
    "a&b=c", "a+b", "50% off", "a%25b", "a/b;c", "a?b#c", "é😀 漢", " a b ", "\x1b]0;x", "\u202eab", "\n", "~2F",
    '" onclick="alert(1)', "</script><script>alert(1)</script>", "SELECT *\nFROM \"t\" -- 100%;", "x" * 512,
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_a_value_survives_its_address(value: str) -> None:
    address = with_query("/users", {"search": value})
    assert query_of(address) == {"search": value}
    assert path_of(address) == "/users"
    assert address.isascii()
    assert not set('"<> \n') & set(address)


def test_a_change_keeps_the_other_values_and_an_empty_one_is_left_out() -> None:
    address = with_query("/users?theme=dark&search=a", {"search": "", "page": "2"})
    assert address == "/users?theme=dark&page=2"
    assert with_query(address, {"theme": "", "page": ""}) == "/users"
    assert with_query("/users#a", {"page": "2"}) == "/users?page=2"


def test_a_value_that_makes_the_address_too_long_is_left_out() -> None:
    fits = "x" * (MAX_QUERY - len("theme=dark&sql="))
    assert query_of(with_query("/lake?theme=dark", {"sql": fits}))["sql"] == fits
    assert with_query("/lake?theme=dark&sql=a", {"sql": f"{fits}x"}) == "/lake?theme=dark"
    # Encoded it is longer than as text.
    assert with_query("/lake?theme=dark", {"sql": "漢" * 1_000}) == "/lake?theme=dark"


def test_half_of_a_surrogate_pair_does_not_break_an_address() -> None:
    assert query_of(with_query("/users", {"search": "a\ud83db"})) == {"search": "a?b"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ("total_interactions", True, 1)),
        ("sort=total_like&order=asc&page=3", ("total_like", False, 3)),
        ("sort=user_id&page=666", ("user_id", True, 666)),
        # Elasticsearch has no page after its first 10,000 rows.
        ("page=667", ("total_interactions", True, 1)),
        ("sort=nothing&order=up&page=0", ("total_interactions", True, 1)),
        (f"sort=&page={'9' * 5_000}", ("total_interactions", True, 1)),
        ("page=-1&page=1.5", ("total_interactions", True, 1)),
    ],
)
def test_a_table_is_sorted_as_its_address_says_if_that_is_possible(query: str, expected: tuple[Any, ...]) -> None:
    pagination = pagination_of(USERS, query_of(f"/users?{query}"), "total_interactions")
    assert (pagination["sortBy"], pagination["descending"], pagination["page"]) == expected
    # The address of what is shown shows the same.
    again = query_of(with_query("/users", query_of_pagination(pagination, "total_interactions")))
    assert pagination_of(USERS, again, "total_interactions") == pagination


def test_an_address_has_no_values_for_what_is_shown_anyway() -> None:
    pagination = pagination_of(USERS, {}, "total_interactions")
    assert with_query("/users", query_of_pagination(pagination, "total_interactions")) == "/users"


def test_a_value_that_is_none_of_the_options_is_ignored() -> None:
    assert one_of("firing", ("all", "firing"), "all") == "firing"
    assert one_of("other", ("all", "firing"), "all") == one_of(None, ("all", "firing"), "all") == "all"
    assert whole("²", 1, 9, 5) == whole("٣", 1, 9, 5) == 5


def test_the_tab_has_the_row_before_its_table_and_no_control_characters() -> None:
    assert tab_title("user_1", "Users") == "user_1 · Users"
    assert tab_title("\x1b]0;x\u202e", "Users") == "\\x1b]0;x\\u202e · Users"


@pytest.mark.parametrize("row_id", ["a/b", "a/b/c;d", "a%2Fb", "é/😀"])
def test_an_id_with_a_slash_that_was_typed_is_found(row_id: str) -> None:
    found = mistyped_row(f"/users/{row_id}")
    assert found is not None
    assert found == (USERS, row_id.replace("%2F", "/"))
    assert row_href(*found) == f"/users/{encode_id(row_id.replace('%2F', '/'))}"


@pytest.mark.parametrize("path", ["/nothing", "/nothing/a/b", "/usersa/b", "/users", "/users/", "/users//", "/"])
def test_no_row_is_suggested_for_other_paths(path: str) -> None:
    assert mistyped_row(path) is None
