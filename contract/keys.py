"""The keys of the aggregated topic: the table's name, followed by the row's id in tables with a key.

>>> encode_key("agg_interactions_user", "user_3")
'agg_interactions_user-user_3'
>>> decode_key("agg_interactions_user-user-3")
RowKey(table='agg_interactions_user', id='user-3')
>>> decode_key("avg_interactions")
RowKey(table='avg_interactions', id='avg_interactions')
"""

from typing import Final, NamedTuple

from contract.dead_letters import truncated
from contract.declared import TABLES

SEPARATOR: Final = "-"

_WITH_KEY: Final = {table.name for table in TABLES if table.key}
_WITHOUT_KEY: Final = {table.name for table in TABLES if not table.key}


class RowKey(NamedTuple):
    """The table and the id of a row; in Elasticsearch, the index and the document id."""

    table: str
    id: str
    """The part of the key after the table's name, or the whole key for a table with a single row."""


class UnknownKeyError(ValueError):
    """The key is not that of any declared table."""


def encode_key(table: str, row_id: str | None) -> str:
    """Return the topic key of a row; `row_id` is None for a table with a single row."""
    return table if row_id is None else f"{table}{SEPARATOR}{row_id}"


def decode_key(key: str) -> RowKey:
    """Return the table and the id of a topic key; raises `UnknownKeyError`."""
    name, _, row_id = key.partition(SEPARATOR)
    if row_id and name in _WITH_KEY:
        return RowKey(name, row_id)
    if key in _WITHOUT_KEY:
        return RowKey(key, key)
    known = ", ".join(encode_key(table.name, table.row_id({n: f"<{n}>" for n in table.key})) for table in TABLES)
    raise UnknownKeyError(f"key {truncated(key)!r} names no row: expected {known}")
