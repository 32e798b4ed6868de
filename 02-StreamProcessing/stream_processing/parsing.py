"""Parses Kafka records into interactions, and says what is wrong with those that do not fit.

Column expressions only: no JSON parse for a record in the usual form, one for most others, two more for what looks
odd. All of them are in the plan of every batch, which pays for their number; the texts of reasons are not, they have
a plan of their own.
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
"""JSON alone; otherwise Spark takes NaN for a number, and the string "NaN" as well."""
_IDS: Final = ("user_id", "item_id")

_SURROGATE: Final = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_BACKSLASH_OR_PAIR: Final = r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
"""What holds no half of a surrogate pair: an escaped backslash, whatever follows it, and a whole pair."""

_NAMES: Final = '"(?:' + "|".join(_SCHEMA.names) + ')"'
_SUSPICIOUS: Final = "|".join(
    [
        # Half a surrogate pair, which Java would write as "?", and make one id of many.
        _SURROGATE,
        # A letter that is written as an escape: a name may hide in it.
        r"\\u00[567]",
        # An id that is no string: Spark turns any JSON value into one, when a string is asked for.
        rf'"(?:{"|".join(_IDS)})"[ \t\r\n]*:[ \t\r\n]*[^" \t\r\n]',
    ]
)

_OTHER_KINDS: Final = {"number": "double", "truth": "boolean", "object": "map<string,string>", "list": "array<string>"}
"""What an id may be instead of a string, and the type under which Spark parses it."""
_END: Final = "end_of_kinds"
"""The last field of the object that holds the copies of a record; it is missing where a copy ends the object early."""
_NOT_ONE_OBJECT: Final = "not one JSON object"
_BEYOND_64_BITS: Final = r"^-?[1-9]\d{18,}$"
"""A whole number, which Spark's parser takes for none."""


def parse(records: DataFrame) -> DataFrame:
    """From Kafka records (`value`: binary) to the columns of an interaction, `is_valid` and `record`.

    `record` holds all columns of the original, where it is not in the usual form; where `is_valid` is false, the
    columns of an interaction mean nothing, and `with_reason` says what does not fit.
    """
    text, pieces, seconds, usual = (F.col(name) for name in ("text", "pieces", "seconds", "usual"))
    # Step by step: what one step computes, the next may use several times and has only once.
    read = records.withColumn("text", F.col("value").cast("string")).withColumn("pieces", canonical_json.split(text))
    glanced = read.withColumn("seconds", canonical_json.timestamp(pieces)).withColumn(
        "usual", canonical_json.fits(pieces, seconds, text, F.col("value"))
    )
    parsed_text = _parsed_text(F.col("value"), text)
    # Null for what is usual, which is then not even looked at.
    odd = F.when(~usual, _is_odd(F.col("value"), text))
    # Spark's JSON parser is outside of its generated code: little should cross that border.
    slim = glanced.select(
        "usual",
        F.when(usual, canonical_json.user_id(pieces)).alias("user_id"),
        F.when(usual, canonical_json.item_id(pieces)).alias("item_id"),
        F.when(usual, canonical_json.interaction_type(pieces)).alias("interaction_type"),
        "seconds",
        F.when(~usual, parsed_text).alias("text"),
        F.when(odd, parsed_text).alias("odd_text"),
        F.when(~usual, F.struct(*records.columns)).alias("record"),
        odd.alias("odd"),
    )
    json = F.col("json")
    # One step for all parsers: each step has a copy of a value of many MB.
    parsed = slim.select("*", _json(text).alias("json"), *_look_closer(F.col("odd_text")))
    is_valid = F.when(usual, True)
    for failed, _ in _form_checks(F.col("record.value"), text):
        is_valid = is_valid.when(F.col("odd") & failed, False)
    for failed, _ in _field_checks(text, json):
        is_valid = is_valid.when(failed, False)
    timestamp = F.when(usual, seconds).when(_in_range(json["timestamp"]), json["timestamp"])
    return parsed.select(
        *(F.coalesce(name, json[name]).alias(name) for name in ("user_id", "item_id", "interaction_type")),
        F.timestamp_seconds(timestamp).alias("timestamp"),
        is_valid.otherwise(True).alias("is_valid"),
        "record",
    )


def with_reason(records: DataFrame) -> DataFrame:
    """Records that are not valid (`value`: binary), and one more column: the `reason`, which says what does not fit."""
    value, text, json = F.col("value"), F.col("text"), F.col("json")
    read = records.withColumn("text", _parsed_text(value, value.cast("string")))
    parsed = read.select("*", _json(text).alias("json"), *_look_closer(text))
    checks = [*_form_checks(value, text), *_field_checks(text, json)]
    reason = F.coalesce(*(F.when(failed, reason) for failed, reason in checks), F.lit(_NOT_ONE_OBJECT))
    return parsed.select(*records.columns, reason.alias("reason"))


def _parsed_text(value: Column, text: Column) -> Column:
    return F.when(F.octet_length(value) <= MAX_BYTES, text)


def _json(text: Column) -> Column:
    return F.from_json(text, _SCHEMA, _STRICT)


def _is_odd(value: Column, text: Column) -> Column:
    """Whether a record may be something else than it seems once Spark has parsed it; true or false, never null."""
    is_plain = [
        # Spark parses the first JSON value and ignores what follows: one brace must close it all.
        F.instr(text, "}") == F.length(text),
        # Malformed UTF-8 is replaced on decoding, and no longer equals the bytes.
        F.decode(value, "UTF-8") == text,
        # Of a field that is there twice, nobody can say which is meant.
        F.size(F.split(text, _NAMES, len(_SCHEMA) + 2)) == len(_SCHEMA) + 1,
        ~text.rlike(_SUSPICIOUS),
        F.octet_length(value) <= MAX_BYTES,
    ]
    return F.coalesce(~reduce(operator.and_, is_plain), F.lit(True))


def _in_range(timestamp: Column) -> Column:
    return timestamp.between(MIN_TIMESTAMP, MAX_TIMESTAMP)


def _quoted(text: Column) -> Column:
    """A field as a reason repeats it (`contract.dead_letters.truncated` as an expression)."""
    characters = F.length(text).cast("string")
    cut = F.concat(F.substring(text, 1, QUOTED_CHARACTERS), F.lit("... ("), characters, F.lit(" characters)"))
    return F.when(F.length(text) > QUOTED_CHARACTERS, cut).otherwise(text)


def _look_closer(text: Column) -> Sequence[Column]:
    """The columns that the checks refer to by name; null for null."""
    # Spark ignores what follows the first value: a record is in an array, which only `]` ends, and in an object, which
    # only `}` ends, so that nothing can follow it in both; `_END` behind it is seen only if the object was whole.
    objects = F.from_json(F.concat(F.lit("["), text, F.lit("]")), "array<map<string,string>>", _STRICT)
    # One parse for all kinds; a field of another kind than the one it is asked for is null.
    copies = [piece for kind in _OTHER_KINDS for piece in (F.lit(f',"{kind}":'), text)]
    kinds = F.from_json(
        F.concat(F.lit('{"kinds":0'), *copies, F.lit(f',"{_END}":1}}')),
        ", ".join(
            f"{kind} struct<{','.join(f'{name}:{spark_type}' for name in _IDS)}>"
            for kind, spark_type in _OTHER_KINDS.items()
        )
        + f", {_END} int",
        _STRICT,
    )
    return [objects.alias("objects"), kinds.alias("kinds")]


_Check = tuple[Column, Column]
"""Whether something is wrong with a record, and the reason that says so; of several, the first counts."""


def _form_checks(value: Column, text: Column) -> list[_Check]:
    """What can be wrong with an odd record as a whole."""
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
        (objects[0].isNull() | F.col("kinds")[_END].isNull(), F.lit(_NOT_ONE_OBJECT)),
        (half != "", F.concat(F.lit("not text: "), half, F.lit(" is half of a surrogate pair"))),
        *(
            (F.size(F.array_remove(fields, name)) < F.size(fields) - 1, F.lit(f"{name} is there more than once"))
            for name in _SCHEMA.names
        ),
    ]


def _field_checks(text: Column, json: Column) -> list[_Check]:
    """What can be wrong with the fields of a record."""
    kinds = F.col("kinds")
    checks = []
    for name in _IDS:
        is_other = reduce(operator.or_, [kinds[kind][name].isNotNull() for kind in _OTHER_KINDS])
        bytes_of_id = F.octet_length(json[name])
        checks += [
            (json[name].isNull(), F.lit(f"{name} is missing or null")),
            (F.length(json[name]) == 0, F.lit(f"{name} is empty")),
            (is_other, F.lit(f"{name} is not a string")),
            (
                bytes_of_id > MAX_ID_BYTES,
                F.concat(
                    F.lit(f"{name} has "),
                    bytes_of_id.cast("string"),
                    F.lit(f" bytes of UTF-8, more than {MAX_ID_BYTES}"),
                ),
            ),
        ]
    kind = json["interaction_type"]
    raw_timestamp = _quoted(F.get_json_object(text, "$.timestamp"))
    no_number = F.concat(F.lit("timestamp is "), raw_timestamp, F.lit(", not a whole number of seconds"))
    out_of_range = F.concat(
        F.lit("timestamp "), raw_timestamp, F.lit(" is not epoch seconds within the years 1970 to 9999")
    )
    no_timestamp = F.when(raw_timestamp.rlike(_BEYOND_64_BITS), out_of_range).otherwise(no_number)
    checks += [
        (kind.isNull(), F.lit("interaction_type is missing or null")),
        (
            ~kind.isin(*INTERACTION_TYPES),
            F.concat(
                F.lit("interaction_type is "), _quoted(kind), F.lit(f", not one of {', '.join(INTERACTION_TYPES)}")
            ),
        ),
        (json["timestamp"].isNull(), F.coalesce(no_timestamp, F.lit("timestamp is missing or null"))),
        (~_in_range(json["timestamp"]), out_of_range),
    ]
    return checks
