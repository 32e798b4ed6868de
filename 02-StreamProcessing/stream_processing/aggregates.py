"""The aggregates as column expressions: from interactions to counts, from counts to rows.

Every measure derives from the counts per interaction type and the latest timestamp of a key, so the
state of a key is five numbers whatever a table shows.
"""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as F

from contract.interaction import INTERACTION_TYPES
from contract.keys import SEPARATOR
from contract.tables import AggregateTable, Measure

LAST: Final = "last"
USERS: Final = "users"
"""The number of distinct users; only a table without a key needs it."""


def count_column(interaction_type: str) -> str:
    """The state's column that counts one interaction type."""
    return f"count_{interaction_type}"


STATE: Final = (*map(count_column, INTERACTION_TYPES), LAST)
"""What is kept per key, by name."""


def state_columns() -> list[Column]:
    """`STATE` as aggregations over interactions."""
    kind = F.col("interaction_type")
    counts = [F.count(F.when(kind == t, F.lit(1))).alias(count_column(t)) for t in INTERACTION_TYPES]
    return [*counts, F.max("timestamp").alias(LAST)]


def _counts() -> list[Column]:
    return [F.col(count_column(interaction_type)) for interaction_type in INTERACTION_TYPES]


def total() -> Column:
    """All interactions of a key."""
    return reduce(operator.add, _counts())


def _types_seen() -> Column:
    return reduce(operator.add, [(count > 0).cast("long") for count in _counts()])


def _over_types_seen(function: Callable[..., Column]) -> Column:
    # least and greatest skip nulls: a type that was not seen takes no part.
    return function(*[F.when(count > 0, count) for count in _counts()])


def _mean(count: Column, of: Column) -> Column:
    # round is half up, on the decimal digits of the quotient.
    return F.round(count / of, 2)


_MEASURES: Final[dict[Measure, Callable[[], Column]]] = {
    Measure.CLICKS: lambda: F.col(count_column("click")),
    Measure.LIKES: lambda: F.col(count_column("like")),
    Measure.VIEWS: lambda: F.col(count_column("view")),
    Measure.PURCHASES: lambda: F.col(count_column("purchase")),
    Measure.INTERACTIONS: total,
    Measure.MEAN_PER_TYPE: lambda: _mean(total(), _types_seen()),
    Measure.LEAST_PER_TYPE: lambda: _over_types_seen(F.least),
    Measure.MOST_PER_TYPE: lambda: _over_types_seen(F.greatest),
    Measure.MEAN_PER_USER: lambda: _mean(total(), F.col(USERS)),
    Measure.LAST: lambda: F.col(LAST),
}


def row_columns(table: AggregateTable, key: Column | None) -> list[Column]:
    """The table's row, as expressions over the state's columns and `key`."""
    columns = []
    for column in table.columns:
        if column.measure is None:
            assert key is not None
            columns.append(key.alias(column.name))
        else:
            columns.append(_MEASURES[column.measure]().alias(column.name))
    return columns


def record_key(table: AggregateTable, key: Column | None) -> Column:
    """The topic key of a row (`contract.keys.encode_key` as an expression)."""
    return F.lit(table.name) if key is None else F.concat(F.lit(f"{table.name}{SEPARATOR}"), key)


def record_value(table: AggregateTable, key: Column | None) -> Column:
    """The table's row as JSON; timestamps as ISO 8601 in UTC, which the session's time zone has to be."""
    return F.to_json(F.struct(*row_columns(table, key)))
