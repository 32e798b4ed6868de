"""Parses a record in canonical form by splitting it at its quotes, at a third of a JSON parser's cost.

The canonical form is the one that most producers write: all declared fields in the declared order, with or without a
space after each colon and comma. The check covers every byte of the record, so that no other record passes it.

>>> '{"user_id":"u","item_id":"i","interaction_type":"like","timestamp":1}'.split('"')[3:8]
['u', ',', 'item_id', ':', 'i']
"""

import operator
from dataclasses import dataclass
from functools import reduce
from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as F

from contract.declared import EVENT, PIPELINE
from contract.fields import MAX_ID_BYTES, MAX_TIMESTAMP, MIN_TIMESTAMP, Field, FieldType
from stream_processing.event_reader import ISO_DATETIME

_NOT_PLAIN: Final = r"[\x00-\x1f\\]"
"""Characters that a JSON string contains only as escapes, and the backslash that starts one."""
_NUMBER: Final = r"^-?(0|[1-9]\d{0,14})(\.\d{1,15})?([eE][-+]?\d{1,2})?\z"
"""Numbers that are doubles certainly."""


@dataclass(frozen=True)
class _Place:
    """Where the tokens of a field are."""

    field: Field
    name: int
    value: int
    """The token of a text; of another value, the token with it, the colon before and the separator after it."""
    is_last: bool

    @property
    def separator(self) -> int:
        """The token after a text."""
        return self.value + 1


def _places() -> tuple[list[_Place], int]:
    """Return the places of all fields, and the number of tokens."""
    places, position = [], 1
    for n, field in enumerate(EVENT.fields):
        value = position + (2 if field.type.is_quoted else 1)
        places.append(_Place(field, position, value, n == len(EVENT.fields) - 1))
        position = value + (2 if field.type.is_quoted else 1)
    return places, position


_PLACES, _TOKENS = _places()


def split(text: Column) -> Column:
    """Split a record into the tokens that the other functions take; null for null."""
    # One more than a canonical record has: a record of a million quotes is not split further.
    return F.split(text, '"', _TOKENS + 1)


def values(tokens: Column) -> dict[str, Column]:
    """Return the fields of a canonical record as it has them; times as numbers or texts."""
    return {place.field.name: _value(place, tokens) for place in _PLACES}


def is_valid(tokens: Column, fields: dict[str, Column], text: Column, value: Column) -> Column:
    """Whether a record is canonical and a valid event; true or false, never null.

    `value` has the record's bytes, `text` the same as a string, `tokens` its tokens, `fields` its `values`.
    """
    colon, comma = _colon(tokens), _comma(tokens)
    quoted = [place for place in _PLACES if place.field.type.is_quoted]
    checks = [
        F.size(tokens) == _TOKENS,
        tokens[0] == "{",
        *(tokens[place.name] == place.field.name for place in _PLACES),
        colon.isin(":", ": "),
        comma.isin(",", ", "),
        *(check for place in _PLACES for check in _syntax(place, tokens, fields, colon, comma)),
        *(check for place in _PLACES for check in _bounds(place.field, fields[place.field.name])),
        *_ids(fields),
        # Decoding replaces malformed UTF-8, so that the result differs from the text.
        F.decode(value, "UTF-8") == text,
    ]
    texts = [tokens[place.value] for place in quoted if place.field.type is FieldType.TEXT]
    if texts:
        checks.append(~(F.concat(*texts) if len(texts) > 1 else texts[0]).rlike(_NOT_PLAIN))
    return F.coalesce(reduce(operator.and_, checks), F.lit(False))


def _colon(tokens: Column) -> Column:
    first = _PLACES[0]
    if first.field.type.is_quoted:
        return tokens[first.name + 1]
    return F.when(tokens[first.value].startswith(": "), ": ").otherwise(":")


def _comma(tokens: Column) -> Column:
    first = _PLACES[0]
    if first.is_last:
        return F.lit(",")
    if first.field.type.is_quoted:
        return tokens[first.separator]
    return F.when(tokens[first.value].endswith(", "), ", ").otherwise(",")


def _raw(place: _Place, tokens: Column) -> Column:
    """Return the text of a value that is not quoted, with the space before it."""
    end = "}" if place.is_last else ","
    return F.substring_index(F.substring_index(tokens[place.value], end, 1), ":", -1)


def _value(place: _Place, tokens: Column) -> Column:
    match place.field.type:
        case FieldType.WHOLE | FieldType.EPOCH_SECONDS | FieldType.EPOCH_MILLISECONDS:
            return _raw(place, tokens).cast("long")
        case FieldType.DECIMAL:
            raw = F.trim(_raw(place, tokens))
            # Not the other ones: Spark computes the power of an exponent first, or fails.
            return F.when(raw.rlike(_decimal(place.field)), raw).cast("decimal(38,18)")
        case FieldType.NUMBER:
            return F.trim(_raw(place, tokens)).cast("double")
        case FieldType.FLAG:
            return F.trim(_raw(place, tokens)).cast("boolean")
        case _:
            return tokens[place.value]


def _decimal(field: Field) -> str:
    return rf"^-?(0|[1-9]\d{{0,17}})(\.\d{{1,{field.places}}})?\z"


def _syntax(place: _Place, tokens: Column, fields: dict[str, Column], colon: Column, comma: Column) -> list[Column]:
    """Return the checks of all that stands between the quotes, and is no text."""
    end = F.lit("}") if place.is_last else comma
    field = place.field
    if field.type.is_quoted:
        # The first ones are the colon and the comma that all others have to equal.
        is_first = place is _PLACES[0]
        around = [] if is_first else [tokens[place.name + 1] == colon]
        return around if is_first and not place.is_last else [*around, tokens[place.separator] == end]
    raw = F.trim(_raw(place, tokens))
    whole = field.type in (FieldType.WHOLE, FieldType.EPOCH_SECONDS, FieldType.EPOCH_MILLISECONDS)
    # The text of a whole number is the only one: it has no leading zero, and nothing follows.
    written = fields[field.name].cast("string") if whole else raw
    checks = [F.concat(colon, written, end) == tokens[place.value]]
    match field.type:
        case FieldType.NUMBER:
            checks.append(raw.rlike(_NUMBER))
        case FieldType.FLAG:
            checks.append(raw.isin("true", "false"))
        case _:
            pass
    return checks


def _bounds(field: Field, value: Column) -> list[Column]:
    match field.type:
        case FieldType.TEXT:
            return [F.octet_length(value).between(1, field.max_bytes)]
        case FieldType.CHOICE:
            return [value.isin(*field.choices)]
        case FieldType.ISO_DATETIME:
            return [value.rlike(rf"^{ISO_DATETIME}\z"), in_years(value.cast("timestamp").cast("long"))]
        case _:
            return bounds(field, value)


def bounds(field: Field, value: Column) -> list[Column]:
    """Return the checks of a number, or of a time that is one, against its bounds."""
    match field.type:
        case FieldType.EPOCH_SECONDS:
            return [in_years(value)]
        case FieldType.EPOCH_MILLISECONDS:
            return [value.between(1000 * MIN_TIMESTAMP, 1000 * MAX_TIMESTAMP + 999)]
        case _:
            least = [] if field.at_least is None else [value >= F.lit(field.at_least)]
            return least if field.at_most is None else [*least, value <= F.lit(field.at_most)]


def in_years(seconds: Column) -> Column:
    """Whether epoch seconds are within the years 1970 to 9999."""
    return seconds.between(MIN_TIMESTAMP, MAX_TIMESTAMP)


def _ids(fields: dict[str, Column]) -> list[Column]:
    """Return the checks that the id of each key of several columns is certainly not too long."""
    lengths = [
        [2 * F.octet_length(fields[name].cast("string")) + 1 for name in key.fields]
        for key in PIPELINE.keys
        if len(key.fields) > 1
    ]
    return [reduce(operator.add, parts) <= MAX_ID_BYTES for parts in lengths]
