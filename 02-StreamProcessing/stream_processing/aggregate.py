"""The query aggregate, only with `STATE_STORE=rocksdb`: from the lake to changed rows in Kafka.

It keeps the counts per key in Spark's state store. The lake is the source, so every published row is computed from
committed interactions. An interrupted batch is repeated from the same files and the same state, and publishes the same
rows again.
"""

import logging
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Final

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract.declared import EVENT, TABLES
from contract.fields import MAX_ID_BYTES
from contract.measures import Operation, StateColumn, rows_column
from contract.tables import Key, Table
from stream_processing import metrics, spark_internals
from stream_processing.engines import SPARK, group_columns, spark_type
from stream_processing.kafka_io import RecordSender, max_message_bytes, write_records
from stream_processing.lake import Lake
from stream_processing.measures import (
    ALL,
    EVENTS,
    KEYS,
    record_key,
    record_value,
    state_columns,
    state_of,
    tables_of,
)
from stream_processing.session import set_polling_interval
from stream_processing.settings import StreamProcessingSettings

NAME: Final = "aggregate"

_OVERALL: Final = "overall"
"""The name of the observed metrics: the counts over all interactions, and the number of unpublished keys."""
_ALL_FILES: Final = 1_000_000
_MAX_POLLING_INTERVAL: Final = 0.2
"""Seconds: the latency adds to that of ingest."""


logger = logging.getLogger(__name__)


def start_aggregate(
    session: SparkSession, settings: StreamProcessingSettings, lake: Lake, require_held: Callable[[], None]
) -> StreamingQuery:
    """Start the query from its checkpoint, or recompute all aggregates from the lake.

    `require_held` is called before each batch is published.
    """
    # As texts: the metrics of a batch are read as such.
    overall = [F.max(_as_text(column)) for column in state_of(ALL)]
    changed = changed_rows(session, lake).observe(_OVERALL, *overall, F.count(F.when(F.size("rows") == 0, F.lit(1))))
    set_polling_interval(session, min(settings.loop_sleep, _MAX_POLLING_INTERVAL))
    return (
        changed.writeStream.queryName(NAME)
        .outputMode("update")
        .option("checkpointLocation", f"{settings.checkpoints}/{NAME}")
        .foreachBatch(_BatchPublisher(session, settings, require_held))
        .start()
    )


def changed_rows(session: SparkSession, lake: Lake) -> DataFrame:
    """Return a row per changed key: `rows`, topic key and value of its row in each of its tables.

    The row over all events has no `rows` yet, but its state: its tables need the numbers of rows of other keys too.
    """
    # The first batch reads all files, so that none of its rows is older than one that was published before.
    events = session.readStream.format("delta").option("maxFilesPerTrigger", _ALL_FILES).load(lake.interactions)
    # Rows that are older than a field have null.
    defaults = {field.name: field.default for field in EVENT.fields if field.default is not None}
    events = events.withColumns({name: F.coalesce(name, F.lit(value)) for name, value in defaults.items()})
    return reduce(
        lambda left, right: left.unionByName(right, allowMissingColumns=True),
        [_changed_rows_of_key(events, key) for key in KEYS],
    )


def _changed_rows_of_key(events: DataFrame, key: Key) -> DataFrame:
    """Return `changed_rows` of one key. All tables with the same key share one state."""
    state = state_columns(SPARK, state_of(key))
    if not key:
        return events.agg(*state)
    rows = [_record(table) for table in tables_of(key)]
    # Ingest rejects longer ids; the start of a window can make one longer, and an older lake can have some.
    count = F.when(F.octet_length(SPARK.row_id(EVENT, key)) <= MAX_ID_BYTES, len(rows)).otherwise(0)
    groups = [column.alias(name) for name, column in group_columns(SPARK, EVENT, key).items()]
    return events.groupBy(*groups).agg(*state).select(F.slice(F.array(*rows), 1, count).alias("rows"))


class _BatchPublisher:
    def __init__(
        self, session: SparkSession, settings: StreamProcessingSettings, require_held: Callable[[], None]
    ) -> None:
        self._session = session
        self._require_held = require_held
        self._settings = settings
        self._max_message_bytes = max_message_bytes(settings, settings.aggregated_topic)
        self._sender = RecordSender(settings, settings.aggregated_topic, self._max_message_bytes)

    def __call__(self, batch: DataFrame, _batch_id: int) -> None:
        with metrics.BATCH_SECONDS.labels(NAME).time():
            self._publish(batch)

    def _publish(self, batch: DataFrame) -> None:
        self._require_held()
        write_records(
            batch.selectExpr("inline(rows)"), self._settings, self._settings.aggregated_topic, self._max_message_bytes
        )
        execution = spark_internals.last_execution(self._session, NAME)
        *state, unpublished = spark_internals.observed_metrics(execution, _OVERALL)
        overall = dict(zip((column.name for column in state_of(ALL)), state, strict=True))
        if not int(overall[EVENTS.name] or 0):
            return  # A batch without events, such as the first one over an empty lake.
        if int(unpublished or 0):
            logger.warning(
                "%s changed rows are in the lake and not published: their ids have more than %d bytes",
                unpublished, MAX_ID_BYTES,
            )  # fmt: skip
        sizes = {key: spark_internals.state_store_rows(execution).get(key.columns, 1) for key in KEYS}
        self._sender.send(_overall_records(batch.sparkSession, overall, sizes))
        metrics.AGGREGATED.set(int(overall[EVENTS.name] or 0))
        for table in TABLES:
            metrics.STATE_ROWS.labels(table.name).set(sizes[table.key])


def _overall_records(
    session: SparkSession, state: Mapping[str, str | None], sizes: Mapping[Key, int]
) -> list[tuple[str, str]]:
    """Return key and value of the row of each table without a key. Literals only: Spark needs no job for it."""
    columns = [_of_text(column, F.lit(state[column.name])).alias(column.name) for column in state_of(ALL)]
    columns += [F.lit(size).cast("long").alias(rows_column(key)) for key, size in sizes.items()]
    rows = (
        session.range(0, 1, 1, 1)
        .select(*columns)
        .select(*[_record(table).alias(table.name) for table in tables_of(ALL)])
    )
    return [(row["key"], row["value"]) for row in rows.head() or ()]


def _record(table: Table) -> Column:
    return F.struct(record_key(SPARK, table).alias("key"), record_value(SPARK, table).alias("value"))


def _as_text(column: StateColumn) -> Column:
    value = F.col(column.name)
    return F.base64(value) if column.operation is Operation.DISTINCT else value.cast("string")


def _of_text(column: StateColumn, text: Column) -> Column:
    is_sketch = column.operation is Operation.DISTINCT
    return F.unbase64(text) if is_sketch else text.cast(spark_type(column.type, column.places))
