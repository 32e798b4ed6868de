"""The operations of which measures consist, for Spark and for Polars: a measure is defined once and runs in both."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from functools import reduce
from typing import Final, Generic, TypeVar

import polars as pl
from pyspark.sql import Column
from pyspark.sql import functions as F

Expression = TypeVar("Expression")


class Engine(ABC, Generic[Expression]):
    """The operations over expressions of one engine."""

    @abstractmethod
    def column(self, name: str) -> Expression:
        """Return the values of a column."""

    @abstractmethod
    def named(self, expression: Expression, name: str) -> Expression:
        """Return the expression under a name."""

    # Aggregations of rows.

    @abstractmethod
    def count_equal(self, column: str, value: str) -> Expression:
        """Return the number of rows whose column has this value."""

    @abstractmethod
    def latest(self, column: str) -> Expression:
        """Return the greatest value of a timestamp column."""

    # Operations over the columns of a row.

    @abstractmethod
    def total(self, counts: Sequence[Expression]) -> Expression:
        """Return the sum of counts."""

    @abstractmethod
    def number_of_positive(self, counts: Sequence[Expression]) -> Expression:
        """Return how many of the counts are greater than 0."""

    @abstractmethod
    def least_positive(self, counts: Sequence[Expression]) -> Expression:
        """Return the least count that is greater than 0."""

    @abstractmethod
    def greatest(self, counts: Sequence[Expression]) -> Expression:
        """Return the greatest count."""

    @abstractmethod
    def ratio(self, count: Expression, of: Expression) -> Expression:
        """Return the quotient of two counts, rounded half up to 2 decimal places."""

    # Records of the aggregated topic.

    @abstractmethod
    def text(self, prefix: str, column: str | None) -> Expression:
        """Return a fixed text, followed by the value of a text column if one is named."""

    @abstractmethod
    def json(self, row: Mapping[str, Expression], dates: Container[str]) -> Expression:
        """Return a row as a JSON object; the columns among `dates` are ISO 8601, UTC."""


class _Spark(Engine[Column]):
    def column(self, name: str) -> Column:
        return F.col(name)

    def named(self, expression: Column, name: str) -> Column:
        return expression.alias(name)

    def count_equal(self, column: str, value: str) -> Column:
        return F.count(F.when(F.col(column) == value, F.lit(1)))

    def latest(self, column: str) -> Column:
        return F.max(column)

    def total(self, counts: Sequence[Column]) -> Column:
        return reduce(operator.add, counts)

    def number_of_positive(self, counts: Sequence[Column]) -> Column:
        return reduce(operator.add, [(count > 0).cast("long") for count in counts])

    def least_positive(self, counts: Sequence[Column]) -> Column:
        # It skips nulls.
        return F.least(*[F.when(count > 0, count) for count in counts])

    def greatest(self, counts: Sequence[Column]) -> Column:
        return F.greatest(*counts)

    def ratio(self, count: Column, of: Column) -> Column:
        # F.round rounds half up, on the decimal digits of the quotient.
        return F.round(count / of, 2)

    def text(self, prefix: str, column: str | None) -> Column:
        return F.lit(prefix) if column is None else F.concat(F.lit(prefix), F.col(column))

    def json(self, row: Mapping[str, Column], dates: Container[str]) -> Column:  # noqa: ARG002
        # Timestamps are in the session's time zone, which is UTC.
        return F.to_json(F.struct(*[expression.alias(name) for name, expression in row.items()]))


class _Polars(Engine[pl.Expr]):
    def column(self, name: str) -> pl.Expr:
        return pl.col(name)

    def named(self, expression: pl.Expr, name: str) -> pl.Expr:
        return expression.alias(name)

    def count_equal(self, column: str, value: str) -> pl.Expr:
        return (pl.col(column) == value).sum().cast(pl.Int64)

    def latest(self, column: str) -> pl.Expr:
        return pl.col(column).max()

    def total(self, counts: Sequence[pl.Expr]) -> pl.Expr:
        return pl.sum_horizontal(counts)

    def number_of_positive(self, counts: Sequence[pl.Expr]) -> pl.Expr:
        return pl.sum_horizontal([(count > 0).cast(pl.Int64) for count in counts])

    def least_positive(self, counts: Sequence[pl.Expr]) -> pl.Expr:
        # It skips nulls.
        return pl.min_horizontal([pl.when(count > 0).then(count) for count in counts])

    def greatest(self, counts: Sequence[pl.Expr]) -> pl.Expr:
        return pl.max_horizontal(counts)

    def ratio(self, count: pl.Expr, of: pl.Expr) -> pl.Expr:
        # In integers: Polars rounds the binary quotient, in which 1.005 is less than that.
        return (200 * count + of) // (2 * of) / 100

    def text(self, prefix: str, column: str | None) -> pl.Expr:
        return pl.lit(prefix) if column is None else pl.concat_str(pl.lit(prefix), pl.col(column))

    def json(self, row: Mapping[str, pl.Expr], dates: Container[str]) -> pl.Expr:
        fields = [
            (expression.dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ") if name in dates else expression).alias(name)
            for name, expression in row.items()
        ]
        return pl.struct(fields).struct.json_encode()


SPARK: Final[Engine[Column]] = _Spark()
POLARS: Final[Engine[pl.Expr]] = _Polars()
