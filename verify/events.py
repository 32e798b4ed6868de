"""Parses records of the topic of events, by the rules that the documentation states; one record at a time."""

import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any, Final

from contract.event import MAX_BYTES, Event
from contract.fields import MAX_ID_BYTES, MAX_TIMESTAMP, MIN_TIMESTAMP, Field, FieldType
from contract.tables import Key
from verify.database import DOUBLE, FLAG, TEXT, WHOLE, Columns, name

_MAX_DIGITS: Final = 1_000
_MAX_DEPTH: Final = 999
"""One level more is an event of the stream job, or is not: it parses some records within an array, too."""
_NUMBERS_AND_BRACKETS: Final = re.compile(r"[\[\]{}]|[-+.0-9eE]+")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A decimal in a string, as Java reads it: the digits of any script."""
_OTHER_ESCAPE: Final = re.compile(r"\\[^u]")
_PAIR: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_HALF_PAIR: Final = re.compile(r"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair, where pairs are left out, which no text in UTF-8 has."""
_LONG_EXPONENT: Final = re.compile(r"[eE][+-]?[\d,]{5}")
_MAX_DECIMAL_CHARACTERS: Final = 100
_SPARK_UNIT: Final = Decimal("1e-18")
_SPARK_CONTEXT: Final = Context(prec=38, rounding=ROUND_HALF_UP)
"""Spark rounds a decimal to 18 decimal places before anything else, and has 38 digits."""
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-]([0-9]{2}):[0-5][0-9])"
)
_MAX_ZONE: Final = timedelta(hours=18)
"""The zones that Java knows."""
_KINDS: Final = {
    FieldType.TEXT: TEXT,
    FieldType.CHOICE: TEXT,
    FieldType.NUMBER: DOUBLE,
    FieldType.FLAG: FLAG,
}
"""All others are whole numbers: decimals without their point, times as microseconds."""

Values = tuple[Any, ...]


class _MalformedError(Exception):
    """The record is no event."""


class _Decimal(str):
    """A number with a point or an exponent, as it is written: no type has all of them."""


class _Object(list[tuple[str, Any]]):
    """The fields of a JSON object in their order, repeated ones too."""


def columns(event: Event) -> Columns:
    """Return the types of the values of `parse`."""
    return {field.name: _KINDS.get(field.type, WHOLE) for field in event.fields}


def sql_types(event: Event) -> dict[str, str]:
    """Return the same types as SQL has them."""
    types = {TEXT: "VARCHAR", DOUBLE: "DOUBLE", FLAG: "BOOLEAN", WHOLE: "BIGINT"}
    return {column: next(sql for each, sql in types.items() if each == kind) for column, kind in columns(event).items()}


def lake_columns(event: Event) -> list[str]:
    """Return the same values as expressions over a row of the lake."""
    return [f"{_from_lake(field)} AS {name(field.name)}" for field in event.fields]


def _from_lake(field: Field) -> str:
    if field.type.is_time:
        return f"epoch_us({name(field.name)})"
    if field.type is FieldType.DECIMAL:
        return f"CAST({name(field.name)} * {10**field.places} AS BIGINT)"
    return name(field.name)


class EventParser:
    """Parses the records of one event."""

    def __init__(self, event: Event, keys: Iterable[Key]) -> None:
        """`keys` are those of the tables: the id of a row limits the texts that it consists of."""
        # Python's JSON parser counts each level as a call.
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 3 * _MAX_DEPTH))
        self._event = event
        names = [field.name for field in event.fields]
        self._joined = [
            [names.index(each) for each in fields]
            for fields in dict.fromkeys(key.fields for key in keys)
            if len(fields) > 1
        ]

    def parse(self, value: bytes | None) -> Values | None:
        """Return the values of the fields, or None if the record is malformed."""
        try:
            if value is None or len(value) > MAX_BYTES:
                return None
            record = _object(value)
            values = tuple(self._value(field, record) for field in self._event.fields)
            self._require_short_ids(values)
        except _MalformedError:
            return None
        return values

    def _value(self, field: Field, record: _Object) -> Any:
        found = [each for key, each in record if key == field.name]
        if len(found) > 1:
            raise _MalformedError
        if not found or found[0] is None:
            if not field.optional:
                raise _MalformedError
            if field.default is None or field.type is not FieldType.DECIMAL:
                return field.default
            return _unscaled(field, Decimal(str(field.default)))
        return _converted(field, found[0])

    def _require_short_ids(self, values: Values) -> None:
        for positions in self._joined:
            texts = [_text(values[position]) for position in positions]
            escaped = "|".join(text.replace("\\", "\\\\").replace("|", "\\|") for text in texts)
            if len(escaped.encode()) > MAX_ID_BYTES:
                raise _MalformedError


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _object(value: bytes) -> _Object:
    try:
        text = value.decode()
        if len(value) > _MAX_DIGITS:
            _require_limits(_without_strings(text))
        record = json.loads(text, object_pairs_hook=_Object, parse_float=_Decimal, parse_constant=_refuse)
        if _HALF_PAIR.search(_PAIR.sub(" ", _OTHER_ESCAPE.sub(" ", text))):
            raise _MalformedError
    # Malformed JSON and UTF-8 raise subclasses of it.
    except (ValueError, RecursionError):
        raise _MalformedError from None
    if type(record) is not _Object:
        raise _MalformedError
    return record


def _refuse(_: str) -> None:
    raise _MalformedError


def _without_strings(text: str) -> str:
    return re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"', "", text, flags=re.DOTALL)


def _require_limits(text: str) -> None:
    """Refuse a number or a depth that is beyond the limits."""
    depth = 0
    for each in _NUMBERS_AND_BRACKETS.findall(text):
        depth += (each in "[{") - (each in "]}")
        if depth > _MAX_DEPTH or (len(each) > _MAX_DIGITS and sum(map(str.isdigit, each)) > _MAX_DIGITS):
            raise _MalformedError


def _converted(field: Field, value: Any) -> Any:
    match field.type:
        case FieldType.TEXT:
            if type(value) is not str or not 0 < len(value.encode()) <= field.max_bytes:
                raise _MalformedError
        case FieldType.CHOICE:
            if type(value) is not str or value not in field.choices:
                raise _MalformedError
        case FieldType.FLAG:
            if type(value) is not bool:
                raise _MalformedError
        case FieldType.WHOLE:
            if type(value) is not int or not _is_within(field, value):
                raise _MalformedError
        case FieldType.EPOCH_SECONDS:
            if type(value) is not int or not MIN_TIMESTAMP <= value <= MAX_TIMESTAMP:
                raise _MalformedError
            return value * 1_000_000
        case FieldType.EPOCH_MILLISECONDS:
            if type(value) is not int or not MIN_TIMESTAMP <= value // 1000 <= MAX_TIMESTAMP:
                raise _MalformedError
            return value * 1000
        case FieldType.NUMBER:
            return _double(field, value)
        case FieldType.DECIMAL:
            return _decimal(field, value)
        case FieldType.ISO_DATETIME:
            return _microseconds(value)
    return value


def _is_within(field: Field, value: Any) -> bool:
    return (field.at_least is None or value >= field.at_least) and (field.at_most is None or value <= field.at_most)


def _double(field: Field, value: Any) -> float:
    if type(value) not in (int, _Decimal):
        raise _MalformedError
    try:
        double = float(value)
    except OverflowError:
        raise _MalformedError from None
    if abs(double) == float("inf") or not _is_within(field, double):
        raise _MalformedError
    # A sum does not show the sign of zero.
    return double + 0.0


def _decimal(field: Field, value: Any) -> int:
    if type(value) not in (int, _Decimal, str) or _LONG_EXPONENT.search(str(value)):
        raise _MalformedError
    # A decimal may be written as a string, too, then with commas between the digits.
    if type(value) is str:
        if len(value) > _MAX_DECIMAL_CHARACTERS or max(value, default="") > "\uffff":
            raise _MalformedError
        if not _NUMBER.fullmatch(value := value.replace(",", "")):
            raise _MalformedError
    try:
        decimal = Decimal(value).quantize(_SPARK_UNIT, context=_SPARK_CONTEXT)
    except InvalidOperation:
        raise _MalformedError from None
    if not _is_within(field, decimal):
        raise _MalformedError
    return _unscaled(field, decimal)


def _unscaled(field: Field, decimal: Decimal) -> int:
    scaled = decimal.scaleb(field.places, _SPARK_CONTEXT)
    if scaled != scaled.to_integral_value():
        raise _MalformedError
    return int(scaled)


def _microseconds(value: Any) -> int:
    if type(value) is not str or not _TIME.fullmatch(value):
        raise _MalformedError
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise _MalformedError from None
    if abs(moment.utcoffset() or timedelta()) > _MAX_ZONE:
        raise _MalformedError
    since_1970 = moment - datetime(1970, 1, 1, tzinfo=UTC)
    if not MIN_TIMESTAMP <= (seconds := since_1970.days * 86_400 + since_1970.seconds) <= MAX_TIMESTAMP:
        raise _MalformedError
    return seconds * 1_000_000 + since_1970.microseconds
