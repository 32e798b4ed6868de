"""Derives the state of each key from the declared tables, and the tables' rows from the state, for either engine.

States of the same key are merged column by column: added, or compared.
"""

from collections.abc import Sequence
from typing import Final

from contract.declared import EVENT, PIPELINE, TABLES
from contract.keys import SEPARATOR
from contract.measures import Expression, Operation, StateColumn
from contract.tables import Key, Table
from stream_processing.engines import Engine

EVENTS: Final = StateColumn(Operation.COUNT)
"""The number of events, which the state over all events always has."""
ALL: Final = Key()
"""The key of the single row over all events."""
KEYS: Final[tuple[Key, ...]] = tuple(dict.fromkeys([*PIPELINE.keys, ALL]))
"""The keys of the tables, and that of all events. All tables with the same key share one state."""


def key_name(key: Key) -> str:
    """Return the name of a key, in file names and messages.

    >>> key_name(Key(("user_id", "item_id"))), key_name(Key())
    ('user_id+item_id', 'all')
    """
    # A column can be called all.
    return "all+" if list(key) == ["all"] else "+".join(key) or "all"


def tables_of(key: Key) -> list[Table]:
    """Return the tables with this key."""
    return [table for table in TABLES if table.key == key]


def state_of(key: Key) -> tuple[StateColumn, ...]:
    """Return the columns of the state of a key."""
    needed = [column for table in tables_of(key) for each in table.measures.values() for column in each.state(EVENT)]
    return tuple(dict.fromkeys([EVENTS, *needed] if not key else needed))


def has_sketch(key: Key) -> bool:
    """Whether the state of a key has a sketch of different values."""
    return any(column.operation is Operation.DISTINCT for column in state_of(key))


def state_columns(engine: Engine[Expression], columns: Sequence[StateColumn]) -> list[Expression]:
    """Return the aggregations over events that compute state columns."""
    return [engine.aggregate(column) for column in columns]


def row_columns(engine: Engine[Expression], table: Table) -> dict[str, Expression]:
    """Return the columns of a table's row by name, as expressions over the key columns and the state."""
    return {
        column.name: engine.column(column.name) if column.measure is None else column.measure.result(engine, EVENT)
        for column in table.columns
    }


def record_key(engine: Engine[Expression], table: Table) -> Expression:
    """Return the topic key of a row (`contract.keys.encode_key` as an expression)."""
    if not table.key:
        return engine.topic_key(table.name)
    return engine.topic_key(f"{table.name}{SEPARATOR}", engine.row_id(EVENT, table.key))


def record_value(engine: Engine[Expression], table: Table) -> Expression:
    """Return a table's row as JSON."""
    return engine.json(row_columns(engine, table), {column.name: column.type for column in table.columns})
