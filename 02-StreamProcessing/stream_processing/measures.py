"""Computes the aggregates as column expressions: from interactions to counts, from counts to rows.

Every measure derives from the counts per interaction type and the latest timestamp of a key, so the
state of a key is five numbers, independent of the tables' columns.
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
    """Return the name of the state column that counts one interaction type."""
    return f"count_{interaction_type}"


STATE: Final = (*map(count_column, INTERACTION_TYPES), LAST)
"""The columns of a key's state."""


def state_columns() -> list[Column]:
    """Return the aggregations over interactions that compute `STATE`."""
    type_column = F.col("interaction_type")
    counts = [F.count(F.when(type_column == t, F.lit(1))).alias(count_column(t)) for t in INTERACTION_TYPES]
    return [*counts, F.max("timestamp").alias(LAST)]


def _counts() -> list[Column]:
    return [F.col(count_column(interaction_type)) for interaction_type in INTERACTION_TYPES]


def total() -> Column:
    """Return the number of all interactions of a key."""
    return reduce(operator.add, _counts())


def _types_seen() -> Column:
    return reduce(operator.add, [(count > 0).cast("long") for count in _counts()])


def _over_types_seen(function: Callable[..., Column]) -> Column:
    # least and greatest skip nulls, and so types that were not seen.
    return function(*[F.when(count > 0, count) for count in _counts()])


def _mean(count: Column, of: Column) -> Column:
    # F.round rounds half up, on the decimal digits of the quotient.
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
    """Return the columns of a table's row, as expressions over the state columns and `key`."""
    columns = []
    for column in table.columns:
        if column.measure is None:
            assert key is not None
            columns.append(key.alias(column.name))
        else:
            columns.append(_MEASURES[column.measure]().alias(column.name))
    return columns


def record_key(table: AggregateTable, key: Column | None) -> Column:
    """Return the topic key of a row (`contract.keys.encode_key` as an expression)."""
    return F.lit(table.name) if key is None else F.concat(F.lit(f"{table.name}{SEPARATOR}"), key)


def record_value(table: AggregateTable, key: Column | None) -> Column:
    """Return a table's row as JSON; timestamps are ISO 8601 in the session's time zone, which has to be UTC."""
    return F.to_json(F.struct(*row_columns(table, key)))
