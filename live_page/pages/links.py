"""Where each page is."""

from urllib.parse import quote

from contract.tables import AGGREGATE_TABLES, AggregateTable

KEYED = tuple(table for table in AGGREGATE_TABLES if table.key)
"""Those with a page of rows: a table that is declared has one."""


def plural(table: AggregateTable) -> str:
    """What its rows are, such as `users`."""
    return f"{noun(table)}s"


def noun(table: AggregateTable) -> str:
    """What a row is, such as `user`."""
    return (table.key or table.name).removesuffix("_id")


def table_href(table: AggregateTable) -> str:
    """The page of its rows."""
    return f"/{plural(table)}"


def row_href(table: AggregateTable, row_id: str) -> str:
    """The page of one row."""
    return f"{table_href(table)}/{quote(row_id, safe='')}"
