"""Query 3, materialise: the changed rows from Kafka into the aggregate tables, at an interval of its own.

Spark finds the latest row of each key; the MERGE is delta-rs's. It takes milliseconds where Spark's takes seconds of
both cores, which the other two queries need. Whole rows are replaced by key: done twice, it changes nothing.
No one else writes these tables.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from arro3.core import Table
from deltalake import write_deltalake
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract.keys import UnknownKeyError, decode_key
from contract.tables import AggregateTable, ColumnType, table_named
from stream_processing.arrow import arrow_column
from stream_processing.kafka_io import source_options
from stream_processing.lake import Lake
from stream_processing.settings import StreamProcessingSettings

NAME: Final = "materialise"

_MOST_RECORDS: Final = 2_000_000
"""Of one batch, so that it ends some time."""
_PARTS: Final = 8
"""In which the batch's rows come into this process, one after the other."""
_MOST_ROWS: Final = 100_000
"""Of one MERGE: the bound of the memory that they take here."""


def start_materialise(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> StreamingQuery:
    """Start the query; it goes on from its checkpoint, or from the topic's earliest record."""
    records = (
        session.readStream.format("kafka")
        .options(**source_options(settings, settings.aggregated_topic))
        .option("maxOffsetsPerTrigger", _MOST_RECORDS)
        .load()
    )
    # A key is always in the same partition: the greatest offset is the latest row.
    latest = F.max_by("value", "offset").alias("value")

    def merge(batch: DataFrame, _batch_id: int) -> None:
        rows = batch.where("value IS NOT NULL").groupBy("key").agg(latest).repartition(_PARTS).toLocalIterator()
        while some := [(row["key"], row["value"]) for row in islice(rows, _MOST_ROWS)]:
            for table, found in _by_table(some).items():
                _merge(lake, table_named(table), found)

    return (
        records.select(F.col("key").cast("string"), F.col("value").cast("string"), "offset")
        .writeStream.queryName(NAME)
        .trigger(processingTime=f"{settings.materialise_interval} seconds")
        .option("checkpointLocation", f"{settings.checkpoints}/{NAME}")
        .foreachBatch(merge)
        .start()
    )


def _by_table(records: Sequence[tuple[str, str]]) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for key, value in records:
        try:
            tables[decode_key(key).table].append(json.loads(value))
        except UnknownKeyError:
            continue  # The sink, which sees it too, puts it aside.
    return tables


def _merge(lake: Lake, table: AggregateTable, rows: list[dict[str, Any]]) -> None:
    changed = _arrow(table, rows)
    if table.key is None:
        write_deltalake(lake.table(table.name), changed, mode="overwrite")
        return
    (
        lake.table(table.name)
        .merge(changed, f"old.{table.key} = new.{table.key}", source_alias="new", target_alias="old")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


def _arrow(table: AggregateTable, rows: list[dict[str, Any]]) -> Table:
    columns: dict[str, Any] = {}
    for column in table.columns:
        values: list[Any] = [row.get(column.name) for row in rows]
        if column.type is ColumnType.DATE:
            values = [value and round(datetime.fromisoformat(value).timestamp() * 1_000_000) for value in values]
        columns[column.name] = arrow_column(column.type, values)
    return Table.from_pydict(columns)
