"""Defines the aggregates: from interactions to counts, from counts to rows, for either engine.

Every measure derives from the counts per interaction type and the latest timestamp of a key, so the state of a key is
five numbers, independent of the tables' columns. States of the same key are merged by adding the counts and taking the
later timestamp.
"""

from typing import Final

from contract.interaction import INTERACTION_TYPES
from contract.keys import SEPARATOR
from contract.tables import AggregateTable, ColumnType, Measure
from stream_processing.engines import Engine, Expression

LAST: Final = "last"
USERS: Final = "users"
"""The number of distinct users; only a table without a key needs it."""


def count_column(interaction_type: str) -> str:
    """Return the name of the state column that counts one interaction type."""
    return f"count_{interaction_type}"


COUNTS: Final = tuple(map(count_column, INTERACTION_TYPES))
STATE: Final = (*COUNTS, LAST)
"""The columns of a key's state."""


def state_columns(engine: Engine[Expression]) -> list[Expression]:
    """Return the aggregations over interactions that compute `STATE`."""
    counts = [engine.named(engine.count_equal("interaction_type", t), count_column(t)) for t in INTERACTION_TYPES]
    return [*counts, engine.named(engine.latest("timestamp"), LAST)]


def total(engine: Engine[Expression]) -> Expression:
    """Return the number of all interactions of a key."""
    return engine.total(_counts(engine))


def row_columns(engine: Engine[Expression], table: AggregateTable) -> dict[str, Expression]:
    """Return the columns of a table's row by name, as expressions over the key column and the state."""
    return {
        column.name: engine.column(column.name) if column.measure is None else _measure(engine, column.measure)
        for column in table.columns
    }


def record_key(engine: Engine[Expression], table: AggregateTable) -> Expression:
    """Return the topic key of a row (`contract.keys.encode_key` as an expression)."""
    return engine.text(table.name if table.key is None else f"{table.name}{SEPARATOR}", table.key)


def record_value(engine: Engine[Expression], table: AggregateTable) -> Expression:
    """Return a table's row as JSON."""
    dates = [column.name for column in table.columns if column.type is ColumnType.DATE]
    return engine.json(row_columns(engine, table), dates)


def _counts(engine: Engine[Expression]) -> list[Expression]:
    return [engine.column(name) for name in COUNTS]


def _measure(engine: Engine[Expression], measure: Measure) -> Expression:
    match measure:
        case Measure.CLICKS:
            return engine.column(count_column("click"))
        case Measure.LIKES:
            return engine.column(count_column("like"))
        case Measure.VIEWS:
            return engine.column(count_column("view"))
        case Measure.PURCHASES:
            return engine.column(count_column("purchase"))
        case Measure.INTERACTIONS:
            return total(engine)
        case Measure.MEAN_PER_TYPE:
            return engine.ratio(total(engine), engine.number_of_positive(_counts(engine)))
        case Measure.LEAST_PER_TYPE:
            return engine.least_positive(_counts(engine))
        case Measure.MOST_PER_TYPE:
            return engine.greatest(_counts(engine))
        case Measure.MEAN_PER_USER:
            return engine.ratio(total(engine), engine.column(USERS))
        case Measure.LAST:
            return engine.column(LAST)
