"""The operations of which measures consist, for Spark and for Polars: a measure is defined once and runs in both."""

import operator
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import reduce
from typing import Final

import polars as pl
from pyspark.sql import Column
from pyspark.sql import functions as F

from contract.event import Event
from contract.fields import MAX_DECIMAL_DIGITS, ColumnType, Field, FieldType
from contract.measures import Expression, Operation, Operations, StateColumn
from contract.tables import Key

STATE_DIGITS: Final = 38
"""The digits of a decimal in a state or a row; those of an event have fewer."""
_PLACES: Final = 2
"""The decimal places of quotients."""
_DIGITS: Final = 10
"""The decimal places to which a quotient of other than whole numbers is taken to be correct."""
_LARGEST_ROUNDED: Final = 1e15
"""A double of this size has no second decimal place."""
SKETCH_SIZE: Final = 1025
"""The hashes in Polars' sketch of different values: fewer values are counted exactly, more with a standard error of
3.1 %, 1 / sqrt(size - 2) (Bar-Yossef et al., "Counting distinct elements in a data stream", 2002)."""
_LOG2_REGISTERS: Final = 12
"""The size of Spark's sketch (Apache DataSketches' HyperLogLog): a standard error of 1.6 %."""
_MICROSECOND: Final = timedelta(microseconds=1)
_ESCAPED: Final = r"([\\|])"
"""The characters that an id of several columns escapes (`contract.tables.encode_row_id`)."""


class Engine(Operations[Expression]):
    """The operations over expressions of one engine."""

    @abstractmethod
    def aggregate(self, column: StateColumn) -> Expression:
        """Return the aggregation over events that computes a state column, under its name."""

    @abstractmethod
    def window_start(self, time: str, size: timedelta) -> Expression:
        """Return the start of the window of a time."""

    @abstractmethod
    def row_id(self, event: Event, key: Key) -> Expression:
        """Return the id of a row from its key columns (`Table.row_id` as an expression)."""

    @abstractmethod
    def topic_key(self, prefix: str, row_id: Expression | None = None) -> Expression:
        """Return a fixed text, followed by the id of a row if there is one."""

    @abstractmethod
    def json(self, row: Mapping[str, Expression], types: Mapping[str, ColumnType]) -> Expression:
        """Return a row as a JSON object: dates as ISO 8601, UTC, decimals as doubles."""


class _Spark(Engine[Column]):
    def column(self, name: str) -> Column:
        return F.col(name)

    def aggregate(self, column: StateColumn) -> Column:
        value = F.lit(1) if column.field is None else F.col(column.field.name)
        if column.where:
            value = F.when(reduce(operator.and_, [F.col(of.name) == F.lit(each) for of, each in column.where]), value)
        match column.operation:
            case Operation.COUNT:
                return F.count(value).alias(column.name)
            case Operation.TOTAL:
                added = F.coalesce(F.sum(value), F.lit(0))
                return added.cast(spark_type(column.type, column.places)).alias(column.name)
            case Operation.LEAST:
                return F.min(value).cast(spark_type(column.type, column.places)).alias(column.name)
            case Operation.MOST:
                return F.max(value).cast(spark_type(column.type, column.places)).alias(column.name)
            case Operation.DISTINCT:
                # As a text, -0.0 is another value than 0.0.
                value = value + F.lit(0.0) if column.field and column.field.type is FieldType.NUMBER else value
                return F.hll_sketch_agg(value.cast("string"), _LOG2_REGISTERS).alias(column.name)

    def window_start(self, time: str, size: timedelta) -> Column:
        seconds = F.unix_seconds(time)
        return F.timestamp_seconds(seconds - F.pmod(seconds, F.lit(int(size.total_seconds()))))

    def number_of_distinct(self, sketch: Column) -> Column:
        return F.coalesce(F.hll_sketch_estimate(sketch), F.lit(0))

    def total(self, counts: Sequence[Column]) -> Column:
        return reduce(operator.add, counts)

    def number_of_positive(self, counts: Sequence[Column]) -> Column:
        return reduce(operator.add, [(count > 0).cast("long") for count in counts])

    def least_positive(self, counts: Sequence[Column]) -> Column:
        # It skips nulls.
        positive = [F.when(count > 0, count) for count in counts]
        return F.least(*positive) if len(positive) > 1 else positive[0]

    def greatest(self, counts: Sequence[Column]) -> Column:
        return F.greatest(*counts) if len(counts) > 1 else counts[0]

    def quotient(self, dividend: Column, divisor: Column, *, is_exact: bool) -> Column:
        # F.round rounds half away from zero, on the decimal digits of the quotient.
        quotient = dividend.cast("double") / divisor.cast("double")
        if is_exact:
            return F.round(quotient, _PLACES)
        # 205372.05 / 10 is 20537.204999999998.
        digits = F.when(F.abs(quotient) < _LARGEST_ROUNDED, quotient).cast(f"decimal({STATE_DIGITS},{_DIGITS})")
        return F.coalesce(F.round(digits, _PLACES).cast("double"), quotient)

    def row_id(self, event: Event, key: Key) -> Column:  # noqa: ARG002
        return spark_row_id([_spark_text(key, name) for name in key])

    def topic_key(self, prefix: str, row_id: Column | None = None) -> Column:
        return F.lit(prefix) if row_id is None else F.concat(F.lit(prefix), row_id)

    def json(self, row: Mapping[str, Column], types: Mapping[str, ColumnType]) -> Column:
        # Timestamps are in the session's time zone, which is UTC.
        fields = [
            (each.cast("double") if types[name] is ColumnType.DECIMAL else each).alias(name)
            for name, each in row.items()
        ]
        return F.to_json(F.struct(*fields), {"ignoreNullFields": "false"})


class _Polars(Engine[pl.Expr]):
    def column(self, name: str) -> pl.Expr:
        return pl.col(name)

    def aggregate(self, column: StateColumn) -> pl.Expr:
        matches = [pl.col(of.name) == pl.lit(each) for of, each in column.where]
        condition = reduce(operator.and_, matches) if matches else None
        type_ = polars_type(column.type, column.places)
        if column.operation is Operation.COUNT:
            if column.field is not None:
                present = pl.col(column.field.name).is_not_null()
                condition = present if condition is None else condition & present
            counted = pl.len() if condition is None else condition.sum()
            return counted.cast(pl.Int64).alias(column.name)
        assert column.field is not None
        value = pl.col(column.field.name)
        if condition is not None:
            value = pl.when(condition).then(value)
        match column.operation:
            case Operation.TOTAL:
                return value.sum().cast(type_).alias(column.name)
            case Operation.LEAST:
                return value.min().cast(type_).alias(column.name)
            case Operation.DISTINCT:
                # The least of the hashes: evenly distributed, so that the greatest of them says how many there are.
                hashes = value.drop_nulls().hash().reinterpret(signed=True).unique()
                return hashes.bottom_k(SKETCH_SIZE).implode().alias(column.name)
            case _:
                return value.max().cast(type_).alias(column.name)

    def window_start(self, time: str, size: timedelta) -> pl.Expr:
        start_type = polars_type(ColumnType.DATE)
        microseconds = pl.col(time).cast(start_type).to_physical()
        return (microseconds - microseconds % (size // _MICROSECOND)).cast(start_type)

    def number_of_distinct(self, sketch: pl.Expr) -> pl.Expr:
        number, range_ = sketch.list.len().cast(pl.Int64), 2.0**64
        share = (sketch.list.max().cast(pl.Float64) + range_ / 2) / range_
        return pl.when(number < SKETCH_SIZE).then(number).otherwise(((number - 1) / share).round().cast(pl.Int64))

    def total(self, counts: Sequence[pl.Expr]) -> pl.Expr:
        return pl.sum_horizontal(counts)

    def number_of_positive(self, counts: Sequence[pl.Expr]) -> pl.Expr:
        return pl.sum_horizontal([(count > 0).cast(pl.Int64) for count in counts])

    def least_positive(self, counts: Sequence[pl.Expr]) -> pl.Expr:
        # It skips nulls.
        return pl.min_horizontal([pl.when(count > 0).then(count) for count in counts])

    def greatest(self, counts: Sequence[pl.Expr]) -> pl.Expr:
        return pl.max_horizontal(counts)

    def quotient(self, dividend: pl.Expr, divisor: pl.Expr, *, is_exact: bool) -> pl.Expr:
        scale = 10**_PLACES
        if is_exact:
            # In integers: the binary quotient of 1005 and 1000 is less than 1.005.
            sign = dividend.sign() * divisor.sign()
            nearest = (2 * scale * dividend.abs() + divisor.abs()) // (2 * divisor.abs())
            # By a column: for a constant Polars multiplies by its reciprocal, and 2333 * 0.01 is 23.330000000000002.
            quotient = sign * nearest / (scale * divisor.sign().abs())
        else:
            quotient = _rounded(dividend.cast(pl.Float64) / divisor.cast(pl.Float64))
        return pl.when(divisor != 0).then(quotient)

    def row_id(self, event: Event, key: Key) -> pl.Expr:
        texts = [_polars_text(event, key, name) for name in key]
        if len(texts) == 1:
            return texts[0]
        return pl.concat_str([each.str.replace_all(_ESCAPED, r"\$1") for each in texts], separator="|")

    def topic_key(self, prefix: str, row_id: pl.Expr | None = None) -> pl.Expr:
        return pl.lit(prefix) if row_id is None else pl.concat_str(pl.lit(prefix), row_id)

    def json(self, row: Mapping[str, pl.Expr], types: Mapping[str, ColumnType]) -> pl.Expr:
        return pl.struct([_for_json(each, types[name]).alias(name) for name, each in row.items()]).struct.json_encode()


def _rounded(number: pl.Expr) -> pl.Expr:
    """Round a double on its decimal digits: as a binary fraction, 1.005 is less than that."""
    digits = pl.when(number.abs() < _LARGEST_ROUNDED).then(number).cast(pl.Decimal(STATE_DIGITS, _DIGITS))
    return pl.coalesce(digits.round(_PLACES, "half_away_from_zero").cast(pl.Float64), number)


def group_columns(engine: Engine[Expression], event: Event, key: Key) -> dict[str, Expression]:
    """Return the columns of a key by name, as expressions over an event."""
    window = key.window
    return {
        name: engine.column(name)
        if window is None or name != window.name
        else engine.window_start(event.time, window.size)
        for name in key
    }


def spark_row_id(texts: Sequence[Column]) -> Column:
    """Return the id of a row from the texts of its key columns (`contract.tables.encode_row_id` as an expression)."""
    if len(texts) == 1:
        return texts[0]
    return F.concat_ws("|", *[F.regexp_replace(each, _ESCAPED, r"\\$1") for each in texts])


def _spark_text(key: Key, name: str) -> Column:
    if key.window is not None and name == key.window.name:
        return F.date_format(name, "yyyy-MM-dd'T'HH:mm:ss'Z'")
    return F.col(name).cast("string")


def _polars_text(event: Event, key: Key, name: str) -> pl.Expr:
    if key.window is not None and name == key.window.name:
        return pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    is_text = event.field(name).type in (FieldType.TEXT, FieldType.CHOICE)
    return pl.col(name) if is_text else pl.col(name).cast(pl.String)


def _for_json(column: pl.Expr, type: ColumnType) -> pl.Expr:
    match type:
        case ColumnType.DATE:
            return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        case ColumnType.DECIMAL:
            return column.cast(pl.Float64)
        case _:
            return column


def polars_type(type: ColumnType, places: int = 0, digits: int = STATE_DIGITS) -> pl.DataType:
    """Return the type of a column in Polars: by default one of a state or a row."""
    return pl.Decimal(digits, places) if type is ColumnType.DECIMAL else _POLARS_TYPES[type]


def polars_state_type(column: StateColumn) -> pl.DataType:
    """Return the type of a column of a state in Polars."""
    is_sketch = column.operation is Operation.DISTINCT
    return pl.List(pl.Int64()) if is_sketch else polars_type(column.type, column.places)


def spark_type(type: ColumnType, places: int = 0, digits: int = STATE_DIGITS) -> str:
    """Return the type of a column in Spark and in Delta Lake: by default one of a state or a row."""
    return f"decimal({digits},{places})" if type is ColumnType.DECIMAL else _SPARK_TYPES[type]


def lake_type(field: Field) -> str:
    """Return the type of an event's field in Spark and in Delta Lake."""
    return spark_type(field.column_type, field.places, MAX_DECIMAL_DIGITS)


_POLARS_TYPES: Final[dict[ColumnType, pl.DataType]] = {
    ColumnType.KEYWORD: pl.String(),
    ColumnType.LONG: pl.Int64(),
    ColumnType.DOUBLE: pl.Float64(),
    ColumnType.FLAG: pl.Boolean(),
    ColumnType.DATE: pl.Datetime("us", "UTC"),
}
_SPARK_TYPES: Final[dict[ColumnType, str]] = {
    ColumnType.KEYWORD: "string",
    ColumnType.LONG: "long",
    ColumnType.DOUBLE: "double",
    ColumnType.FLAG: "boolean",
    ColumnType.DATE: "timestamp",
}
SPARK: Final[Engine[Column]] = _Spark()
POLARS: Final[Engine[pl.Expr]] = _Polars()
