"""Query 3, materialise: the changed rows from Kafka into the aggregate tables, at an interval of its own.

A table is written anew: the rows that did not change, and those that did. A MERGE would rewrite as many files, for
the keys of a batch are in all of them, and takes several jobs to find out. It takes seconds whatever the size, so it
stays out of the path of latency. Whole rows are replaced by key: done twice, it changes nothing.
"""

from typing import Final

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract.keys import SEPARATOR
from contract.tables import AGGREGATE_TABLES, AggregateTable
from stream_processing.kafka_io import source_options
from stream_processing.lake import Lake, schema_of
from stream_processing.settings import StreamProcessingSettings

NAME: Final = "materialise"


def start_materialise(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> StreamingQuery:
    """Start the query; it goes on from its checkpoint, or from the topic's earliest record."""
    records = session.readStream.format("kafka").options(**source_options(settings, settings.aggregated_topic)).load()

    def merge(batch: DataFrame, _batch_id: int) -> None:
        _merge_latest(batch, lake)

    return (
        records.select(F.col("key").cast("string"), F.col("value").cast("string"), "offset")
        .writeStream.queryName(NAME)
        .trigger(processingTime=f"{settings.materialise_interval} seconds")
        .option("checkpointLocation", f"{settings.checkpoints}/{NAME}")
        .foreachBatch(merge)
        .start()
    )


def _merge_latest(batch: DataFrame, lake: Lake) -> None:
    # A key is always in the same partition: the greatest offset is the latest row.
    latest = batch.where("value IS NOT NULL").groupBy("key").agg(F.max_by("value", "offset").alias("value")).persist()
    try:
        changed = [table for table in AGGREGATE_TABLES if not latest.where(_is_row_of(table)).isEmpty()]
        for table in changed:
            row = F.from_json("value", schema_of(table)).alias("row")
            _replace(batch.sparkSession, lake.path(table.name), table.key, latest.where(_is_row_of(table)).select(row))
    finally:
        latest.unpersist()


def _replace(session: SparkSession, path: str, key: str | None, changed: DataFrame) -> None:
    rows = changed.select("row.*")
    if key is not None:
        unchanged = session.read.format("delta").load(path).join(rows, key, "left_anti")
        rows = unchanged.unionByName(rows)
    rows.coalesce(1).write.save(path, format="delta", mode="overwrite")


def _is_row_of(table: AggregateTable) -> Column:
    return F.col("key") == table.name if table.key is None else F.startswith("key", F.lit(table.name + SEPARATOR))
