"""The query ingest: writes each interaction from Kafka to the lake once, and each malformed record to the dead letters.

A job that is killed before the append is committed repeats the batch from the same offsets. After the commit, the
table's history contains the batch, and the repeated batch skips the append. While it sends dead letters, the repeated
batch sends only those that are not in their topic yet.
"""

import json
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import polars as pl
from pyspark.sql import DataFrame, Observation, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract.tables import INTERACTIONS
from runtime import commands
from stream_processing import kafka_io, metrics, spark_internals
from stream_processing.aggregator import Append
from stream_processing.checkpoint import Checkpoint
from stream_processing.dead_letter_writer import ORIGIN, malformed_records, send_dead_letters, without_sent
from stream_processing.interaction_reader import read
from stream_processing.kafka_io import source_options
from stream_processing.lake import ACCEPT_GAP, INTERACTIONS_SCHEMA, AppendInfo, Lake, append_rows
from stream_processing.lake_log import LakeLog
from stream_processing.parsing import NOT_CANONICAL, parse, parse_canonical, with_reason
from stream_processing.progress import RunningBatch
from stream_processing.session import set_polling_interval, trigger_interval
from stream_processing.settings import StreamProcessingSettings
from stream_processing.storage import read_text_if_exists, write_text

NAME: Final = "ingest"
_EARLIEST: Final = -2
"""The earliest offset in Spark's JSON."""
_MAX_COLLECTED_RECORDS: Final = 20_000
"""The size of a batch up to which Spark's fixed cost of writing it exceeds the cost of writing it without Spark."""
_FEW_RECORDS: Final = 100
"""The size of a batch below which the next one starts later."""
_MAX_COLLECTED_BYTES: Final = 4096
"""The size of a key or value in a batch that is written without Spark: limits the memory of this process."""
_MAX_OTHERS: Final = 2_000
"""Records of such a batch that are not ordinary: these pass Spark in one piece."""
_BATCHES_WITH_OTHERS: Final = 20
"""Large batches after one with records that are not canonical for which the same is expected."""
_TASKS_TIMEOUT: Final = 2.0
"""Seconds for the tasks of a failed write to end."""
_LOGGERS_OF_FAILED_WRITES: Final = (
    "org.apache.spark.executor.Executor",
    "org.apache.spark.scheduler.TaskSetManager",
    "org.apache.spark.sql.execution.datasources.FileFormatWriter",
    "org.apache.spark.sql.delta.files.DeltaFileFormatWriter",
    "org.apache.spark.util.Utils",
)
_RECORDS: Final = "array<struct<key string, value string, topic string, partition int, offset long>>"
"""The type of records as JSON, with the bytes in Base64."""
_FIELDS_FRAME: Final = {
    "user_id": pl.String,
    "item_id": pl.String,
    "interaction_type": pl.String,
    "timestamp": pl.Int64,
}

logger = logging.getLogger(__name__)


class LostCheckpointError(Exception):
    """The lake contains interactions, and neither a checkpoint nor the table's history has their offsets."""


class OlderLakeError(Exception):
    """The lake lacks interactions that were read from Kafka and written to it."""


class TopicRecreatedError(Exception):
    """The topic is not the one that was read before: the known offsets mean nothing in it."""


def start_ingest(
    session: SparkSession,
    settings: StreamProcessingSettings,
    lake: Lake,
    on_append: Callable[[Append], None],
    running: RunningBatch,
) -> StreamingQuery:
    """Start the query from its checkpoint, or, if it has none, from the offsets in the lake's history.

    With an empty lake it starts at the topic's earliest record. `running` follows its batches.

    Raises `LostCheckpointError` if a start could append interactions a second time, and `TopicRecreatedError` if it
    could skip the first records of a recreated topic.
    """
    last_append = lake.last_append()
    topic_id = _require_same_topic(session, settings, last_append)
    checkpoint = Checkpoint(session, f"{settings.checkpoints}/{NAME}")
    options = source_options(settings, settings.kafka_topic)
    if not checkpoint.exists and lake.count() > 0:
        options["startingOffsets"] = json.dumps(_recorded_offsets(settings, last_append, lake, checkpoint))
    records = (
        session.readStream.format("kafka")
        .options(**options)
        .option("maxOffsetsPerTrigger", settings.max_offsets_per_batch)
        .load()
    )
    # A task per core: each has a fixed cost, and writes a file.
    coalesced = records.select("key", "value", *ORIGIN).coalesce(session.sparkContext.defaultParallelism)
    set_polling_interval(session, settings.loop_sleep)
    return (
        coalesced.writeStream.queryName(NAME)
        .trigger(processingTime=trigger_interval(settings.batch_interval))
        .option("checkpointLocation", checkpoint.path)
        .foreachBatch(_BatchWriter(settings, lake, checkpoint, topic_id, on_append, running))
        .start()
    )


def require_appended(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> None:
    """Raise `OlderLakeError` if the lake lacks a committed batch: it was deleted, or restored from a copy."""
    checkpoint = Checkpoint(session, f"{settings.checkpoints}/{NAME}")
    committed = checkpoint.committed_offsets() or {}
    last_append = lake.last_append()
    if last_append is None:
        # History is deleted after a while, but the version does not return to 0.
        is_older = bool(committed) and lake.version() == 0
    else:
        offsets = last_append.offsets.get(settings.kafka_topic, {})
        # A gap that was accepted can lead back to the beginning of a recreated topic.
        is_older = last_append.query != ACCEPT_GAP and any(
            offsets.get(partition, 0) < end for partition, end in committed.get(settings.kafka_topic, {}).items()
        )
    if is_older:
        raise OlderLakeError(
            f"the interactions that were read last are not in {lake.interactions}: the warehouse was deleted, or"
            f" restored from a copy. Restore {settings.checkpoints} of the same time too; or delete it"
            f" (`{commands.remove('stream_processing', settings.checkpoints)}`): then the next start reads the topic"
            " again from the offsets in the lake, or from its beginning if the lake is empty, and computes all"
            " aggregates again"
        )


def known_topic_id(
    session: SparkSession, settings: StreamProcessingSettings, last_append: AppendInfo | None
) -> str | None:
    """Return the id of the topic that was read last: from the latest append, or from a file that is kept longer."""
    if last_append is not None:
        return last_append.topic_id
    return read_text_if_exists(session, _topic_file(settings))


def store_topic_id(session: SparkSession, settings: StreamProcessingSettings, topic_id: str) -> None:
    """Store the id of the topic that is read from now on."""
    write_text(session, _topic_file(settings), topic_id)


def _topic_file(settings: StreamProcessingSettings) -> str:
    return f"{settings.checkpoints}/{NAME}.topic"


def _require_same_topic(
    session: SparkSession, settings: StreamProcessingSettings, last_append: AppendInfo | None
) -> str:
    """Return the topic's id and store it; raises `TopicRecreatedError` if another one was read before."""
    topic_id = kafka_io.topic_id(settings, settings.kafka_topic)
    if known_topic_id(session, settings, last_append) not in (None, topic_id):
        raise TopicRecreatedError(
            f"topic {settings.kafka_topic} was deleted and recreated since it was last read: run"
            f" `{commands.command('stream_processing', 'accept-gap')}`, which lists the lost records and lets the next"
            " start read the new topic from its beginning"
        )
    store_topic_id(session, settings, topic_id)
    return topic_id


def _recorded_offsets(
    settings: StreamProcessingSettings, last_append: AppendInfo | None, lake: Lake, checkpoint: Checkpoint
) -> dict[str, dict[str, int]]:
    if last_append is None:
        raise LostCheckpointError(
            f"{lake.interactions} has interactions, but their checkpoint {checkpoint.path} is missing, and the table's"
            " history does not reach back to an append with the offsets up to which they were read: restore"
            " the checkpoint, or remove warehouse and checkpoints to start from scratch"
        )
    _log_start(last_append, checkpoint.path)
    # Partitions that were added later are read from their beginning.
    earliest = {str(partition): _EARLIEST for partition in kafka_io.partitions_of(settings, settings.kafka_topic)}
    return {settings.kafka_topic: earliest | last_append.offsets[settings.kafka_topic]}


def _log_start(last_append: AppendInfo, checkpoint: str) -> None:
    if last_append.query == ACCEPT_GAP:
        logger.info("continuing after %s at %s", ACCEPT_GAP, last_append.offsets)
    else:
        logger.warning(
            "%s is missing: continuing from the offsets in the table's history, %s", checkpoint, last_append.offsets
        )


def append(rows: DataFrame, lake: Lake, info: AppendInfo) -> None:
    """Append the columns of interactions to the lake in one commit, which carries `info`."""
    # Not Delta's own txnVersion: its lookup computes the table's whole snapshot at every append.
    interactions = rows.select(*INTERACTIONS_SCHEMA.names)
    interactions.write.save(lake.interactions, format="delta", mode="append", userMetadata=info.to_json())


class _BatchWriter:
    """Writes a batch by Spark, or without it if the batch is small."""

    def __init__(
        self,
        settings: StreamProcessingSettings,
        lake: Lake,
        checkpoint: Checkpoint,
        topic_id: str,
        on_append: Callable[[Append], None],
        running: RunningBatch,
    ) -> None:
        self._running = running
        self._topic_id = topic_id
        self._settings = settings
        self._lake = lake
        self._log = LakeLog(lake.interactions, partial(read_text_if_exists, checkpoint.session))
        self._checkpoint = checkpoint
        self._on_append = on_append
        self._repeated_batch = checkpoint.unfinished_batch()
        self._query_id: str | None = None
        self._table = lake.table(INTERACTIONS)
        self._expected_with_others = 0
        """The number of large batches that are expected to have other records than canonical ones too."""
        self._malformed = F.count_if(~F.col("is_valid")).alias("malformed")
        self._offsets: dict[str, int] = (checkpoint.committed_offsets() or {}).get(settings.kafka_topic, {})

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        started = time.monotonic()
        info = self._append_info(batch_id)
        size = self._size(info)
        with self._running.of(size):
            collected = self._process(batch, info, size, is_repeated=batch_id == self._repeated_batch)
        if collected is not None and collected < _FEW_RECORDS:
            # The next batch starts when this function returns: each has a fixed cost, whatever its size.
            time.sleep(max(0.0, started + 2 * self._settings.batch_interval - time.monotonic()))

    def _process(self, batch: DataFrame, info: AppendInfo, size: int, *, is_repeated: bool) -> int | None:
        """Append a batch and send its dead letters; returns the number of its records if it needed no Spark."""
        if is_repeated and self._lake.has_append(info):
            send_dead_letters(without_sent(malformed_records(parse(batch)), self._settings), self._settings)
            return None
        records = None
        if size <= _MAX_COLLECTED_RECORDS:
            with metrics.PHASE_SECONDS.labels("collect").time():
                records = collect_records(batch)
        if records is None:
            self._write_by_spark(batch, info, is_repeated, more=size >= self._settings.max_offsets_per_batch)
            return None
        self._write(batch, records, info, is_repeated)
        return len(records)

    def _write_by_spark(self, batch: DataFrame, info: AppendInfo, is_repeated: bool, *, more: bool) -> None:
        before, rows_before = self._table.version(), self._table.count()
        parsed, observed = None, Observation()
        with metrics.PHASE_SECONDS.labels("parse and append by Spark").time():
            if not self._append_canonical(batch, info):
                parsed = parse(batch)
                append(parsed.observe(observed, self._malformed).where("is_valid"), self._lake, info)
        self._table.update_incremental()
        files = list(self._log.added_files(range(before + 1, self._table.version() + 1)))
        self._hand_over(Append(self._table.version(), files=files, more=more), self._table.count() - rows_before)
        if parsed is not None and (malformed := observed.get["malformed"]):
            self._send_dead_letters(malformed_records(parsed), is_repeated)
            metrics.DEAD_LETTERS.inc(malformed)

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
        metrics.LAKE_ROWS.inc(rows)

    def _write(self, batch: DataFrame, records: list[Row], info: AppendInfo, is_repeated: bool) -> None:
        with metrics.PHASE_SECONDS.labels("parse").time():
            interactions, others = read([record.value for record in records])
            rows = _frame(interactions)
        if len(others) > _MAX_OTHERS:
            self._write_by_spark(batch, info, is_repeated, more=False)
            return
        malformed: list[Row] = []
        if others:
            valid, malformed = self._parse_by_spark([records[n] for n in others])
            rows = pl.concat([rows, _frame(valid)])
        with metrics.PHASE_SECONDS.labels("append").time():
            append_rows(self._table, rows, info)
        self._hand_over(Append(self._table.version(), rows), len(rows))
        if malformed:
            self._send_dead_letters(with_reason(data_frame(self._checkpoint.session, malformed)), is_repeated)
            metrics.DEAD_LETTERS.inc(len(malformed))

    def _parse_by_spark(self, records: Sequence[Row]) -> tuple[list[tuple[object, ...]], list[Row]]:
        """Return the fields of the valid records, and the malformed records."""
        parsed = parse(data_frame(self._checkpoint.session, records)).withColumn(
            "timestamp", F.unix_seconds("timestamp")
        )
        # All of them: a filter would contain the parsers, once for each check.
        found = parsed.select(*_FIELDS_FRAME, "is_valid", "record").collect()
        valid = [tuple(row[name] for name in _FIELDS_FRAME) for row in found if row.is_valid]
        return valid, [row.record for row in found if not row.is_valid]

    def _send_dead_letters(self, malformed: DataFrame, is_repeated: bool) -> None:
        if is_repeated:
            malformed = without_sent(malformed, self._settings)
        send_dead_letters(malformed, self._settings)

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


def collect_records(batch: DataFrame) -> list[Row] | None:
    """Return the records of a batch; None if one of them is large."""
    is_small = (F.octet_length("value") <= _MAX_COLLECTED_BYTES) & (
        F.coalesce(F.octet_length("key"), F.lit(0)) <= _MAX_COLLECTED_BYTES
    )
    records = batch.select(*(F.when(is_small, F.col(name)).alias(name) for name in ("key", "value")), *ORIGIN).collect()
    return None if any(record.value is None for record in records) else records


def data_frame(session: SparkSession, records: Sequence[Row]) -> DataFrame:
    """Return collected records as a DataFrame.

    `createDataFrame` would start Python processes, by whatever `python3` is on the path, which takes seconds.
    """
    texts = [
        row.asDict() | {name: None if row[name] is None else b64encode(row[name]).decode() for name in ("key", "value")}
        for row in records
    ]
    rows = session.range(0, 1, 1, 1).select(F.inline(F.from_json(F.lit(json.dumps(texts)), _RECORDS)))
    return rows.select(F.unbase64("key").alias("key"), F.unbase64("value").alias("value"), *ORIGIN)


def _frame(interactions: Sequence[Sequence[object]]) -> pl.DataFrame:
    frame = pl.DataFrame(interactions, schema=_FIELDS_FRAME, orient="row")
    return frame.with_columns(pl.from_epoch("timestamp", time_unit="s").cast(pl.Datetime("us", "UTC")))
