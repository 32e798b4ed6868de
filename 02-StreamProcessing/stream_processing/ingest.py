"""Query 1, ingest: every interaction from Kafka into the lake once, and what does not fit into dead letters.

What a kill at any point does: before the append is committed, the batch is done again from the same
offsets; after it, the table's history tells that it has the batch, and the append is skipped; while dead letters are
written, the next start sends only those that are not in their topic yet.
"""

import json
import logging
from typing import Any, Final

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract import dead_letters
from runtime import commands
from stream_processing import kafka_io, metrics
from stream_processing.checkpoint import Checkpoint
from stream_processing.kafka_io import source_options, write_records
from stream_processing.lake import INTERACTIONS_SCHEMA, Lake
from stream_processing.parsing import parse, with_reason
from stream_processing.session import look_every
from stream_processing.settings import StreamProcessingSettings
from stream_processing.storage import read_text_if_there, write_text

NAME: Final = "ingest"
_SERVICE: Final = "stream-processing"
_ORIGIN: Final = ["topic", "partition", "offset"]
_EARLIEST: Final = -2
"""An offset, as Spark has it in JSON."""

logger = logging.getLogger(__name__)


class LostCheckpointError(Exception):
    """The lake has interactions, but nothing says up to which offsets."""


class TopicMadeAnewError(Exception):
    """The topic is not the one that was read before; offsets of the one mean nothing in the other."""


def start_ingest(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> StreamingQuery:
    """Start the query; it goes on from its checkpoint, or, without one, from where the lake's history says that it was.

    Into an empty lake it reads from the topic's earliest record. Raises `LostCheckpointError` rather than read into a
    filled lake what it may have already, and `TopicMadeAnewError` rather than skip a new topic's first records.
    """
    note, topic_id = lake.last_note(), kafka_io.topic_id(settings, settings.kafka_topic)
    if known_topic_id(session, settings, note) not in (None, topic_id):
        raise TopicMadeAnewError(
            f"topic {settings.kafka_topic} was deleted and made anew since it was read last: run"
            f" `{commands.command('stream_processing', 'accept-gap')}`, which tells what is gone and lets the next"
            " start read it from its beginning"
        )
    remember_topic(session, settings, topic_id)
    checkpoint = Checkpoint(session, f"{settings.checkpoints}/{NAME}")
    options = source_options(settings, settings.kafka_topic)
    if not checkpoint.exists and lake.count() > 0:
        options["startingOffsets"] = json.dumps(_known_offsets(settings, note, lake, checkpoint))
    records = (
        session.readStream.format("kafka")
        .options(**options)
        .option("maxOffsetsPerTrigger", settings.max_offsets_per_batch)
        .load()
    )
    # A task per core: each has a fixed cost, and writes a file.
    shared_out = records.select("key", "value", *_ORIGIN).coalesce(session.sparkContext.defaultParallelism)
    look_every(session, settings.loop_sleep)
    return (
        parse(shared_out)
        .writeStream.queryName(NAME)
        .option("checkpointLocation", checkpoint.path)
        .foreachBatch(_Batches(settings, lake, checkpoint, topic_id))
        .start()
    )


def known_topic_id(
    session: SparkSession, settings: StreamProcessingSettings, note: dict[str, Any] | None
) -> str | None:
    """The id of the topic that was read last: as the latest append notes it, or as a file keeps it for longer."""
    if note is not None:
        return str(note["topic_id"])
    return read_text_if_there(session, _topic_file(settings))


def remember_topic(session: SparkSession, settings: StreamProcessingSettings, topic_id: str) -> None:
    """Keep the id of the topic that is read from now on."""
    write_text(session, _topic_file(settings), topic_id)


def _topic_file(settings: StreamProcessingSettings) -> str:
    return f"{settings.checkpoints}/{NAME}.topic"


def _known_offsets(
    settings: StreamProcessingSettings, note: dict[str, Any] | None, lake: Lake, checkpoint: Checkpoint
) -> dict[str, dict[str, int]]:
    if note is None:
        raise LostCheckpointError(
            f"{lake.interactions} has interactions, but their checkpoint {checkpoint.path} is gone, and the table's"
            " history does not reach back to an append that would tell the offsets up to which they were read: bring"
            " the checkpoint back, or remove warehouse and checkpoints to start anew"
        )
    logger.warning("%s is gone: going on from the offsets in the table's history, %s", checkpoint.path, note["offsets"])
    # Partitions that came later are read from their beginning.
    everything = {str(partition): _EARLIEST for partition in kafka_io.partitions_of(settings, settings.kafka_topic)}
    return {settings.kafka_topic: everything | note["offsets"][settings.kafka_topic]}


def append(batch: DataFrame, lake: Lake, note: dict[str, Any]) -> None:
    """Append a parsed batch's interactions to the lake in one commit, which carries the note."""
    rows = batch.where("is_valid").select(*INTERACTIONS_SCHEMA.names)
    # Not Delta's own txnVersion: to look that up, it puts the table's whole state together at every append.
    rows.write.save(lake.interactions, format="delta", mode="append", userMetadata=json.dumps(note, sort_keys=True))


class _Batches:
    def __init__(self, settings: StreamProcessingSettings, lake: Lake, checkpoint: Checkpoint, topic_id: str) -> None:
        self._topic_id = topic_id
        self._settings = settings
        self._lake = lake
        self._checkpoint = checkpoint
        self._repetition = checkpoint.unfinished_batch()
        self._query_id: str | None = None
        self._counts = (F.count(F.lit(1)).alias("records"), F.count_if(~F.col("is_valid")).alias("malformed"))

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        note = self._note(batch_id)
        if batch_id == self._repetition:
            if not self._lake.has(note):
                append(batch, self._lake, note)
            self._send_dead_letters(_without_sent(_malformed(batch), self._settings))
            metrics.LAKE_ROWS.set(self._lake.count())
            return
        observed = Observation()
        append(batch.observe(observed, *self._counts), self._lake, note)
        records, malformed = observed.get["records"], observed.get["malformed"]
        metrics.LAKE_ROWS.inc(records - malformed)
        if malformed:
            self._send_dead_letters(_malformed(batch))
            metrics.DEAD_LETTERS.inc(malformed)

    def _note(self, batch_id: int) -> dict[str, Any]:
        """What the append leaves in the table's history: which batch it is, and where it ends."""
        self._query_id = self._query_id or self._checkpoint.query_id
        offsets = self._checkpoint.end_offsets(batch_id)
        return {"query": self._query_id, "batch": batch_id, "topic_id": self._topic_id, "offsets": offsets}

    def _send_dead_letters(self, malformed: DataFrame) -> None:
        headers = {
            dead_letters.TOPIC: F.col("topic"),
            dead_letters.PARTITION: F.col("partition").cast("string"),
            dead_letters.OFFSET: F.col("offset").cast("string"),
            dead_letters.REASON: F.col("reason"),
            dead_letters.SERVICE: F.lit(_SERVICE),
        }
        topic = self._settings.dead_letter_topic
        # Asked each time: what the topic takes may be raised while the job runs.
        limit = kafka_io.max_message_bytes(self._settings, topic)
        write_records(_letters(malformed, headers, dead_letters.Capacity.of(limit)), self._settings, topic, limit)


def _letters(malformed: DataFrame, headers: dict[str, Column], capacity: dead_letters.Capacity) -> DataFrame:
    """Dead letters as Kafka takes them (`contract.dead_letters.Capacity.fit` as an expression)."""
    key_bytes, value_bytes = (F.coalesce(F.octet_length(name), F.lit(0)) for name in ("key", "value"))
    is_whole = key_bytes.cast("long") + value_bytes <= capacity.max_bytes
    pairs = [_pair(name, value) for name, value in headers.items()]
    text = dead_letters.cut_header("{}", "{}").split("{}")
    cut = F.concat(F.lit(text[0]), key_bytes.cast("string"), F.lit(text[1]), value_bytes.cast("string"))
    return malformed.select(
        F.when(is_whole, F.col("key")).otherwise(F.substring("key", 1, capacity.key_prefix)).alias("key"),
        F.when(is_whole, F.col("value")).otherwise(F.substring("value", 1, capacity.value_prefix)).alias("value"),
        F.when(is_whole, F.array(*pairs)).otherwise(F.array(*pairs, _pair(dead_letters.CUT, cut))).alias("headers"),
    )


def _pair(name: str, value: Column) -> Column:
    return F.struct(F.lit(name).alias("key"), F.encode(value, "UTF-8").alias("value"))


def _malformed(batch: DataFrame) -> DataFrame:
    return with_reason(batch.where("NOT is_valid").select("record.*"))


def _without_sent(malformed: DataFrame, settings: StreamProcessingSettings) -> DataFrame:
    sent = (
        malformed.sparkSession.read.format("kafka")
        .options(**source_options(settings, settings.dead_letter_topic))
        .option("includeHeaders", "true")
        .load()
        .where(_header(dead_letters.SERVICE) == _SERVICE)
        .select(
            _header(dead_letters.TOPIC).alias("topic"),
            _header(dead_letters.PARTITION).cast("int").alias("partition"),
            _header(dead_letters.OFFSET).cast("long").alias("offset"),
        )
    )
    return malformed.join(sent, _ORIGIN, "left_anti")


def _header(name: str) -> Column:
    return F.filter("headers", lambda header: header["key"] == name)[0]["value"].cast("string")
