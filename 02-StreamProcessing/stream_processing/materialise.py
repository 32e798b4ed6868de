"""Query 3, materialise: the changed rows from Kafka into the aggregate tables, at an interval of its own.

A MERGE takes seconds whatever its size, so it stays out of the path of latency. It replaces whole rows by
key: done twice, it changes nothing.
"""

from typing import Final

from delta.tables import DeltaTable
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
        if latest.isEmpty():
            return
        for table in AGGREGATE_TABLES:
            rows = latest.where(_is_row_of(table)).select(F.from_json("value", schema_of(table)).alias("row"))
            condition = "true" if table.key is None else f"old.{table.key} = new.{table.key}"
            (
                DeltaTable.forPath(batch.sparkSession, lake.path(table.name))
                .alias("old")
                .merge(rows.select("row.*").alias("new"), condition)
                .whenMatchedUpdateAll()
                .whenNotMatchedInsertAll()
                .execute()
            )
    finally:
        latest.unpersist()


def _is_row_of(table: AggregateTable) -> Column:
    return F.col("key") == table.name if table.key is None else F.startswith("key", F.lit(table.name + SEPARATOR))
