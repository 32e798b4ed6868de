"""The query aggregate, only with `STATE_STORE=rocksdb`: from the lake to changed rows in Kafka.

It keeps the counts per key in Spark's state store. The lake is the source, so every published row is computed from
committed interactions. An interrupted batch is repeated from the same files and the same state, and publishes the same
rows again.
"""

import logging
from functools import reduce
from typing import Final

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract.interaction import MAX_ID_BYTES
from contract.tables import AGGREGATE_TABLES
from stream_processing import metrics, spark_internals
from stream_processing.counts import KEYS, USER
from stream_processing.engines import SPARK
from stream_processing.kafka_io import RecordSender, max_message_bytes, write_records
from stream_processing.lake import Lake
from stream_processing.measures import LAST, STATE, USERS, record_key, record_value, state_columns
from stream_processing.session import set_polling_interval
from stream_processing.settings import StreamProcessingSettings

NAME: Final = "aggregate"

_OVERALL: Final = "overall"
"""The name of the observed metrics: the counts over all interactions, and the number of unpublished keys."""
_ALL_FILES: Final = 1_000_000
_MAX_POLLING_INTERVAL: Final = 0.2
"""Seconds: the latency adds to that of ingest."""


logger = logging.getLogger(__name__)


def start_aggregate(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> StreamingQuery:
    """Start the query from its checkpoint, or recompute all aggregates from the lake."""
    changed = changed_rows(session, lake).observe(
        _OVERALL,
        *[F.max(F.when(F.col("rows").isNull(), _as_long(name))) for name in STATE],
        F.count(F.when(F.size("rows") == 0, F.lit(1))),
    )
    set_polling_interval(session, min(settings.loop_sleep, _MAX_POLLING_INTERVAL))
    return (
        changed.writeStream.queryName(NAME)
        .outputMode("update")
        .option("checkpointLocation", f"{settings.checkpoints}/{NAME}")
        .foreachBatch(_BatchPublisher(session, settings))
        .start()
    )


def changed_rows(session: SparkSession, lake: Lake) -> DataFrame:
    """Return a row per changed key: `rows`, topic key and value of its row in each of its tables, and its counts."""
    # The first batch reads all files, so that none of its rows is older than one that was published before.
    interactions = session.readStream.format("delta").option("maxFilesPerTrigger", _ALL_FILES).load(lake.interactions)
    return reduce(DataFrame.unionByName, [_changed_rows_of_key(interactions, key) for key in KEYS])


def _changed_rows_of_key(interactions: DataFrame, key: str) -> DataFrame:
    """Return `changed_rows` of one key.

    All tables with the same key share one state. The users' aggregation has one more row, a roll-up with the counts
    over all users. That row has no key, and no `rows` yet: its tables need the number of users too.
    """
    grouped = interactions.rollup(key) if key == USER else interactions.groupBy(key)
    row_id = F.col(key)
    rows = [
        F.struct(record_key(SPARK, table).alias("key"), record_value(SPARK, table).alias("value"))
        for table in AGGREGATE_TABLES
        if table.key == key
    ]
    # Ingest rejects longer ids; a lake that is older than this bound can have some.
    count = F.when(F.octet_length(row_id) <= MAX_ID_BYTES, len(rows)).otherwise(0)
    published = F.slice(F.array(*rows), 1, count)
    return grouped.agg(*state_columns(SPARK)).select(F.when(row_id.isNotNull(), published).alias("rows"), *STATE)


class _BatchPublisher:
    def __init__(self, session: SparkSession, settings: StreamProcessingSettings) -> None:
        self._session = session
        self._settings = settings
        self._max_message_bytes = max_message_bytes(settings, settings.aggregated_topic)
        self._sender = RecordSender(settings, settings.aggregated_topic, self._max_message_bytes)

    def __call__(self, batch: DataFrame, _batch_id: int) -> None:
        write_records(
            batch.selectExpr("inline(rows)"), self._settings, self._settings.aggregated_topic, self._max_message_bytes
        )
        execution = spark_internals.last_execution(self._session, NAME)
        *counts, unpublished = spark_internals.observed_metrics(execution, _OVERALL)
        if counts[0] is None:
            return  # A batch without interactions, such as the first one over an empty lake.
        if unpublished:
            logger.warning(
                "%d changed keys are in the lake and not published: their ids have more than %d bytes",
                unpublished, MAX_ID_BYTES,
            )  # fmt: skip
        keys = _stored_keys(spark_internals.state_store_rows(execution))
        self._publish_overall(batch.sparkSession, dict(zip(STATE, counts, strict=True)), keys[USER])

    def _publish_overall(self, session: SparkSession, state: dict[str, int | None], users: int) -> None:
        self._sender.send(_overall_records(session, state, users))
        metrics.AGGREGATED.set(sum(count or 0 for name, count in state.items() if name != LAST))
        metrics.USERS.set(users)


def _overall_records(session: SparkSession, state: dict[str, int | None], users: int) -> list[tuple[str, str]]:
    """Return key and value of the row of each table without a key. Literals only: Spark needs no job for it."""
    known = [f"{n}L AS {name}" if name != LAST else f"timestamp_micros({n}L) AS {name}" for name, n in state.items()]
    rows = session.sql(f"SELECT {users}L AS {USERS}, {', '.join(known)}").select(
        *[
            F.struct(record_key(SPARK, table).alias("key"), record_value(SPARK, table).alias("value")).alias(table.name)
            for table in AGGREGATE_TABLES
            if table.key is None
        ]
    )
    return [(row["key"], row["value"]) for row in rows.head() or ()]


def _stored_keys(state_rows: dict[str, int]) -> dict[str, int]:
    """Return the number of distinct values of each key column, from the rows of its state."""
    # The roll-up over all users is a row of its own.
    return {key: rows - (key == USER) for key, rows in state_rows.items()}


def _as_long(name: str) -> Column:
    return F.unix_micros(name) if name == LAST else F.col(name)
