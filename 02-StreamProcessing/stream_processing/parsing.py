"""Parses Kafka records into interactions, and gives a reason for each malformed one.

Column expressions only, in three plans: `parse_canonical` for batches of canonical records only, which most batches
are; `parse` for all others, with no JSON parse for a canonical record, one for most others, two more for suspicious
ones; `with_reason` for the texts of the reasons. A plan pays for the number of its expressions, and for each step
outside of Spark's generated code, such as a JSON parse, even if no record needs it.
"""

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType

from contract.dead_letters import QUOTED_CHARACTERS
from contract.interaction import INTERACTION_TYPES, MAX_BYTES, MAX_ID_BYTES, MAX_TIMESTAMP, MIN_TIMESTAMP
from stream_processing import canonical_json

_SCHEMA: Final = StructType(
    [
        StructField("user_id", StringType()),
        StructField("item_id", StringType()),
        StructField("interaction_type", StringType()),
        StructField("timestamp", LongType()),
    ]
)
_STRICT: Final = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}
"""Standard JSON only: by default Spark parses NaN, and the string "NaN" too, as a number."""
_IDS: Final = ("user_id", "item_id")

_SURROGATE: Final = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_BACKSLASH_OR_PAIR: Final = r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
"""Matches that contain no half of a surrogate pair: an escaped backslash, and a whole pair."""

_NAMES: Final = '"(?:' + "|".join(_SCHEMA.names) + ')"'
_SUSPICIOUS: Final = "|".join(
    [
        # Half of a surrogate pair: Java would write it as "?", and so merge different ids.
        _SURROGATE,
        # A letter that is written as an escape: it can hide a field name.
        r"\\u00[567]",
        # An id that is not a string: Spark converts any JSON value to a string if the schema has one.
        rf'"(?:{"|".join(_IDS)})"[ \t\r\n]*:[ \t\r\n]*[^" \t\r\n]',
    ]
)

_OTHER_TYPES: Final = {"number": "double", "truth": "boolean", "object": "map<string,string>", "list": "array<string>"}
"""JSON types that an id can have instead of string, and the Spark type that parses only these."""
_END: Final = "end_of_types"
"""The last field of the object with the copies of a record; it is missing if a copy closes the object early."""
_NOT_ONE_OBJECT: Final = "not one JSON object"
_BEYOND_64_BITS: Final = r"^-?[1-9]\d{18,}$"
"""A whole number that Spark's parser rejects."""


NOT_CANONICAL: Final = "this record is not canonical"


def parse_canonical(records: DataFrame) -> DataFrame:
    """Parse Kafka records (`value`: binary) into the columns of an interaction, at a third of the cost of `parse`.

    The query fails with `NOT_CANONICAL` at a record that is not canonical.
    """
    tokens, seconds = F.col("tokens"), F.col("seconds")
    user_id = F.when(F.col("canonical"), canonical_json.user_id(tokens))
    return _canonical(records).select(
        user_id.otherwise(F.raise_error(F.lit(NOT_CANONICAL)).cast("string")).alias("user_id"),
        canonical_json.item_id(tokens).alias("item_id"),
        canonical_json.interaction_type(tokens).alias("interaction_type"),
        F.timestamp_seconds(seconds).alias("timestamp"),
    )


def _canonical(records: DataFrame) -> DataFrame:
    """Add `text` and `tokens` of records, `seconds` of the timestamp, and whether they are `canonical`."""
    text, tokens = F.col("text"), F.col("tokens")
    # In steps: a step can use a column of the previous one several times, and Spark computes it once.
    read = records.withColumn("text", F.col("value").cast("string")).withColumn("tokens", canonical_json.split(text))
    return read.withColumn("seconds", canonical_json.timestamp(tokens)).withColumn(
        "canonical", canonical_json.is_valid(tokens, F.col("seconds"), text, F.col("value"))
    )


def parse(records: DataFrame) -> DataFrame:
    """Parse Kafka records (`value`: binary) into the columns of an interaction, `is_valid` and `record`.

    `record` has all columns of an original that is not canonical, else null. Where `is_valid` is false, the columns of
    the interaction mean nothing, and `with_reason` computes the reason.
    """
    text, tokens, seconds, canonical = (F.col(name) for name in ("text", "tokens", "seconds", "canonical"))
    checked = _canonical(records)
    parsed_text = _parsed_text(F.col("value"), text)
    # Null for a canonical record, which is then not checked at all.
    suspicious = F.when(~canonical, _is_suspicious(F.col("value"), text))
    # Spark's JSON parser is outside of the generated code: the fewer columns cross that boundary, the better.
    parser_input = checked.select(
        "canonical",
        F.when(canonical, canonical_json.user_id(tokens)).alias("user_id"),
        F.when(canonical, canonical_json.item_id(tokens)).alias("item_id"),
        F.when(canonical, canonical_json.interaction_type(tokens)).alias("interaction_type"),
        "seconds",
        F.when(~canonical, parsed_text).alias("text"),
        F.when(suspicious, parsed_text).alias("suspicious_text"),
        F.when(~canonical, F.struct(*records.columns)).alias("record"),
        suspicious.alias("suspicious"),
    )
    json = F.col("json")
    # One step for all parsers: each step copies a value, which can have many MB.
    parsed = parser_input.select("*", _json(text).alias("json"), *_parse_for_checks(F.col("suspicious_text")))
    is_valid = F.when(canonical, True)
    for failed, _ in _record_checks(F.col("record.value"), text):
        is_valid = is_valid.when(F.col("suspicious") & failed, False)
    for failed, _ in _field_checks(text, json):
        is_valid = is_valid.when(failed, False)
    timestamp = F.when(canonical, seconds).when(_in_range(json["timestamp"]), json["timestamp"])
    return parsed.select(
        *(F.coalesce(name, json[name]).alias(name) for name in ("user_id", "item_id", "interaction_type")),
        F.timestamp_seconds(timestamp).alias("timestamp"),
        is_valid.otherwise(True).alias("is_valid"),
        "record",
    )


def with_reason(records: DataFrame) -> DataFrame:
    """Add the column `reason` to malformed records (`value`: binary)."""
    value, text, json = F.col("value"), F.col("text"), F.col("json")
    read = records.withColumn("text", _parsed_text(value, value.cast("string")))
    parsed = read.select("*", _json(text).alias("json"), *_parse_for_checks(text))
    return parsed.select(*records.columns, _rejection_reason(value, text, json).alias("reason"))


def _rejection_reason(value: Column, text: Column, json: Column) -> Column:
    """Return the reason of the first check that a record fails."""
    checks = [*_record_checks(value, text), *_field_checks(text, json)]
    return F.coalesce(*(F.when(failed, reason) for failed, reason in checks), F.lit(_NOT_ONE_OBJECT))


def _parsed_text(value: Column, text: Column) -> Column:
    return F.when(F.octet_length(value) <= MAX_BYTES, text)


def _json(text: Column) -> Column:
    return F.from_json(text, _SCHEMA, _STRICT)


def _is_suspicious(value: Column, text: Column) -> Column:
    """Whether Spark's parser could accept a record that is malformed; true or false, never null."""
    is_plain = [
        # Spark parses the first JSON value and ignores the rest: the only closing brace must be the last character.
        F.instr(text, "}") == F.length(text),
        # Decoding replaces malformed UTF-8, so that the result differs from the text.
        F.decode(value, "UTF-8") == text,
        # A field that occurs twice is ambiguous.
        F.size(F.split(text, _NAMES, len(_SCHEMA) + 2)) == len(_SCHEMA) + 1,
        ~text.rlike(_SUSPICIOUS),
        F.octet_length(value) <= MAX_BYTES,
    ]
    return F.coalesce(~reduce(operator.and_, is_plain), F.lit(True))


def _in_range(timestamp: Column) -> Column:
    return timestamp.between(MIN_TIMESTAMP, MAX_TIMESTAMP)


def _quoted(text: Column) -> Column:
    """Shorten a field for a reason (`contract.dead_letters.truncated` as an expression)."""
    characters = F.length(text).cast("string")
    cut = F.concat(F.substring(text, 1, QUOTED_CHARACTERS), F.lit("... ("), characters, F.lit(" characters)"))
    return F.when(F.length(text) > QUOTED_CHARACTERS, cut).otherwise(text)


def _parse_for_checks(text: Column) -> Sequence[Column]:
    """Return the columns `objects` and `types`, which the checks use by name; null for null."""
    # Spark ignores the rest after the first value. So a record is parsed within an array, which only `]` ends, and
    # within an object, which only `}` ends: no rest can pass both. Only a whole object leaves `_END` to be found.
    objects = F.from_json(F.concat(F.lit("["), text, F.lit("]")), "array<map<string,string>>", _STRICT)
    # One parse for all types; a field of another type than the requested one is null.
    copies = [part for json_type in _OTHER_TYPES for part in (F.lit(f',"{json_type}":'), text)]
    types = F.from_json(
        F.concat(F.lit('{"types":0'), *copies, F.lit(f',"{_END}":1}}')),
        ", ".join(
            f"{json_type} struct<{','.join(f'{name}:{spark_type}' for name in _IDS)}>"
            for json_type, spark_type in _OTHER_TYPES.items()
        )
        + f", {_END} int",
        _STRICT,
    )
    return [objects.alias("objects"), types.alias("types")]


_Check = tuple[Column, Column]
"""Whether a record fails the check, and the reason; the first failed check counts."""


def _record_checks(value: Column, text: Column) -> list[_Check]:
    """Return the checks of a suspicious record as a whole."""
    objects = F.col("objects")
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
        (F.coalesce(F.size(objects), F.lit(-1)) != 1, F.lit(_NOT_ONE_OBJECT)),
        (objects[0].isNull() | F.col("types")[_END].isNull(), F.lit(_NOT_ONE_OBJECT)),
        (half != "", F.concat(F.lit("not text: "), half, F.lit(" is half of a surrogate pair"))),
        *(
            (F.size(F.array_remove(fields, name)) < F.size(fields) - 1, F.lit(f"{name} occurs more than once"))
            for name in _SCHEMA.names
        ),
    ]


def _field_checks(text: Column, json: Column) -> list[_Check]:
    """Return the checks of a record's fields."""
    types = F.col("types")
    checks = []
    for name in _IDS:
        is_other = reduce(operator.or_, [types[json_type][name].isNotNull() for json_type in _OTHER_TYPES])
        id_bytes = F.octet_length(json[name])
        checks += [
            (json[name].isNull(), F.lit(f"{name} is missing or null")),
            (F.length(json[name]) == 0, F.lit(f"{name} is empty")),
            (is_other, F.lit(f"{name} is not a string")),
            (
                id_bytes > MAX_ID_BYTES,
                F.concat(
                    F.lit(f"{name} has "),
                    id_bytes.cast("string"),
                    F.lit(f" bytes of UTF-8, more than {MAX_ID_BYTES}"),
                ),
            ),
        ]
    interaction_type = json["interaction_type"]
    raw_timestamp = _quoted(F.get_json_object(text, "$.timestamp"))
    no_number = F.concat(F.lit("timestamp is "), raw_timestamp, F.lit(", not a whole number of seconds"))
    out_of_range = F.concat(
        F.lit("timestamp "), raw_timestamp, F.lit(" is not epoch seconds within the years 1970 to 9999")
    )
    no_timestamp = F.when(raw_timestamp.rlike(_BEYOND_64_BITS), out_of_range).otherwise(no_number)
    checks += [
        (interaction_type.isNull(), F.lit("interaction_type is missing or null")),
        (
            ~interaction_type.isin(*INTERACTION_TYPES),
            F.concat(
                F.lit("interaction_type is "),
                _quoted(interaction_type),
                F.lit(f", not one of {', '.join(INTERACTION_TYPES)}"),
            ),
        ),
        (json["timestamp"].isNull(), F.coalesce(no_timestamp, F.lit("timestamp is missing or null"))),
        (~_in_range(json["timestamp"]), out_of_range),
    ]
    return checks
