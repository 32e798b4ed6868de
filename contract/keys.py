"""The keys of the aggregated topic: the table's name, and the row's id where the table has one.

>>> encode_key("agg_interactions_user", "user_3")
'agg_interactions_user-user_3'
>>> decode_key("agg_interactions_user-user-3")
RowKey(table='agg_interactions_user', id='user-3')
>>> decode_key("avg_interactions")
RowKey(table='avg_interactions', id='avg_interactions')
"""

from typing import Final, NamedTuple

from contract.dead_letters import quoted
from contract.tables import AGGREGATE_TABLES

SEPARATOR: Final = "-"


class RowKey(NamedTuple):
    """Which row of which table; also the document's id and its index."""

    table: str
    id: str
    """The rest of the key, or the whole key where nothing follows the table's name."""


class UnknownKeyError(ValueError):
    """A key that starts with the name of no declared table."""


def encode_key(table: str, row_id: str | None) -> str:
    """The topic key of a row; `row_id` is None for a table that has a single row."""
    return table if row_id is None else f"{table}{SEPARATOR}{row_id}"


def decode_key(key: str) -> RowKey:
    """The table and id that a topic key names; raises `UnknownKeyError`."""
    for table in AGGREGATE_TABLES:
        if table.key is None and key == table.name:
            return RowKey(table.name, key)
        if table.key is not None and key.startswith(table.name + SEPARATOR):
            row_id = key[len(table.name) + len(SEPARATOR) :]
            if row_id:
                return RowKey(table.name, row_id)
    known = ", ".join(encode_key(table.name, table.key and f"<{table.key}>") for table in AGGREGATE_TABLES)
    raise UnknownKeyError(f"key {quoted(key)!r} names no row: expected {known}")
