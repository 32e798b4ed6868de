"""Query 1, ingest: every interaction from Kafka into the lake once, and what does not fit into dead letters.

What a kill at any point does: before the append is committed, the batch is done again from the same
offsets; after it, Delta knows the batch's number and skips the append; while dead letters are written,
the next start sends only those that are not in their topic yet.
"""

from typing import Final

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract import dead_letters
from stream_processing import metrics
from stream_processing.kafka_io import source_options, write_records
from stream_processing.lake import INTERACTIONS_SCHEMA, Lake, exists
from stream_processing.parsing import parse
from stream_processing.settings import StreamProcessingSettings

NAME: Final = "ingest"
_SERVICE: Final = "stream-processing"
_ORIGIN: Final = ["topic", "partition", "offset"]


class LostCheckpointError(Exception):
    """The lake has interactions, but nothing says up to which offsets."""


def start_ingest(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> StreamingQuery:
    """Start the query; it goes on from its checkpoint, or, into an empty lake, from the topic's earliest record.

    Raises `LostCheckpointError` rather than read into a filled lake what it may have already.
    """
    checkpoint = f"{settings.checkpoints}/{NAME}"
    if not exists(session, checkpoint) and not session.read.format("delta").load(lake.interactions).isEmpty():
        raise LostCheckpointError(
            f"{lake.interactions} has interactions, but their checkpoint {checkpoint} is gone, and with it the offsets"
            " up to which they were read: bring the checkpoint back, or remove warehouse and checkpoints to start anew"
        )
    records = (
        session.readStream.format("kafka")
        .options(**source_options(settings, settings.kafka_topic))
        .option("maxOffsetsPerTrigger", settings.max_offsets_per_batch)
        .load()
    )
    return (
        parse(records.select("key", "value", *_ORIGIN))
        .writeStream.queryName(NAME)
        .option("checkpointLocation", checkpoint)
        .foreachBatch(_Batches(settings, lake))
        .start()
    )


class _Batches:
    def __init__(self, settings: StreamProcessingSettings, lake: Lake) -> None:
        self._settings = settings
        self._lake = lake
        self._may_be_a_repetition = True

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        if self._may_be_a_repetition:
            # Only the first batch after a start can have been tried before.
            self._append(batch, batch_id)
            self._send_dead_letters(_without_sent(_malformed(batch), self._settings))
            metrics.LAKE_ROWS.set(batch.sparkSession.read.format("delta").load(self._lake.interactions).count())
            self._may_be_a_repetition = False
            return
        observed = Observation()
        counts = (F.count(F.lit(1)).alias("records"), F.count("reason").alias("malformed"))
        self._append(batch.observe(observed, *counts), batch_id)
        records, malformed = observed.get["records"], observed.get["malformed"]
        metrics.LAKE_ROWS.inc(records - malformed)
        if malformed:
            self._send_dead_letters(_malformed(batch))
            metrics.DEAD_LETTERS.inc(malformed)

    def _append(self, batch: DataFrame, batch_id: int) -> None:
        (
            batch.where("reason IS NULL")
            .select(*INTERACTIONS_SCHEMA.names)
            .write.format("delta")
            .mode("append")
            .option("txnAppId", NAME)
            .option("txnVersion", batch_id)
            .save(self._lake.interactions)
        )

    def _send_dead_letters(self, malformed: DataFrame) -> None:
        headers = {
            dead_letters.TOPIC: F.col("topic"),
            dead_letters.PARTITION: F.col("partition").cast("string"),
            dead_letters.OFFSET: F.col("offset").cast("string"),
            dead_letters.REASON: F.col("reason"),
            dead_letters.SERVICE: F.lit(_SERVICE),
        }
        pairs = [F.struct(F.lit(k).alias("key"), F.encode(v, "UTF-8").alias("value")) for k, v in headers.items()]
        letters = malformed.select("key", "value", F.array(*pairs).alias("headers"))
        write_records(letters, self._settings, self._settings.dead_letter_topic)


def _malformed(batch: DataFrame) -> DataFrame:
    return batch.where("reason IS NOT NULL")


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
