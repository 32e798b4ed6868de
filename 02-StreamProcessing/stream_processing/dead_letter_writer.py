"""Writes malformed records to the dead letter topic, each once, with the reason in a header."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from contract import dead_letters
from stream_processing import metrics
from stream_processing.kafka_io import max_message_bytes, source_options, write_records
from stream_processing.parsing import IS_VALID, RECORD, with_reason
from stream_processing.settings import StreamProcessingSettings

ORIGIN: Final = ["topic", "partition", "offset"]
"""The columns that identify a record."""

_LOG_INTERVAL: Final = 60.0
"""Seconds between two lines of the log about dead letters."""

logger = logging.getLogger(__name__)


class DeadLetterCount:
    """Counts the dead letters in the metrics and, at most once a minute, in the log."""

    def __init__(self, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._clock = clock
        self._logged_at = -_LOG_INTERVAL
        self._not_logged = 0

    def add(self, numbers: Mapping[str, int]) -> None:
        """Count dead letters that were sent, by kind of reason."""
        for kind, number in numbers.items():
            metrics.DEAD_LETTERS.labels(kind).inc(number)
        self._not_logged += sum(numbers.values())
        if self._not_logged and self._clock() - self._logged_at >= _LOG_INTERVAL:
            logger.warning("malformed records: %d more in topic %s, with their reasons", self._not_logged, self._topic)
            self._logged_at, self._not_logged = self._clock(), 0


def malformed_records(parsed: DataFrame) -> DataFrame:
    """Select the original records that `parse` found invalid, with the column `reason`."""
    # Not by a filter: Spark would move it below the parsers, and repeat these within it, once for each check.
    return with_reason(parsed.select(F.inline(F.when(~F.col(IS_VALID), F.array(RECORD)))))


def without_sent(malformed: DataFrame, settings: StreamProcessingSettings) -> DataFrame:
    """Drop the records whose dead letters are in the topic already."""
    sent = (
        malformed.sparkSession.read.format("kafka")
        .options(**source_options(settings, settings.dead_letter_topic))
        .option("includeHeaders", "true")
        .load()
        .where(_header_value(dead_letters.SERVICE) == dead_letters.STREAM_PROCESSING)
        .select(
            _header_value(dead_letters.TOPIC).alias("topic"),
            _header_value(dead_letters.PARTITION).cast("int").alias("partition"),
            _header_value(dead_letters.OFFSET).cast("long").alias("offset"),
        )
    )
    return malformed.join(sent, ORIGIN, "left_anti")


def send_dead_letters(malformed: DataFrame, settings: StreamProcessingSettings) -> dict[str, int]:
    """Write malformed records to the dead letter topic; returns their number by kind of reason.

    When it returns, the broker has acknowledged them all.
    """
    headers = {
        dead_letters.TOPIC: F.col("topic"),
        dead_letters.PARTITION: F.col("partition").cast("string"),
        dead_letters.OFFSET: F.col("offset").cast("string"),
        dead_letters.REASON: F.col("reason"),
        dead_letters.SERVICE: F.lit(dead_letters.STREAM_PROCESSING),
    }
    topic = settings.dead_letter_topic
    # Requested for each batch: the topic's limit may be raised while the job runs.
    limit = max_message_bytes(settings, topic)
    # Read, parsed and explained once, for both the numbers and the records. Not in memory: a record may have 64 MiB.
    kept = malformed.persist(StorageLevel.DISK_ONLY)
    try:
        numbers = _count_by_kind(kept)
        write_records(_dead_letters(kept, headers, dead_letters.Capacity.of(limit)), settings, topic, limit)
    finally:
        kept.unpersist()
    return numbers


def _count_by_kind(malformed: DataFrame) -> dict[str, int]:
    """Count malformed records by kind of their reasons."""
    numbers = [F.count_if(F.col("kind") == kind).alias(kind) for kind in dead_letters.REASON_KINDS]
    row = malformed.select(_kind().alias("kind")).agg(*numbers).head()
    return {} if row is None else row.asDict()


def _kind() -> Column:
    """Return the kind of a reason (`contract.dead_letters.kind_of` as an expression)."""
    kinds = (F.when(F.col("reason").rlike(each), kind) for kind, each in dead_letters.kind_patterns().items())
    return F.coalesce(*kinds, F.lit(dead_letters.OTHER))


def _dead_letters(malformed: DataFrame, headers: dict[str, Column], capacity: dead_letters.Capacity) -> DataFrame:
    """Return the dead letters as Kafka records (`contract.dead_letters.Capacity.fit` as an expression)."""
    key_bytes, value_bytes = (F.coalesce(F.octet_length(name), F.lit(0)) for name in ("key", "value"))
    is_whole = key_bytes.cast("long") + value_bytes <= capacity.max_bytes
    pairs = [_header(name, value) for name, value in headers.items()]
    text = dead_letters.cut_header("{}", "{}").split("{}")
    cut = F.concat(F.lit(text[0]), key_bytes.cast("string"), F.lit(text[1]), value_bytes.cast("string"))
    return malformed.select(
        F.when(is_whole, F.col("key")).otherwise(F.substring("key", 1, capacity.key_prefix)).alias("key"),
        F.when(is_whole, F.col("value")).otherwise(F.substring("value", 1, capacity.value_prefix)).alias("value"),
        F.when(is_whole, F.array(*pairs)).otherwise(F.array(*pairs, _header(dead_letters.CUT, cut))).alias("headers"),
    )


def _header(name: str, value: Column) -> Column:
    return F.struct(F.lit(name).alias("key"), F.encode(value, "UTF-8").alias("value"))


def _header_value(name: str) -> Column:
    return F.filter("headers", lambda header: header["key"] == name)[0]["value"].cast("string")
