"""Parses Kafka records into events, and gives a reason for each malformed one.

Column expressions only, in three plans: `parse_canonical` for batches of canonical records only, which most batches
are; `parse` for all others, with no JSON parse for a canonical record, one for most others, two more for suspicious
ones; `with_reason` for the texts of the reasons. A plan pays for the number of its expressions, and for each step
outside of Spark's generated code, such as a JSON parse, even if no record needs it.

Columns that are no fields start with __ here: fields may have any other name.
"""

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from contract.dead_letters import QUOTED_CHARACTERS
from contract.declared import EVENT, PIPELINE
from contract.event import MAX_BYTES
from contract.fields import MAX_ID_BYTES, Field, FieldType
from stream_processing import canonical_json
from stream_processing.engines import lake_type, spark_row_id
from stream_processing.event_reader import ISO_DATETIME

_WIRE_TYPES: Final = {
    FieldType.WHOLE: "long",
    FieldType.EPOCH_SECONDS: "long",
    FieldType.EPOCH_MILLISECONDS: "long",
    FieldType.DECIMAL: "decimal(38,18)",
    FieldType.NUMBER: "double",
    FieldType.FLAG: "boolean",
}
"""The types of Spark's JSON parser; all others are texts."""
_SCHEMA: Final = ", ".join(f"`{field.name}` {_WIRE_TYPES.get(field.type, 'string')}" for field in EVENT.fields)
IS_VALID: Final = "__is_valid"
RECORD: Final = "__record"
"""The columns that `parse` adds."""
_STRICT: Final = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}
"""Standard JSON only: by default Spark parses NaN, and the string "NaN" too, as a number."""
_TEXTS: Final = tuple(field.name for field in EVENT.fields if field.type.is_quoted)

_SURROGATE: Final = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_BACKSLASH_OR_PAIR: Final = r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
"""Matches that contain no half of a surrogate pair: an escaped backslash, and a whole pair."""

_NAMES: Final = '"(?:' + "|".join(EVENT.names) + ')"'
_SUSPICIOUS: Final = "|".join(
    [
        # Half of a surrogate pair: Java would write it as "?", and so merge different ids.
        _SURROGATE,
        # A letter, digit or _ that is written as an escape: it can hide a field name.
        r"\\u00(?:3[0-9]|[4-7])",
        # A text that is not a string: Spark converts any JSON value to a string if the schema has one.
        *([rf'"(?:{"|".join(_TEXTS)})"[ \t\r\n]*:[ \t\r\n]*[^" \t\r\n]'] if _TEXTS else []),
    ]
)


def _spelled(name: str) -> str:
    """Return a pattern of a field's name, each letter of which can be an escape."""
    return "".join(rf"(?:{letter}|\\u(?i:{ord(letter):04x}))" for letter in name)


_DECIMALS: Final = "|".join(_spelled(field.name) for field in EVENT.fields if field.type is FieldType.DECIMAL)
_EXPONENT: Final = r"(?:[eE]|\\u00[46]5)(?:[-+]|\\u002[bBdD])?+(?:[\p{Nd},]|\\u[0-9a-fA-F]{4}){5}"
_LONG_DECIMAL: Final = (
    rf'"(?:{_DECIMALS})"[ \t\r\n]*+:[ \t\r\n]*+(?:-?[\d.]*+[eE][-+]?\d{{5}}|"(?:[^"]{{101}}|[^"]*?{_EXPONENT}))'
)
"""A decimal that takes Java seconds to hours, or that it fails at: it computes the power of any exponent."""

_OTHER_TYPES: Final = {"number": "double", "truth": "boolean", "object": "map<string,string>", "list": "array<string>"}
"""JSON types that a text can have instead of string, and the Spark type that parses only these."""
_END: Final = "end_of_types"
"""The last field of the object with the copies of a record; it is missing if a copy closes the object early."""
_TOO_LONG: Final = "a decimal has an exponent of more than 4 digits, or is a string of more than 100 characters"
_NOT_ONE_OBJECT: Final = "not one JSON object"
_BEYOND_64_BITS: Final = r"^-?[1-9]\d{18,}$"
"""A whole number that Spark's parser rejects."""


_LARGEST_DOUBLE: Final = 1.7976931348623157e308

NOT_CANONICAL: Final = "this record is not canonical"


def parse_canonical(records: DataFrame) -> DataFrame:
    """Parse Kafka records (`value`: binary) into the columns of an event, at a third of the cost of `parse`.

    The query fails with `NOT_CANONICAL` at a record that is not canonical.
    """
    first, *others = EVENT.fields
    canonical, values = _canonical(records)
    checked = F.when(F.col("__canonical"), _lake_value(first, values[first.name]))
    refused = F.raise_error(F.lit(NOT_CANONICAL)).cast(lake_type(first))
    return canonical.select(
        checked.otherwise(refused).alias(first.name),
        *(_lake_value(field, values[field.name]).alias(field.name) for field in others),
    )


def _canonical(records: DataFrame) -> tuple[DataFrame, dict[str, Column]]:
    """Add `__text` and `__tokens` of records, and whether they are `__canonical`; return the values of those, too."""
    text, tokens = F.col("__text"), F.col("__tokens")
    # In steps: a step can use a column of the previous one several times, and Spark computes it once.
    read = records.withColumn("__text", F.col("value").cast("string")).withColumn(
        "__tokens", canonical_json.split(text)
    )
    values = canonical_json.values(tokens)
    converted = [field.name for field in EVENT.fields if not field.type.is_quoted]
    for name in converted:
        read = read.withColumn(_value_name(name), values[name])
    values |= {name: F.col(_value_name(name)) for name in converted}
    return read.withColumn("__canonical", canonical_json.is_valid(tokens, values, text, F.col("value"))), values


def _value_name(field: str) -> str:
    return f"__value_{field}"


def parse(records: DataFrame) -> DataFrame:
    """Parse Kafka records (`value`: binary) into the columns of an event, `IS_VALID` and `RECORD`.

    `RECORD` has all columns of an original that is not canonical, else null. Where `IS_VALID` is false, the columns of
    the event mean nothing, and `with_reason` computes the reason.
    """
    text, canonical = F.col("__text"), F.col("__canonical")
    checked, values = _canonical(records)
    parsed_text = _parsed_text(F.col("value"), text)
    # Null for a canonical record, which is then not checked at all.
    suspicious = F.when(~canonical, _is_suspicious(F.col("value"), text))
    # Spark's JSON parser is outside of the generated code: the fewer columns cross that boundary, the better.
    parser_input = checked.select(
        "__canonical",
        *(F.when(canonical, value).alias(_value_name(name)) for name, value in values.items()),
        F.when(~canonical, parsed_text).alias("__text"),
        F.when(suspicious, parsed_text).alias("__suspicious_text"),
        F.when(~canonical, F.struct(*records.columns)).alias(RECORD),
        suspicious.alias("__suspicious"),
    )
    json = F.col("__json")
    # One step for all parsers: each step copies a value, which can have many MB.
    parsed = parser_input.select("*", _json(text).alias("__json"), *_parse_for_checks(F.col("__suspicious_text")))
    is_valid = F.when(canonical, True)
    for failed, _ in _record_checks(F.col(f"{RECORD}.value"), text):
        is_valid = is_valid.when(F.col("__suspicious") & failed, False)
    for failed, _ in _field_checks(text, json):
        is_valid = is_valid.when(F.coalesce(failed, F.lit(False)), False)
    return parsed.select(
        *(_parsed_value(field, json).alias(field.name) for field in EVENT.fields),
        is_valid.otherwise(True).alias(IS_VALID),
        RECORD,
    )


def _parsed_value(field: Field, json: Column) -> Column:
    """Return the value of a record, canonical or not; nothing in particular if it is malformed."""
    value = json[field.name]
    if field.type in (FieldType.EPOCH_SECONDS, FieldType.EPOCH_MILLISECONDS):
        # Spark cannot convert all others to a timestamp.
        value = F.when(reduce(operator.and_, canonical_json.bounds(field, value)), value)
    found = _lake_value(field, F.coalesce(F.col(_value_name(field.name)), value))
    return found if field.default is None else F.coalesce(found, F.lit(field.default).cast(lake_type(field)))


def _lake_value(field: Field, value: Column) -> Column:
    """Return a value of the lake's table from one of a record."""
    match field.type:
        case FieldType.EPOCH_SECONDS:
            return F.timestamp_seconds(value)
        case FieldType.EPOCH_MILLISECONDS:
            return F.timestamp_millis(value)
        case FieldType.DECIMAL | FieldType.ISO_DATETIME:
            return value.cast(lake_type(field))
        case _:
            return value


def with_reason(records: DataFrame) -> DataFrame:
    """Add the column `reason` to malformed records (`value`: binary)."""
    value, text, json = F.col("value"), F.col("__text"), F.col("__json")
    read = records.withColumn("__text", _parsed_text(value, value.cast("string")))
    parsed = read.select("*", _json(text).alias("__json"), *_parse_for_checks(text))
    return parsed.select(*records.columns, _rejection_reason(value, text, json).alias("reason"))


def _rejection_reason(value: Column, text: Column, json: Column) -> Column:
    """Return the reason of the first check that a record fails."""
    checks = [*_record_checks(value, text), *_field_checks(text, json)]
    return F.coalesce(*(F.when(failed, reason) for failed, reason in checks), F.lit(_NOT_ONE_OBJECT))


def _parsed_text(value: Column, text: Column) -> Column:
    is_parsed = F.octet_length(value) <= MAX_BYTES
    return F.when(is_parsed & ~text.rlike(_LONG_DECIMAL) if _DECIMALS else is_parsed, text)


def _json(text: Column) -> Column:
    return F.from_json(text, _SCHEMA, _STRICT)


def _is_suspicious(value: Column, text: Column) -> Column:
    """Whether Spark's parser could accept a record that is malformed; true or false, never null."""
    is_plain = [
        # Spark parses the first JSON value and ignores the rest: the only closing brace must be the last character.
        F.instr(text, "}") == F.length(text),
        # Decoding replaces malformed UTF-8, so that the result differs from the text.
        F.decode(value, "UTF-8") == text,
        # A field that occurs twice is ambiguous. Without a required one, the record is malformed anyway.
        F.size(F.split(text, _NAMES, len(EVENT.fields) + 2)) == len(EVENT.fields) + 1,
        *(F.instr(text, f'"{field.name}"') > 0 for field in EVENT.fields if field.optional),
        ~text.rlike(_SUSPICIOUS),
        F.octet_length(value) <= MAX_BYTES,
    ]
    return F.coalesce(~reduce(operator.and_, is_plain), F.lit(True))


def _quoted(text: Column) -> Column:
    """Shorten a field for a reason (`contract.dead_letters.truncated` as an expression)."""
    characters = F.length(text).cast("string")
    cut = F.concat(F.substring(text, 1, QUOTED_CHARACTERS), F.lit("... ("), characters, F.lit(" characters)"))
    return F.when(F.length(text) > QUOTED_CHARACTERS, cut).otherwise(text)


def _parse_for_checks(text: Column) -> Sequence[Column]:
    """Return the columns `__objects` and `__types`, which the checks use by name; null for null."""
    # Spark ignores the rest after the first value. So a record is parsed within an array, which only `]` ends, and
    # within an object, which only `}` ends: no rest can pass both. Only a whole object leaves `_END` to be found.
    objects = F.from_json(F.concat(F.lit("["), text, F.lit("]")), "array<map<string,string>>", _STRICT)
    # One parse for all types; a field of another type than the requested one is null.
    copies = [part for json_type in _OTHER_TYPES for part in (F.lit(f',"{json_type}":'), text)]
    types = F.from_json(
        F.concat(F.lit('{"types":0'), *copies, F.lit(f',"{_END}":1}}')),
        ", ".join(
            f"{json_type} struct<{','.join(f'`{name}`:{spark_type}' for name in _TEXTS)}>"
            for json_type, spark_type in _OTHER_TYPES.items()
        )
        + f", {_END} int",
        _STRICT,
    )
    return [objects.alias("__objects"), types.alias("__types")]


_Check = tuple[Column, Column]
"""Whether a record fails the check, and the reason; the first failed check counts."""


def _record_checks(value: Column, text: Column) -> list[_Check]:
    """Return the checks of a suspicious record as a whole."""
    objects = F.col("__objects")
    fields = F.map_keys(objects[0])
    size = F.octet_length(value)
    half = F.regexp_extract(F.regexp_replace(text, _BACKSLASH_OR_PAIR, " "), _SURROGATE, 0)
    return [
        (value.isNull(), F.lit("the value is empty")),
        (
            size > MAX_BYTES,
            F.concat(F.lit("the value has "), size.cast("string"), F.lit(f" bytes, more than {MAX_BYTES}")),
        ),
        (~F.coalesce(F.decode(value, "UTF-8") == text, F.lit(False)), F.lit("not UTF-8")),
        # All other texts are parsed.
        (text.isNull(), F.lit(_TOO_LONG)),
        (F.coalesce(F.size(objects), F.lit(-1)) != 1, F.lit(_NOT_ONE_OBJECT)),
        (objects[0].isNull() | F.col("__types")[_END].isNull(), F.lit(_NOT_ONE_OBJECT)),
        (half != "", F.concat(F.lit("not text: "), half, F.lit(" is half of a surrogate pair"))),
        *(
            (F.size(F.array_remove(fields, name)) < F.size(fields) - 1, F.lit(f"{name} occurs more than once"))
            for name in EVENT.names
        ),
    ]


def _field_checks(text: Column, json: Column) -> list[_Check]:
    """Return the checks of a record's fields."""
    checks = [check for field in EVENT.fields for check in _checks_of(field, text, json[field.name])]
    for key in dict.fromkeys(key.fields for key in PIPELINE.keys):
        if len(key) > 1:
            size = F.octet_length(spark_row_id([json[name].cast("string") for name in key]))
            reason = [F.lit(f"{' and '.join(key)} have "), size.cast("string")]
            checks.append((size > MAX_ID_BYTES, F.concat(*reason, F.lit(f" bytes as an id, more than {MAX_ID_BYTES}"))))
    return checks


def _checks_of(field: Field, text: Column, value: Column) -> list[_Check]:
    name = field.name
    written = F.get_json_object(text, f"$.{name}")
    raw = _quoted(written)

    def is_not(expected: str) -> Column:
        return F.concat(F.lit(f"{name} is "), raw, F.lit(f", {expected}"))

    def is_null(reason: Column) -> list[_Check]:
        # Null can be a value of another type, too; then the reason has what is written.
        if field.optional:
            # Of what is no JSON, Spark makes null too, and may continue after it. A suspicious record is parsed whole.
            is_whole = F.col("__types")[_END].isNotNull() | text.rlike(rf'"{name}"[ \t\r\n]*:[ \t\r\n]*null')
            return [
                (value.isNull() & written.isNotNull(), reason),
                (value.isNull() & ~is_whole, F.lit(_NOT_ONE_OBJECT)),
            ]
        return [(value.isNull(), F.coalesce(reason, F.lit(f"{name} is missing or null")))]

    match field.type:
        case FieldType.TEXT:
            size = F.octet_length(value)
            limit = F.lit(f" bytes of UTF-8, more than {field.max_bytes}")
            return [
                *is_null(F.lit(None)),
                (F.length(value) == 0, F.lit(f"{name} is empty")),
                (_is_other_type(name), F.lit(f"{name} is not a string")),
                (size > field.max_bytes, F.concat(F.lit(f"{name} has "), size.cast("string"), limit)),
            ]
        case FieldType.CHOICE:
            listed = F.lit(f", not one of {', '.join(field.choices)}")
            return [
                *is_null(F.lit(None)),
                (~value.isin(*field.choices), F.concat(F.lit(f"{name} is "), _quoted(value), listed)),
                (_is_other_type(name), F.lit(f"{name} is not a string")),
            ]
        case FieldType.ISO_DATETIME:
            seconds = value.cast("timestamp").cast("long")
            form = is_not("not a time with a time zone, such as 2026-01-31T12:00:00Z")
            return [
                *is_null(F.lit(None)),
                (_is_other_type(name), F.lit(f"{name} is not a string")),
                (~value.rlike(rf"^{ISO_DATETIME}\z") | seconds.isNull(), form),
                (~canonical_json.in_years(seconds), is_not("not within the years 1970 to 9999")),
            ]
        case FieldType.FLAG:
            return is_null(is_not("not true or false"))
        case FieldType.EPOCH_SECONDS | FieldType.EPOCH_MILLISECONDS:
            unit = "seconds" if field.type is FieldType.EPOCH_SECONDS else "milliseconds"
            outside = F.concat(F.lit(f"{name} "), raw, F.lit(f" is not epoch {unit} within the years 1970 to 9999"))
            other = is_not(f"not a whole number of {unit}")
        case FieldType.WHOLE:
            outside = is_not(f"not within {field.at_least} to {field.at_most}")
            other = is_not("not a whole number")
        case _:
            outside = is_not(f"not within {field.at_least} to {field.at_most}")
            other = is_not("not a number")
    checks = is_null(F.when(raw.rlike(_BEYOND_64_BITS), outside).otherwise(other))
    if field.type is FieldType.DECIMAL:
        exact = value.cast(f"decimal(38,{field.places})")
        checks.append((value != exact, is_not(f"which has more than {field.places} decimal places")))
    if field.type is FieldType.NUMBER:
        checks.append((F.abs(value) > _LARGEST_DOUBLE, is_not("beyond the range of a double")))
    return [*checks, *((~within, outside) for within in canonical_json.bounds(field, value))]


def _is_other_type(name: str) -> Column:
    """Whether a text is written as another JSON type; null, and so false, for a record that is not suspicious."""
    types = F.col("__types")
    return reduce(operator.or_, [types[json_type][name].isNotNull() for json_type in _OTHER_TYPES])
