"""Parses Kafka records into interactions, and says what is wrong with those that do not fit.

Column expressions only: none or one JSON parse for a record that fits, more for one that looks odd.
"""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType

from contract.dead_letters import QUOTED_CHARACTERS
from contract.interaction import INTERACTION_TYPES, MAX_BYTES, MAX_ID_BYTES, MAX_TIMESTAMP, MIN_TIMESTAMP
from stream_processing import usual_form

_SCHEMA: Final = StructType(
    [
        StructField("user_id", StringType()),
        StructField("item_id", StringType()),
        StructField("interaction_type", StringType()),
        StructField("timestamp", LongType()),
    ]
)
_STRICT: Final = {"allowSingleQuotes": "false"}
_IDS: Final = ("user_id", "item_id")

_SURROGATE: Final = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_BACKSLASH_OR_PAIR: Final = r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
"""What holds no half of a surrogate pair: an escaped backslash, whatever follows it, and a whole pair."""


_NAMES: Final = '"(?:' + "|".join(_SCHEMA.names) + ')"'
_ESCAPED_LETTER: Final = r"\\u00[567]"
"""What may write a name in another way."""


def parse(records: DataFrame) -> DataFrame:
    """From Kafka records (`value`: binary) to the columns of an interaction, `reason` and `record`.

    `reason` is null for a record that fits, and otherwise says what does not; then the columns of an interaction
    mean nothing, and `record` holds all columns of the original. Only what is not in the usual form is parsed as JSON.
    """
    text, pieces, seconds, usual = (F.col(name) for name in ("text", "pieces", "seconds", "usual"))
    # Step by step: what one step computes, the next may use several times and has only once.
    read = records.withColumn("text", F.col("value").cast("string")).withColumn("pieces", usual_form.split(text))
    glanced = read.withColumn("seconds", usual_form.timestamp(pieces)).withColumn(
        "usual", usual_form.fits(pieces, seconds, text, F.col("value"))
    )
    # Spark's JSON parser is outside of its generated code: little should cross that border.
    slim = glanced.select(
        "usual",
        F.when(usual, usual_form.user_id(pieces)).alias("user_id"),
        F.when(usual, usual_form.item_id(pieces)).alias("item_id"),
        F.when(usual, usual_form.interaction_type(pieces)).alias("interaction_type"),
        "seconds",
        F.when(~usual & (F.octet_length("value") <= MAX_BYTES), text).alias("text"),
        F.when(~usual, F.struct(*records.columns)).alias("record"),
    )
    parsed = slim.withColumn("json", F.from_json(text, _SCHEMA, _STRICT))
    json = F.col("json")
    timestamp = F.when(usual, seconds).when(_in_range(json["timestamp"]), json["timestamp"])
    return parsed.select(
        *(F.coalesce(name, json[name]).alias(name) for name in ("user_id", "item_id", "interaction_type")),
        F.timestamp_seconds(timestamp).alias("timestamp"),
        F.when(~usual, _reason(F.col("record.value"), text, json)).alias("reason"),
        "record",
    )


def _reason(value: Column, text: Column, json: Column) -> Column:
    fits = reduce(
        operator.and_,
        [
            *(F.octet_length(json[name]).between(1, MAX_ID_BYTES) for name in _IDS),
            json["interaction_type"].isin(*INTERACTION_TYPES),
            _in_range(json["timestamp"]),
            # Spark parses the first JSON value and ignores what follows: one brace must close it all.
            F.instr(text, "}") == F.length(text),
            # Malformed UTF-8 is replaced on decoding, and no longer equals the bytes.
            F.decode(value, "UTF-8") == text,
            # Of a field that is there twice, nobody can say which is meant.
            F.size(F.split(text, _NAMES, len(_SCHEMA) + 2)) == len(_SCHEMA) + 1,
            ~text.rlike(_ESCAPED_LETTER),
            # Java would write half a surrogate pair as "?", and make one id of many.
            ~(text.rlike(_SURROGATE) & _without_pairs(text).rlike(_SURROGATE)),
            # Spark turns any JSON value into a string when a string is asked for.
            *(~_may_be_no_string(json[name]) for name in _IDS),
        ],
    )
    return F.when(fits, F.lit(None).cast("string")).otherwise(_look_closer(value, text, json))


def _in_range(timestamp: Column) -> Column:
    return timestamp.between(MIN_TIMESTAMP, MAX_TIMESTAMP)


def _is(name: str) -> Callable[[Column], Column]:
    return lambda found: found == name


def _without_pairs(text: Column) -> Column:
    return F.regexp_replace(text, _BACKSLASH_OR_PAIR, " ")


def _quoted(text: Column) -> Column:
    """A field as a reason repeats it (`contract.dead_letters.quoted` as an expression)."""
    characters = F.length(text).cast("string")
    cut = F.concat(F.substring(text, 1, QUOTED_CHARACTERS), F.lit("... ("), characters, F.lit(" characters)"))
    return F.when(F.length(text) > QUOTED_CHARACTERS, cut).otherwise(text)


def _may_be_no_string(value: Column) -> Column:
    return F.substring(value, 1, 1).isin(*"{[-0123456789") | value.isin("true", "false")


def _look_closer(value: Column, text: Column, json: Column) -> Column:
    """The reason, if any, for a record that did not pass at the first glance."""
    in_array = F.from_json(F.concat(F.lit("["), text, F.lit("]")), "array<map<string,string>>", _STRICT)
    raw_timestamp = _quoted(F.get_json_object(text, "$.timestamp"))
    size = F.octet_length(value)
    half = F.regexp_extract(_without_pairs(text), _SURROGATE, 0)
    checks = [
        (value.isNull(), F.lit("the value is empty")),
        (
            size > MAX_BYTES,
            F.concat(F.lit("the value has "), size.cast("string"), F.lit(f" bytes, more than {MAX_BYTES}")),
        ),
        (~F.coalesce(F.decode(value, "UTF-8") == text, F.lit(False)), F.lit("not UTF-8")),
        (F.coalesce(F.size(in_array), F.lit(-1)) != 1, F.lit("not one JSON object")),
        (in_array[0].isNull(), F.lit("not one JSON object")),
        (half != "", F.concat(F.lit("not text: "), half, F.lit(" is half of a surrogate pair"))),
        *(
            (F.size(F.filter(F.map_keys(in_array[0]), _is(name))) > 1, F.lit(f"{name} is there more than once"))
            for name in _SCHEMA.names
        ),
    ]
    for name in _IDS:
        checks += [
            (json[name].isNull(), F.lit(f"{name} is missing or null")),
            (F.length(json[name]) == 0, F.lit(f"{name} is empty")),
            (_is_no_string(text, name, json[name]), F.lit(f"{name} is not a string")),
            (
                F.octet_length(json[name]) > MAX_ID_BYTES,
                F.concat(
                    F.lit(f"{name} has "),
                    F.octet_length(json[name]).cast("string"),
                    F.lit(f" bytes of UTF-8, more than {MAX_ID_BYTES}"),
                ),
            ),
        ]
    kind = json["interaction_type"]
    checks += [
        (kind.isNull(), F.lit("interaction_type is missing or null")),
        (
            ~kind.isin(*INTERACTION_TYPES),
            F.concat(
                F.lit("interaction_type is "), _quoted(kind), F.lit(f", not one of {', '.join(INTERACTION_TYPES)}")
            ),
        ),
        (raw_timestamp.isNull(), F.lit("timestamp is missing or null")),
        (
            json["timestamp"].isNull(),
            F.concat(F.lit("timestamp is "), raw_timestamp, F.lit(", not a whole number of seconds")),
        ),
        (
            ~_in_range(json["timestamp"]),
            F.concat(F.lit("timestamp "), raw_timestamp, F.lit(" is not epoch seconds within the years 1970 to 9999")),
        ),
    ]
    reason = F.lit(None).cast("string")
    for failed, text_of_reason in reversed(checks):
        reason = F.when(failed, text_of_reason).otherwise(reason)
    return reason


def _is_no_string(text: Column, name: str, value: Column) -> Column:
    others = ("double", "boolean", "map<string,string>", "array<string>")
    is_other = [F.from_json(text, f"{name} {kind}", _STRICT)[name].isNotNull() for kind in others]
    return _may_be_no_string(value) & reduce(operator.or_, is_other)
