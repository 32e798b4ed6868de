"""The columns that a replay reads, one per field of the event: their types, and what makes a value invalid."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from contract.dead_letters import truncated
from contract.declared import EVENT
from contract.fields import MAX_TIMESTAMP, MIN_TIMESTAMP, Field, FieldType
from data_producer.events import Event

_INTEGERS: Final = frozenset(
    f"{sign}{name}" for sign in ("", "U") for name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
)
_ISO: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class Column:
    """One field of the event."""

    field: Field
    expected: str
    """What a column of the recording may have."""
    expression: Callable[[str, str], str | None]
    """Returns the SQL of the value, null if it is not as expected, from the column's name and its type in DuckDB; None
    if that type is not accepted."""
    error: Callable[[Any], str | None]
    """Returns what is wrong with a value; None if it is valid."""

    @property
    def name(self) -> str:
        """The field's name."""
        return self.field.name


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that is no valid event."""

    reason: str


def parse(row: Sequence[Any]) -> Event | InvalidRow:
    """Return the event of a row, or why the row is not valid.

    A row has a value for each of `COLUMNS`, and then for each of `OPTIONAL` whether there is one in the recording.

    >>> parse(("user_1", "item_2", "stare", 1736404972))
    InvalidRow(reason='interaction_type is stare, not one of click, like, view, purchase')
    """
    present = dict(zip(OPTIONAL, row[len(COLUMNS) :], strict=True))
    for column, value in zip(COLUMNS, row, strict=False):
        if value is not None:
            error = column.error(value)
        else:
            error = f"is missing, or not {column.expected}" if present.get(column.name, True) else None
        if error is not None:
            return InvalidRow(f"{column.name} {error}")
    return dict(zip(EVENT.names, row, strict=False))


def _is_text(kind: str) -> bool:
    return kind in _INTEGERS or kind in ("VARCHAR", "UUID") or kind.startswith("ENUM(")


def _is_time(kind: str) -> bool:
    return kind == "DATE" or kind.startswith("TIMESTAMP")


def _as_text(name: str, kind: str) -> str | None:
    """Return texts; whole numbers and UUIDs as DuckDB writes them."""
    return f"CAST({name} AS VARCHAR)" if _is_text(kind) else None


def _as_whole(name: str, kind: str) -> str | None:
    if kind in _INTEGERS:
        return f"TRY_CAST({name} AS BIGINT)"
    if kind == "VARCHAR":
        # A cast alone would round 1.5 to 2.
        return f"CASE WHEN regexp_full_match({name}, '-?[0-9]+') THEN TRY_CAST({name} AS BIGINT) END"
    return None


def _as_digits(name: str, kind: str) -> str | None:
    """Return a decimal as text, which keeps all of its digits."""
    is_number = kind in _INTEGERS or kind in ("VARCHAR", "FLOAT", "DOUBLE") or kind.startswith("DECIMAL(")
    return f"CAST({name} AS VARCHAR)" if is_number else None


def _as_double(name: str, kind: str) -> str | None:
    is_number = kind in _INTEGERS or kind in ("VARCHAR", "FLOAT", "DOUBLE") or kind.startswith("DECIMAL(")
    return f"TRY_CAST({name} AS DOUBLE)" if is_number else None


def _as_flag(name: str, kind: str) -> str | None:
    return f"TRY_CAST({name} AS BOOLEAN)" if kind in ("BOOLEAN", "VARCHAR") else None


def _as_epoch(per_second: int) -> Callable[[str, str], str | None]:
    """Return the expression of whole seconds, or parts of them, since 1970: of a number, a time, or text of either."""

    def since(time: str) -> str:
        return f"TRY_CAST(floor({per_second} * epoch({time})) AS BIGINT)"

    def expression(name: str, kind: str) -> str | None:
        if kind in _INTEGERS:
            return _as_whole(name, kind)
        if _is_time(kind):
            return since(name)
        if kind == "VARCHAR":
            return f"coalesce({_as_whole(name, kind)}, {since(f'TRY_CAST({name} AS TIMESTAMPTZ)')})"
        return None

    return expression


def _as_iso(name: str, kind: str) -> str | None:
    """Return a time as ISO 8601, UTC: of a time, or of text that is one."""
    if _is_time(kind):
        return f"strftime(CAST({name} AS TIMESTAMPTZ), '{_ISO}')"
    return f"strftime(TRY_CAST({name} AS TIMESTAMPTZ), '{_ISO}')" if kind == "VARCHAR" else None


def _text_error(field: Field) -> Callable[[str], str | None]:
    def error(value: str) -> str | None:
        if not value:
            return "is empty"
        # A character has at most 4 bytes.
        if len(value) > field.max_bytes // 4 and (size := len(value.encode())) > field.max_bytes:
            return f"has {size} bytes of UTF-8, more than {field.max_bytes}"
        return None

    return error


def _choice_error(field: Field) -> Callable[[str], str | None]:
    listed = ", ".join(field.choices)
    return lambda value: None if value in field.choices else f"is {truncated(value)}, not one of {listed}"


def _number_error(field: Field) -> Callable[[Any], str | None]:
    def error(value: Any) -> str | None:
        if not abs(value) < float("inf"):
            return f"is {value}, not a finite number"
        return None if field.is_within(value) else f"is {value}, not within {field.at_least} to {field.at_most}"

    return error


def _decimal_error(field: Field) -> Callable[[str], str | None]:
    digits = re.compile(r"-?\d+(\.\d+)?")
    within = _number_error(field)

    def error(value: str) -> str | None:
        if not digits.fullmatch(value):
            return f"is {truncated(value)}, not a number"
        if len(value.partition(".")[2]) > field.places:
            return f"is {truncated(value)}, which has more than {field.places} decimal places"
        return within(Decimal(value))

    return error


def _epoch_error(unit: str, per_second: int) -> Callable[[int], str | None]:
    def error(value: int) -> str | None:
        is_within = MIN_TIMESTAMP <= value // per_second <= MAX_TIMESTAMP
        return None if is_within else f"is {value}, not epoch {unit} within the years 1970 to 9999"

    return error


def _iso_error(value: str) -> str | None:
    is_within = MIN_TIMESTAMP <= datetime.fromisoformat(value).timestamp() <= MAX_TIMESTAMP
    return None if is_within else f"is {value}, not within the years 1970 to 9999"


def _no_error(_: object) -> str | None:
    return None


def _column(field: Field) -> Column:
    time = "a TIMESTAMP (UTC), or text that is one of them"
    match field.type:
        case FieldType.TEXT:
            return Column(field, "text or a whole number", _as_text, _text_error(field))
        case FieldType.CHOICE:
            return Column(field, "text or a whole number", _as_text, _choice_error(field))
        case FieldType.WHOLE:
            return Column(field, "a whole number, or text that is one", _as_whole, _number_error(field))
        case FieldType.DECIMAL:
            return Column(field, "a number, or text that is one", _as_digits, _decimal_error(field))
        case FieldType.NUMBER:
            return Column(field, "a number, or text that is one", _as_double, _number_error(field))
        case FieldType.FLAG:
            return Column(field, "true or false", _as_flag, _no_error)
        case FieldType.EPOCH_SECONDS:
            return Column(field, f"whole epoch seconds, {time}", _as_epoch(1), _epoch_error("seconds", 1))
        case FieldType.EPOCH_MILLISECONDS:
            return Column(
                field, f"whole epoch milliseconds, {time}", _as_epoch(1000), _epoch_error("milliseconds", 1000)
            )
        case FieldType.ISO_DATETIME:
            return Column(field, "a TIMESTAMP (UTC), or text that is one", _as_iso, _iso_error)


COLUMNS: Final = tuple(map(_column, EVENT.fields))
"""In the order of the event's fields."""
OPTIONAL: Final = tuple(field.name for field in EVENT.fields if field.optional)
"""The fields that a recording may lack."""
