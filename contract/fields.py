"""The types that a field of the event can have."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Final

from contract.source_lines import declared_at

MAX_ID_BYTES: Final = 512
"""The longest text and the longest row id in UTF-8: Elasticsearch's limit of a document id."""
MAX_DECIMAL_DIGITS: Final = 18
MAX_WHOLE: Final = 10**15
"""The default bound of whole numbers: nine thousand of the largest still add up within 64 bits."""
MIN_TIMESTAMP: Final = 0
"""1970-01-01T00:00:00Z in epoch seconds."""
MAX_TIMESTAMP: Final = 253_402_300_799
"""9999-12-31T23:59:59Z in epoch seconds; milliseconds sent by mistake exceed it."""
_LONG_LIMIT: Final = 1 << 63
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

Scalar = str | int | float | bool | Decimal
"""A value of a field, as Python has it."""


class ColumnType(Enum):
    """The type of a column, of a Delta table and of an index."""

    KEYWORD = "keyword"
    LONG = "long"
    DOUBLE = "double"
    DECIMAL = "decimal"
    FLAG = "boolean"
    DATE = "date"

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers."""
        return self in (ColumnType.LONG, ColumnType.DOUBLE, ColumnType.DECIMAL)

    @property
    def index_type(self) -> str:
        """The type in Elasticsearch: a decimal is a double there."""
        return "double" if self is ColumnType.DECIMAL else self.value


class FieldType(Enum):
    """How a field is written in a record."""

    TEXT = "text"
    CHOICE = "choice"
    WHOLE = "whole"
    DECIMAL = "decimal"
    NUMBER = "number"
    FLAG = "flag"
    EPOCH_SECONDS = "epoch_seconds"
    EPOCH_MILLISECONDS = "epoch_milliseconds"
    ISO_DATETIME = "iso_datetime"

    @property
    def is_quoted(self) -> bool:
        """Whether a record has the value as a JSON string."""
        return self in (FieldType.TEXT, FieldType.CHOICE, FieldType.ISO_DATETIME)

    @property
    def is_time(self) -> bool:
        """Whether the value is a moment."""
        return self in (FieldType.EPOCH_SECONDS, FieldType.EPOCH_MILLISECONDS, FieldType.ISO_DATETIME)

    @property
    def column_type(self) -> ColumnType:
        """The type of a column with these values."""
        if self.is_time:
            return ColumnType.DATE
        return {
            FieldType.WHOLE: ColumnType.LONG,
            FieldType.DECIMAL: ColumnType.DECIMAL,
            FieldType.NUMBER: ColumnType.DOUBLE,
            FieldType.FLAG: ColumnType.FLAG,
        }.get(self, ColumnType.KEYWORD)


_PYTHON_TYPES: Final[dict[FieldType, tuple[type, ...]]] = {
    FieldType.TEXT: (str,),
    FieldType.CHOICE: (str,),
    FieldType.WHOLE: (int,),
    FieldType.DECIMAL: (int, Decimal),
    FieldType.NUMBER: (int, float),
    FieldType.FLAG: (bool,),
}


@dataclass(frozen=True)
class Field:
    """A field of the event."""

    name: str
    type: FieldType
    choices: tuple[str, ...] = ()
    """Of a choice."""
    weights: tuple[float, ...] = ()
    """How often random data has each of the choices, relative to each other; none: all equally often."""
    at_least: int | float | Decimal | None = None
    at_most: int | float | Decimal | None = None
    """The bounds of a number; None: none."""
    places: int = 0
    """The decimal places of a decimal."""
    max_bytes: int = MAX_ID_BYTES
    """The length of a text in UTF-8."""
    optional: bool = False
    """Whether a record may lack it, or have null: it then has the default."""
    default: Scalar | None = None
    line: int = field(default_factory=declared_at, compare=False, repr=False)

    @property
    def column_type(self) -> ColumnType:
        """The type of the field's column in the lake."""
        return self.type.column_type

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the field as such."""
        if not _NAME.fullmatch(self.name):
            yield f"field {self.name!r}: a name has letters, digits and _, and starts with a letter"
        if self.type is FieldType.CHOICE:
            if not self.choices:
                yield f"field {self.name}: a choice needs at least one value"
            if len(set(self.choices)) < len(self.choices):
                yield f"field {self.name}: a value is listed twice"
            if not all(each and each.isprintable() and '"' not in each and "\\" not in each for each in self.choices):
                yield f'field {self.name}: a value is not empty, and has no control characters, no " and no \\'
            yield from self._problems_of_weights()
        if not self._has_valid_places():
            yield f"field {self.name}: places is {self.places}: expected 1 to {MAX_DECIMAL_DIGITS - 1}"
        if self.type is FieldType.TEXT and not 1 <= self.max_bytes <= MAX_ID_BYTES:
            yield f"field {self.name}: max_bytes is {self.max_bytes}: expected 1 to {MAX_ID_BYTES}"
        if self._has_valid_places():
            yield from self._problems_of_bounds()
        if self.default is not None and not self.optional:
            yield f"field {self.name}: only an optional field has a default: add optional=True"
        if self._has_valid_places():
            yield from self._problems_of_default()

    def _problems_of_weights(self) -> Iterator[str]:
        if not self.weights:
            return
        if len(self.weights) != len(self.choices):
            yield f"field {self.name}: {len(self.weights)} weights: expected {len(self.choices)}, one for each value"
        if not all(type(each) in (int, float) and each >= 0 and _is_finite(each) for each in self.weights):
            yield f"field {self.name}: a weight is a number, and not negative"
        elif not any(self.weights):
            yield f"field {self.name}: all weights are 0"

    def _has_valid_places(self) -> bool:
        return self.type is not FieldType.DECIMAL or 0 < self.places < MAX_DECIMAL_DIGITS

    def has_type_of(self, value: object) -> bool:
        """Whether a value in a declaration has a type of the field's values; a time is not written there."""
        # A bool is an int.
        return type(value) in _PYTHON_TYPES.get(self.type, ())

    def is_within(self, value: int | float | Decimal) -> bool:
        """Whether a number is within the bounds."""
        least, most = self.at_least, self.at_most
        return (least is None or value >= least) and (most is None or value <= most)

    def _problems_of_bounds(self) -> Iterator[str]:
        bounds = {"at_least": self.at_least, "at_most": self.at_most}
        wrong = {name: bound for name, bound in bounds.items() if bound is not None and not self._is_value(bound)}
        for name, bound in wrong.items():
            yield f"field {self.name}: {name} is {bound}: expected {self._range()}"
        # Not a number cannot be compared.
        if not wrong and self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            yield f"field {self.name}: at_least is greater than at_most"

    def _is_value(self, value: int | float | Decimal) -> bool:
        """Whether a number can be a value of the field's column."""
        if not _is_finite(value):
            return False
        if self.type is FieldType.WHOLE:
            return -_LONG_LIMIT <= value < _LONG_LIMIT
        if self.type is FieldType.DECIMAL:
            exact = Decimal(value)
            return abs(exact) < Decimal(10) ** (MAX_DECIMAL_DIGITS - self.places) and self._has_places(exact)
        return True

    def _has_places(self, value: Decimal) -> bool:
        return value == round(value, self.places)

    def _range(self) -> str:
        if self.type is FieldType.WHOLE:
            return "a number within 64 bits"
        if self.type is FieldType.DECIMAL:
            return f"at most {MAX_DECIMAL_DIGITS} digits, {self.places} of them decimal places"
        return "a finite number"

    def _problems_of_default(self) -> Iterator[str]:
        default = self.default
        if default is None:
            return
        here = f"field {self.name}: its default {default!r}"
        if self.type.is_time:
            yield f"field {self.name}: a time has no default"
        elif not self.has_type_of(default):
            yield f"{here} is not a {self.type.value}"
        elif self.choices and default not in self.choices:
            yield f"{here} is not one of {', '.join(self.choices)}"
        elif self.type is FieldType.TEXT and not 1 <= len(str(default).encode()) <= self.max_bytes:
            size = len(str(default).encode())
            yield f"field {self.name}: its default has {size} bytes: expected 1 to {self.max_bytes}"
        elif self.column_type.is_number and not isinstance(default, str):
            if not self._is_value(default):
                yield f"{here}: expected {self._range()}"
            elif not self.is_within(default):
                yield f"{here} is not within {self.at_least} to {self.at_most}"


def _is_finite(number: int | float | Decimal) -> bool:
    """Whether a number is one, and within the range of a double."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def text(name: str, *, max_bytes: int = MAX_ID_BYTES, optional: bool = False, default: str | None = None) -> Field:
    """Declare a text of 1 to `max_bytes` bytes of UTF-8."""
    return Field(name, FieldType.TEXT, max_bytes=max_bytes, optional=optional, default=default)


def choice(
    name: str, *values: str, weights: Sequence[float] = (), optional: bool = False, default: str | None = None
) -> Field:
    """Declare one of these texts; random data has them as often as their `weights` say, in the same order."""
    return Field(name, FieldType.CHOICE, choices=values, weights=tuple(weights), optional=optional, default=default)


def whole(
    name: str,
    *,
    at_least: int = -MAX_WHOLE,
    at_most: int = MAX_WHOLE,
    optional: bool = False,
    default: int | None = None,
) -> Field:
    """Declare a whole number; sums are exact, within 64 bits."""
    return Field(name, FieldType.WHOLE, at_least=at_least, at_most=at_most, optional=optional, default=default)


def decimal(
    name: str,
    *,
    places: int = 2,
    at_least: int | Decimal | None = None,
    at_most: int | Decimal | None = None,
    optional: bool = False,
    default: int | Decimal | None = None,
) -> Field:
    """Declare a number with up to `places` decimal places and 18 digits, such as money; sums are exact."""
    limit = Decimal(10) ** (MAX_DECIMAL_DIGITS - places) - Decimal(1).scaleb(-places)
    return Field(
        name,
        FieldType.DECIMAL,
        places=places,
        at_least=-limit if at_least is None else at_least,
        at_most=limit if at_most is None else at_most,
        optional=optional,
        default=default,
    )


def number(
    name: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    optional: bool = False,
    default: float | None = None,
) -> Field:
    """Declare a double: a sum depends on the order of the additions in its last digits."""
    return Field(name, FieldType.NUMBER, at_least=at_least, at_most=at_most, optional=optional, default=default)


def flag(name: str, *, optional: bool = False, default: bool | None = None) -> Field:
    """Declare a truth value."""
    return Field(name, FieldType.FLAG, optional=optional, default=default)


def epoch_seconds(name: str) -> Field:
    """Declare a moment as whole seconds since 1970, UTC."""
    return Field(name, FieldType.EPOCH_SECONDS)


def epoch_milliseconds(name: str) -> Field:
    """Declare a moment as whole milliseconds since 1970, UTC."""
    return Field(name, FieldType.EPOCH_MILLISECONDS)


def iso_datetime(name: str) -> Field:
    """Declare a moment as ISO 8601 with a time zone, such as 2026-01-31T12:00:00Z, with up to 6 decimal places."""
    return Field(name, FieldType.ISO_DATETIME)
