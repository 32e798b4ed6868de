"""The measures of a table: what each keeps per key, and how its column follows from that.

A measure is a few mergeable numbers per key (`StateColumn`), which measures of the same key share, and an expression
over them. The expression is built from `Operations`, which the stream job implements for Spark and for Polars.

A new measure is a class with a few methods; `Quotient` is a short one.
"""

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from contract.event import Event
from contract.fields import ColumnType, Field, FieldType, Scalar
from contract.source_lines import declared_at

if TYPE_CHECKING:
    from contract.tables import Table

Expression = TypeVar("Expression")
Where = Mapping[Field, Scalar] | None
"""The values that fields have to have."""
_ADDABLE = (FieldType.WHOLE, FieldType.DECIMAL, FieldType.NUMBER)
_ORDERED = tuple(each for each in FieldType if each not in (FieldType.TEXT, FieldType.CHOICE, FieldType.FLAG))


class Operation(Enum):
    """How a state column is computed from events, and how two of the same key are merged."""

    COUNT = "count"
    """The number of events, or of those that have the field; added."""
    TOTAL = "total"
    """The sum of the field; added."""
    LEAST = "least"
    MOST = "most"
    """The least or greatest value of the field; compared."""
    DISTINCT = "distinct"
    """A sketch of the different values of the field; united."""


@dataclass(frozen=True)
class StateColumn:
    """A mergeable number of a key."""

    operation: Operation
    field: Field | None = None
    where: tuple[tuple[Field, Scalar], ...] = ()

    @property
    def name(self) -> str:
        """The column's name in the state; different columns have different names, and no field starts with _."""
        parts = [self.operation.value, *([self.field.name] if self.field else [])]
        parts += [part for of, value in self.where for part in (of.name, str(value))]
        name = "_".join(["", *(re.sub(r"\W", "_", part) for part in parts)])
        # Two lists of parts can have the same text.
        return name if len(parts) == 1 else f"{name}_{zlib.crc32(repr(parts).encode()):08x}"

    @property
    def type(self) -> ColumnType:
        """The type of its number; a sketch has one of its own in each engine."""
        if self.operation in (Operation.COUNT, Operation.DISTINCT) or self.field is None:
            return ColumnType.LONG
        return self.field.column_type

    @property
    def places(self) -> int:
        """The decimal places of a decimal."""
        return self.field.places if self.type is ColumnType.DECIMAL and self.field is not None else 0


class Operations(ABC, Generic[Expression]):
    """The operations over the columns of a key's state."""

    @abstractmethod
    def column(self, name: str) -> Expression:
        """Return the values of a column."""

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
    def number_of_distinct(self, sketch: Expression) -> Expression:
        """Return the number of different values that a sketch has seen, or an estimate of it."""

    @abstractmethod
    def quotient(self, dividend: Expression, divisor: Expression, *, is_exact: bool) -> Expression:
        """Return the quotient, rounded half away from zero to 2 decimal places; null for a divisor of 0.

        With `is_exact` both are whole numbers, and no binary fraction is involved.
        """


@dataclass(frozen=True)
class Measure(ABC):
    """A measure: a column of a table."""

    line: int = field(default_factory=declared_at, compare=False, repr=False, kw_only=True)

    is_least = False
    """Whether the least of its values says most about all of them."""
    is_extreme = False
    """Whether it is the value of an event, which may be that of none."""

    @abstractmethod
    def type(self, event: Event) -> ColumnType:
        """Return the column's type."""

    @abstractmethod
    def state(self, event: Event) -> tuple[StateColumn, ...]:
        """Return the state columns that it needs."""

    @abstractmethod
    def result(self, on: Operations[Expression], event: Event) -> Expression:
        """Return the column, as an expression over the state columns."""

    def problems(self, event: Event) -> Iterator[str]:  # noqa: ARG002
        """Yield what is wrong with it; nothing by default."""
        yield from ()

    def places(self, event: Event) -> int:  # noqa: ARG002
        """Return the decimal places of a decimal."""
        return 0

    def tables(self) -> "tuple[Table, ...]":
        """Return the other tables whose rows it counts."""
        return ()

    def definition(self, event: Event) -> str:
        """Return a text that differs for measures with other results."""
        return f"{type(self).__name__.strip('_')}({', '.join(column.name for column in self.state(event))})"


@dataclass(frozen=True)
class _OfOneColumn(Measure):
    """A measure that is one state column."""

    of: str | None = None
    where: tuple[tuple[Field, Scalar], ...] = ()

    operation = Operation.COUNT
    accepts = tuple(FieldType)

    def type(self, event: Event) -> ColumnType:
        return self._column(event).type

    def places(self, event: Event) -> int:
        return self._column(event).places

    def state(self, event: Event) -> tuple[StateColumn, ...]:
        return (self._column(event),)

    def result(self, on: Operations[Expression], event: Event) -> Expression:
        return on.column(self._column(event).name)

    def problems(self, event: Event) -> Iterator[str]:
        if self.of is not None:
            yield from _problems_of_field(self.operation.value, self.of, event, self.accepts)
        for of, value in self.where:
            if not isinstance(of, Field):
                yield f"where: {of!r} is no field: name the field itself, as in where={{KIND: 'view'}}"
            elif of not in event.fields:
                yield f"where: {of.name!r} is none of the event's fields: {', '.join(event.names)}"
            elif of.choices and value not in of.choices:
                yield f"where: {of.name} is never {value!r}, only {', '.join(of.choices)}"
            elif of.type.is_time:
                yield f"where: {of.name} is a time: divide times by a window in the key"
            elif not of.has_type_of(value):
                yield f"where: {value!r} is not a {of.type.value}, as {of.name} is"

    def _column(self, event: Event) -> StateColumn:
        return StateColumn(self.operation, None if self.of is None else event.field(self.of), self.where)


class Count(_OfOneColumn):
    """The number of events."""

    operation = Operation.COUNT


class Total(_OfOneColumn):
    """The sum of a field."""

    operation = Operation.TOTAL
    accepts = _ADDABLE


class Least(_OfOneColumn):
    """The least value of a field."""

    is_least = True
    is_extreme = True
    operation = Operation.LEAST
    accepts = _ORDERED


class Most(_OfOneColumn):
    """The greatest value of a field."""

    is_extreme = True
    operation = Operation.MOST
    accepts = _ORDERED


class Distinct(_OfOneColumn):
    """The number of different values of a field."""

    operation = Operation.DISTINCT

    def result(self, on: Operations[Expression], event: Event) -> Expression:
        return on.number_of_distinct(super().result(on, event))


@dataclass(frozen=True)
class Quotient(Measure):
    """One measure over another."""

    dividend: Measure
    divisor: Measure

    def type(self, event: Event) -> ColumnType:  # noqa: ARG002
        return ColumnType.DOUBLE

    def state(self, event: Event) -> tuple[StateColumn, ...]:
        return (*self.dividend.state(event), *self.divisor.state(event))

    def result(self, on: Operations[Expression], event: Event) -> Expression:
        is_exact = {self.dividend.type(event), self.divisor.type(event)} == {ColumnType.LONG}
        return on.quotient(self.dividend.result(on, event), self.divisor.result(on, event), is_exact=is_exact)

    def problems(self, event: Event) -> Iterator[str]:
        for part in (self.dividend, self.divisor):
            if problems := list(part.problems(event)):
                yield from problems
            elif not part.type(event).is_number:
                yield "a ratio needs two numbers"

    def tables(self) -> "tuple[Table, ...]":
        return (*self.dividend.tables(), *self.divisor.tables())

    def definition(self, event: Event) -> str:
        return f"{self.dividend.definition(event)} / {self.divisor.definition(event)}"


@dataclass(frozen=True)
class Rows(Measure):
    """The number of rows of a table; only in a table without a key, whose row changes with each event."""

    table: "Table"

    def type(self, event: Event) -> ColumnType:  # noqa: ARG002
        return ColumnType.LONG

    def state(self, event: Event) -> tuple[StateColumn, ...]:  # noqa: ARG002
        return ()

    def result(self, on: Operations[Expression], event: Event) -> Expression:  # noqa: ARG002
        return on.column(rows_column(self.table.key))

    def tables(self) -> "tuple[Table, ...]":
        return (self.table,)

    def definition(self, event: Event) -> str:  # noqa: ARG002
        return f"rows of {self.table.name}"


@dataclass(frozen=True)
class PerChoice(Measure):
    """A measure over the numbers of events per value of a choice."""

    of: Field

    def type(self, event: Event) -> ColumnType:  # noqa: ARG002
        return ColumnType.LONG

    def state(self, event: Event) -> tuple[StateColumn, ...]:  # noqa: ARG002
        return tuple(StateColumn(Operation.COUNT, None, ((self.of, value),)) for value in self.of.choices)

    def problems(self, event: Event) -> Iterator[str]:
        if self.of not in event.fields:
            yield f"{self.of.name!r} is none of the event's fields: {', '.join(event.names)}"
        elif self.of.type is not FieldType.CHOICE:
            yield f"{self.of.name} is a {self.of.type.value}: expected a choice"

    def _counts(self, on: Operations[Expression], event: Event) -> list[Expression]:
        return [on.column(column.name) for column in self.state(event)]


class LeastPerChoice(PerChoice):
    """The least of the numbers of events per value, over those that have occurred."""

    is_least = True

    def result(self, on: Operations[Expression], event: Event) -> Expression:
        return on.least_positive(self._counts(on, event))


class MostPerChoice(PerChoice):
    """The greatest of the numbers of events per value."""

    def result(self, on: Operations[Expression], event: Event) -> Expression:
        return on.greatest(self._counts(on, event))


class MeanPerChoice(PerChoice):
    """The number of events over the number of values that have occurred."""

    def type(self, event: Event) -> ColumnType:  # noqa: ARG002
        return ColumnType.DOUBLE

    def result(self, on: Operations[Expression], event: Event) -> Expression:
        counts = self._counts(on, event)
        return on.quotient(on.total(counts), on.number_of_positive(counts), is_exact=True)


def count(of: str | None = None, *, where: Where = None) -> Measure:
    """Return the number of events, or of those that have the optional field `of`."""
    return Count(of, _pairs(where))


def total(of: str, *, where: Where = None) -> Measure:
    """Return the sum of a field: exact for whole numbers (within 64 bits) and decimals."""
    return Total(of, _pairs(where))


def least(of: str, *, where: Where = None) -> Measure:
    """Return the least value of a number or a time."""
    return Least(of, _pairs(where))


def most(of: str, *, where: Where = None) -> Measure:
    """Return the greatest value of a number or a time."""
    return Most(of, _pairs(where))


def earliest(of: str, *, where: Where = None) -> Measure:
    """Return the earliest time."""
    return Least(of, _pairs(where))


def latest(of: str, *, where: Where = None) -> Measure:
    """Return the latest time."""
    return Most(of, _pairs(where))


def distinct(of: str, *, where: Where = None) -> Measure:
    """Return the number of different values of a field: exact up to 1,024, an estimate within some percent beyond."""
    return Distinct(of, _pairs(where))


def mean(of: str, *, where: Where = None) -> Measure:
    """Return the mean of a field over the events that have it, to 2 decimal places."""
    return Quotient(total(of, where=where), count(of, where=where))


def ratio(dividend: Measure, divisor: Measure) -> Measure:
    """Return one measure over another, to 2 decimal places; null where the second is 0."""
    return Quotient(dividend, divisor)


def rows_of(table: "Table") -> Measure:
    """Return the number of rows of another table; only in a table without a key."""
    return Rows(table)


def mean_per_choice(of: Field) -> Measure:
    """Return the events over the number of different values of the choice that have occurred, to 2 decimal places."""
    return MeanPerChoice(of)


def least_choice(of: Field) -> Measure:
    """Return the least of the numbers of events per value of the choice, over the values that have occurred."""
    return LeastPerChoice(of)


def most_choice(of: Field) -> Measure:
    """Return the greatest of the numbers of events per value of the choice."""
    return MostPerChoice(of)


def rows_column(key: Sequence[str]) -> str:
    """Return the name of the column with the number of rows of the tables with this key."""
    # The columns of two keys can join to the same text by _.
    return "+".join(["_rows_by", *key])


def _pairs(where: Where) -> tuple[tuple[Field, Scalar], ...]:
    return tuple((where or {}).items())


def _problems_of_field(operation: str, name: str, event: Event, accepted: Sequence[FieldType]) -> Iterator[str]:
    if name not in event.names:
        yield f"{operation}: {name!r} is none of the event's fields: {', '.join(event.names)}"
    elif event.field(name).type not in accepted:
        kinds = ", ".join(each.value for each in accepted)
        yield f"{operation}: {name} is a {event.field(name).type.value}: expected one of {kinds}"
