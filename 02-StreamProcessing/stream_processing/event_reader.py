"""Reads ordinary records into events without Spark, whose fixed cost per batch exceeds that of a small batch.

A record is ordinary if it is certainly valid by `stream_processing.parsing`; that module decides about all others.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
import polars as pl

from contract.declared import EVENT, PIPELINE
from contract.fields import MAX_ID_BYTES, MAX_TIMESTAMP, MIN_TIMESTAMP, Field, FieldType
from stream_processing.lake import EVENT_FRAME

ISO_DATETIME: Final = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:Z|[+-](?:(?:0\d|1[0-7]):[0-5]\d|18:00))"
"""The form of a time; whether there is such a day is checked besides. Java has no time zone beyond 18 hours."""
_ISO_DATETIME: Final = re.compile(ISO_DATETIME, re.ASCII)
_MICROSECOND: Final = 1_000_000
_ABSENT: Final = object()
_OTHER: Final = object()
"""A value that is not ordinary."""
_HAS_DECIMALS: Final = any(field.type is FieldType.DECIMAL for field in EVENT.fields)
_KEYS_OF_SEVERAL: Final = [
    [EVENT.names.index(name) for name in key.fields] for key in PIPELINE.keys if len(key.fields) > 1
]
"""The positions of the fields of each key of several fields."""

Values = tuple[Any, ...]
"""The values of the fields in their order; times are microseconds since 1970."""


def read(values: Sequence[bytes]) -> tuple[list[Values], list[int]]:
    """Return the events of the ordinary records, and the positions of the others."""
    events, others = [], []
    for position, value in enumerate(values):
        fields = _read(value)
        if fields is None:
            others.append(position)
        else:
            events.append(fields)
    return events, others


def frame(events: Sequence[Values]) -> pl.DataFrame:
    """Return events as rows of the lake's table."""
    return pl.DataFrame(events, schema=_READ_FRAME, orient="row").cast(EVENT_FRAME)


def _read(value: bytes) -> Values | None:
    # Without a backslash, no text is half of a surrogate pair.
    if b"\\" in value:
        return None
    record = _parse(value)
    if type(record) is not dict:
        return None
    read_values, found, texts = [], 0, 0
    for name, read_value, is_optional, default in _FIELDS:
        field = record.get(name, _ABSENT)
        found += field is not _ABSENT
        if field is _ABSENT or field is None:
            if not is_optional:
                return None
            read_values.append(default)
            continue
        texts += type(field) is str
        result = read_value(field)
        if result is _OTHER:
            return None
        read_values.append(result)
    # With more quotes, a name occurs twice.
    if found != len(record) or value.count(b'"') != 2 * (found + texts):
        return None
    return None if _is_long_id(read_values) else tuple(read_values)


def _parse(value: bytes) -> object:
    try:
        if not _HAS_DECIMALS:
            return orjson.loads(value)
        return json.loads(value.decode(), parse_float=Decimal, parse_constant=_refuse)
    # Malformed JSON and UTF-8 raise subclasses of ValueError, an exponent of 19 digits one of ArithmeticError.
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _is_long_id(values: Sequence[Any]) -> bool:
    """Whether the id of a key of several columns may be too long."""
    return any(
        sum(2 * len(str(values[n]).encode()) + 1 for n in positions) > MAX_ID_BYTES for positions in _KEYS_OF_SEVERAL
    )


def _reader(field: Field) -> Callable[[Any], Any]:
    """Return the function that reads a value of a field which is not null; `_OTHER` if it is not ordinary."""
    match field.type:
        case FieldType.TEXT:
            most_bytes = field.max_bytes
            return lambda value: value if type(value) is str and 0 < len(value.encode()) <= most_bytes else _OTHER
        case FieldType.CHOICE:
            choices = frozenset(field.choices)
            # A structure has no hash.
            return lambda value: value if type(value) is str and value in choices else _OTHER
        case FieldType.WHOLE:
            # A bool is an int.
            return lambda value: value if type(value) is int and field.is_within(value) else _OTHER
        case FieldType.DECIMAL:
            return lambda value: _decimal(field, value)
        case FieldType.NUMBER:
            return lambda value: _number(field, value)
        case FieldType.FLAG:
            return lambda value: value if type(value) is bool else _OTHER
        case FieldType.EPOCH_SECONDS:
            return lambda value: (
                value * _MICROSECOND if type(value) is int and MIN_TIMESTAMP <= value <= MAX_TIMESTAMP else _OTHER
            )
        case FieldType.EPOCH_MILLISECONDS:
            return lambda value: (
                value * 1000 if type(value) is int and MIN_TIMESTAMP <= value // 1000 <= MAX_TIMESTAMP else _OTHER
            )
        case FieldType.ISO_DATETIME:
            return _moment


def _decimal(field: Field, value: object) -> object:
    if type(value) is int:
        value = Decimal(value)
    if type(value) is not Decimal or not value.is_finite():
        return _OTHER
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return value if -field.places <= exponent <= 0 and field.is_within(value) else _OTHER


def _number(field: Field, value: object) -> object:
    if type(value) is Decimal or type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            return _OTHER
    if type(value) is not float or not abs(value) < float("inf"):
        return _OTHER
    return value if field.is_within(value) else _OTHER


def _moment(value: object) -> object:
    if type(value) is not str or not _ISO_DATETIME.fullmatch(value):
        return _OTHER
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return _OTHER
    seconds = int(moment.replace(microsecond=0).timestamp())
    return seconds * _MICROSECOND + moment.microsecond if MIN_TIMESTAMP <= seconds <= MAX_TIMESTAMP else _OTHER


def _default(field: Field) -> object:
    is_decimal = field.type is FieldType.DECIMAL and field.default is not None
    return Decimal(str(field.default)) if is_decimal else field.default


_FIELDS: Final = [(field.name, _reader(field), field.optional, _default(field)) for field in EVENT.fields]
_READ_FRAME: Final = {
    field.name: pl.Int64() if field.type.is_time else EVENT_FRAME[field.name] for field in EVENT.fields
}
