"""The query ingest: writes each interaction from Kafka to the lake once, and each malformed record to the dead letters.

A job that is killed before the append is committed repeats the batch from the same offsets. After the commit, the
table's history contains the batch, and the repeated batch skips the append. While it sends dead letters, the repeated
batch sends only those that are not in their topic yet.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import polars as pl
from pyspark.sql import Column, DataFrame, Observation, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract.declared import EVENT
from contract.topics import TRACEPARENT
from stream_processing import metrics, spark_internals
from stream_processing.aggregator import Append
from stream_processing.checkpoint import Checkpoint
from stream_processing.collected_records import collect_records, data_frame
from stream_processing.dead_letter_writer import (
    ORIGIN,
    DeadLetterCount,
    malformed_records,
    send_dead_letters,
    without_sent,
)
from stream_processing.event_reader import Values, frame, read
from stream_processing.kafka_io import source_options
from stream_processing.lake import AppendInfo, Lake, append_rows
from stream_processing.lake_log import LakeLog
from stream_processing.parsing import IS_VALID, NOT_CANONICAL, RECORD, parse, parse_canonical, with_reason
from stream_processing.progress import RunningBatch
from stream_processing.session import set_polling_interval, trigger_interval
from stream_processing.settings import StreamProcessingSettings
from stream_processing.start_position import QUERY, StartPosition, ingest_checkpoint
from stream_processing.storage import read_text_if_exists

if TYPE_CHECKING:
    from stream_processing.tracing import JobTraces

NAME: Final = QUERY
_MAX_COLLECTED_RECORDS: Final = 20_000
"""The size of a batch up to which Spark's fixed cost of writing it exceeds the cost of writing it without Spark."""
_FEW_RECORDS: Final = 100
"""The size of a batch below which the next one starts later."""
_MAX_PARSED_BY_SPARK: Final = 2_000
"""Records of such a batch that the fast parser leaves to Spark: these pass it in one piece."""
_BATCHES_WITH_OTHERS: Final = 20
"""Large batches after one with records that are not canonical for which the same is expected."""
_MAX_TRACEPARENT: Final = 64
"""Bytes: those of version 00 of the header have 55."""
_TASKS_TIMEOUT: Final = 2.0
"""Seconds for the tasks of a failed write to end."""
_LOGGERS_OF_FAILED_WRITES: Final = (
    "org.apache.spark.executor.Executor",
    "org.apache.spark.scheduler.TaskSetManager",
    "org.apache.spark.sql.execution.datasources.FileFormatWriter",
    "org.apache.spark.sql.delta.files.DeltaFileFormatWriter",
    "org.apache.spark.util.Utils",
)
logger = logging.getLogger(__name__)


def start_ingest(
    session: SparkSession,
    settings: StreamProcessingSettings,
    lake: Lake,
    position: StartPosition,
    on_append: Callable[[Append], None],
    running: RunningBatch,
    require_held: Callable[[], None],
    traces: "JobTraces | None" = None,
) -> StreamingQuery:
    """Start the query at `position`; `running` follows its batches. `require_held` is called before each write."""
    if position.unverified is not None:
        _send_missing_dead_letters(session, settings, *position.unverified)
    options = source_options(settings, settings.kafka_topic) | {"startingOffsets": position.starting_offsets}
    records = (
        session.readStream.format("kafka")
        .options(**options)
        .option("maxOffsetsPerTrigger", settings.max_offsets_per_batch)
        .option("includeHeaders", str(traces is not None).lower())
        .load()
    )
    context = [] if traces is None else [_traceparent()]
    # A task per core: each has a fixed cost, and writes a file.
    coalesced = records.select("key", "value", *ORIGIN, *context).coalesce(session.sparkContext.defaultParallelism)
    set_polling_interval(session, settings.loop_sleep)
    checkpoint = ingest_checkpoint(session, settings)
    return (
        coalesced.writeStream.queryName(NAME)
        .trigger(processingTime=trigger_interval(settings.batch_interval))
        .option("checkpointLocation", checkpoint.path)
        .foreachBatch(_BatchWriter(settings, lake, checkpoint, position, on_append, running, require_held, traces))
        .start()
    )


def _traceparent() -> Column:
    value = F.filter("headers", lambda header: header["key"] == TRACEPARENT)[0]["value"]
    return F.when(F.octet_length(value) <= _MAX_TRACEPARENT, value.cast("string")).alias(TRACEPARENT)


def _send_missing_dead_letters(session: SparkSession, settings: StreamProcessingSettings, start: str, end: str) -> None:
    """Send the dead letters of an append that may have been killed before it had sent them."""
    options = source_options(settings, settings.kafka_topic)
    # What was deleted from the topic cannot be sent.
    options |= {"startingOffsets": start, "endingOffsets": end, "failOnDataLoss": "false"}
    records = session.read.format("kafka").options(**options).load().select("key", "value", *ORIGIN)
    sent = send_dead_letters(without_sent(malformed_records(parse(records)), settings), settings)
    DeadLetterCount(settings.dead_letter_topic).add(sent)


def append(rows: DataFrame, lake: Lake, info: AppendInfo) -> None:
    """Append the columns of interactions to the lake in one commit, which carries `info`."""
    # Not Delta's own txnVersion: its lookup computes the table's whole snapshot at every append.
    interactions = rows.select(*EVENT.names)
    interactions.write.save(lake.interactions, format="delta", mode="append", userMetadata=info.to_json())


class _BatchWriter:
    """Writes a batch by Spark, or without it if the batch is small."""

    def __init__(
        self,
        settings: StreamProcessingSettings,
        lake: Lake,
        checkpoint: Checkpoint,
        position: StartPosition,
        on_append: Callable[[Append], None],
        running: RunningBatch,
        require_held: Callable[[], None],
        traces: "JobTraces | None",
    ) -> None:
        self._running = running
        self._require_held = require_held
        self._traces = traces
        self._start_ns = 0
        """When the batch was started, since the epoch."""
        self._dead_letters = DeadLetterCount(settings.dead_letter_topic)
        self._topic_id = position.topic_id
        self._settings = settings
        self._lake = lake
        self._log = LakeLog(lake.interactions, partial(read_text_if_exists, checkpoint.session))
        self._checkpoint = checkpoint
        self._on_append = on_append
        self._repeated_batch = checkpoint.unfinished_batch()
        self._query_id: str | None = None
        self._table = lake.table(EVENT.name)
        self._expected_with_others = 0
        """The number of large batches that are expected to have other records than canonical ones too."""
        self._malformed = F.count_if(~F.col(IS_VALID)).alias("malformed")
        self._offsets = dict(position.offsets)
        running.finished = self._offsets

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        self._require_held()
        started = time.monotonic()
        self._start_ns = time.time_ns()
        info = self._append_info(batch_id)
        size = self._size(info)
        with self._running.of(size), metrics.BATCH_SECONDS.labels(NAME).time():
            collected = self._process(batch, info, size, is_repeated=batch_id == self._repeated_batch)
        self._running.finished = self._offsets
        if collected is not None and collected < _FEW_RECORDS:
            # The next batch starts when this function returns: each has a fixed cost, whatever its size.
            time.sleep(max(0.0, started + 2 * self._settings.batch_interval - time.monotonic()))

    def _process(self, batch: DataFrame, info: AppendInfo, size: int, *, is_repeated: bool) -> int | None:
        """Append a batch and send its dead letters; returns the number of its records if it needed no Spark."""
        with_context = batch
        batch = batch if self._traces is None else batch.drop(TRACEPARENT)
        if is_repeated and self._lake.has_append(info):
            self._send_dead_letters(malformed_records(parse(batch)), is_repeated)
            return None
        records = None
        if size <= _MAX_COLLECTED_RECORDS:
            with metrics.PHASE_SECONDS.labels("collect").time():
                context = () if self._traces is None else (TRACEPARENT,)
                records = collect_records(with_context, *context)
        if records is None:
            self._write_by_spark(batch, info, is_repeated, more=size >= self._settings.max_offsets_per_batch)
            return None
        self._write(batch, records, info, is_repeated)
        return len(records)

    def _write_by_spark(self, batch: DataFrame, info: AppendInfo, is_repeated: bool, *, more: bool) -> None:
        self._require_held()
        before, rows_before = self._table.version(), self._table.count()
        parsed, observed = None, Observation()
        with metrics.PHASE_SECONDS.labels("parse and append by Spark").time():
            if not self._append_canonical(batch, info):
                parsed = parse(batch)
                append(parsed.observe(observed, self._malformed).where(F.col(IS_VALID)), self._lake, info)
        self._table.update_incremental()
        files = list(self._log.added_files(range(before + 1, self._table.version() + 1)))
        rows = self._table.count() - rows_before
        if self._traces is not None:
            self._traces.written_by_spark(rows, self._start_ns)
        self._hand_over(Append(self._table.version(), files=files, more=more), rows)
        if parsed is not None and observed.get["malformed"]:
            self._send_dead_letters(malformed_records(parsed), is_repeated)

    def _append_canonical(self, batch: DataFrame, info: AppendInfo) -> bool:
        """Append the batch if all of its records are canonical; returns false without an append otherwise."""
        if self._settings.deploy_mode == "cluster":
            # Each task would be repeated.
            return False
        if self._expected_with_others:
            self._expected_with_others -= 1
            return False
        session = self._checkpoint.session
        try:
            with spark_internals.muted(session, *_LOGGERS_OF_FAILED_WRITES):
                try:
                    append(parse_canonical(batch), self._lake, info)
                except Exception:
                    # They log how they are ended.
                    spark_internals.wait_for_tasks(session, _TASKS_TIMEOUT)
                    raise
        except Exception as error:
            if NOT_CANONICAL not in str(error):
                raise
            self._expected_with_others = _BATCHES_WITH_OTHERS
            logger.info(
                "large batches have records that are not in the canonical form of stream_processing.canonical_json:"
                " these are parsed too, at several times the cost"
            )
            return False
        return True

    def _hand_over(self, append: Append, rows: int) -> None:
        self._on_append(append)
        metrics.LAKE_ROWS.add(rows)
        metrics.INTERACTIONS.inc(rows)

    def _write(self, batch: DataFrame, records: list[Row], info: AppendInfo, is_repeated: bool) -> None:
        with metrics.PHASE_SECONDS.labels("parse").time():
            interactions, others = read([record.value for record in records])
            rows = frame(interactions)
        if len(others) > _MAX_PARSED_BY_SPARK:
            self._write_by_spark(batch, info, is_repeated, more=False)
            return
        malformed: list[Row] = []
        if others:
            valid, malformed = self._parse_by_spark([records[n] for n in others])
            rows = pl.concat([rows, frame(valid)])
        with metrics.PHASE_SECONDS.labels("append").time():
            self._require_held()
            append_rows(self._table, rows, info)
        traced = None if self._traces is None else self._traces.ingested(records, self._start_ns)
        self._hand_over(Append(self._table.version(), rows, traced=traced), len(rows))
        if malformed:
            self._send_dead_letters(with_reason(data_frame(self._checkpoint.session, malformed)), is_repeated)

    def _parse_by_spark(self, records: Sequence[Row]) -> tuple[list[Values], list[Row]]:
        """Return the fields of the valid records, and the malformed records."""
        parsed = parse(data_frame(self._checkpoint.session, records))
        fields = [
            F.unix_micros(field.name).alias(field.name) if field.type.is_time else F.col(field.name)
            for field in EVENT.fields
        ]
        # All of them: a filter would contain the parsers, once for each check.
        found = parsed.select(*fields, IS_VALID, RECORD).collect()
        valid = [tuple(row)[: len(fields)] for row in found if row[IS_VALID]]
        return valid, [row[RECORD] for row in found if not row[IS_VALID]]

    def _send_dead_letters(self, malformed: DataFrame, is_repeated: bool) -> None:
        if is_repeated:
            malformed = without_sent(malformed, self._settings)
        self._require_held()
        self._dead_letters.add(send_dead_letters(malformed, self._settings))

    def _size(self, info: AppendInfo) -> int:
        """Return the number of offsets in the batch."""
        ends = info.offsets[self._settings.kafka_topic]
        size = sum(end - self._offsets.get(partition, 0) for partition, end in ends.items())
        self._offsets = dict(ends)
        return size

    def _append_info(self, batch_id: int) -> AppendInfo:
        # Spark writes the query's id before its first batch, but not before it is started.
        self._query_id = self._query_id or self._checkpoint.query_id
        return AppendInfo(self._query_id, batch_id, self._topic_id, self._checkpoint.end_offsets(batch_id))
