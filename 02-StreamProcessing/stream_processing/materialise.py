"""The query materialise, only with `STATE_STORE=rocksdb`: from changed rows in Kafka to the aggregate tables.

It runs at an interval of its own. Spark finds the latest row of each key; delta-rs runs the MERGE. It takes
milliseconds where Spark's takes seconds of both cores, which the other two queries need. Whole rows are replaced by
key, so a repeated MERGE changes nothing. No other process writes these tables.
"""

import json
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal
from itertools import islice
from typing import Any, Final

import polars as pl
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from contract.dead_letters import MAX_REASON_CHARACTERS, truncated
from contract.declared import table_named
from contract.fields import ColumnType
from contract.keys import RowKey, decode_key
from contract.tables import Column, Table
from stream_processing import metrics
from stream_processing.engines import STATE_DIGITS, polars_type
from stream_processing.kafka_io import RecordSender, max_message_bytes, source_options
from stream_processing.lake import Lake, merge_rows, same_key
from stream_processing.retention import Retention
from stream_processing.session import trigger_interval
from stream_processing.settings import StreamProcessingSettings

NAME: Final = "materialise"

Row = dict[str, Any]

_EXACT: Final = Context(prec=2 * STATE_DIGITS)
_LONG_LIMIT: Final = 1 << 63
_PARTS: Final = 8
"""The partitions in which the batch's rows are transferred to this process, one after the other."""
_MAX_ROWS_PER_MERGE: Final = 100_000
"""Limits the memory that the rows take in this process."""

logger = logging.getLogger(__name__)


def start_materialise(
    session: SparkSession, settings: StreamProcessingSettings, lake: Lake, require_held: Callable[[], None]
) -> StreamingQuery:
    """Start the query from its checkpoint, or from the topic's earliest record.

    A batch reads all available records, without a limit. A key that moved to another partition, because partitions
    were added to the topic, has its older records in the one and its newer ones in the other: with a limit, a batch
    could end in the middle of both, and the next one could merge an older row after a newer one. `require_held` is
    called before each merge.
    """
    topic = settings.aggregated_topic
    sender = RecordSender(settings, topic, max_message_bytes(settings, topic))
    retention = Retention(lake, lambda keys: sender.send([(key, None) for key in keys]))
    records = session.readStream.format("kafka").options(**source_options(settings, topic)).load()

    def write(batch: DataFrame, _batch_id: int) -> None:
        with metrics.BATCH_SECONDS.labels(NAME).time():
            merge(batch)

    def merge(batch: DataFrame) -> None:
        rejections: list[str] = []
        latest = latest_records(batch).toLocalIterator()
        while chunk := [(row["key"], row["value"]) for row in islice(latest, _MAX_ROWS_PER_MERGE)]:
            changed, deleted = _by_table(chunk, rejections)
            require_held()
            for name, rows in changed.items():
                _merge(lake, table_named(name), rows)
            for name, ids in deleted.items():
                _delete(lake, table_named(name), ids)
        retention.apply_at_latest_window()
        if rejections:
            logger.warning(
                "%d records of topic %s are not valid rows and in no table; the first: %s",
                len(rejections), topic, rejections[0],
            )  # fmt: skip

    return (
        records.select("key", "value", "partition", "offset", "timestamp")
        .writeStream.queryName(NAME)
        .trigger(processingTime=trigger_interval(settings.materialise_interval))
        .option("checkpointLocation", f"{settings.checkpoints}/{NAME}")
        .foreachBatch(write)
        .start()
    )


def latest_records(records: DataFrame) -> DataFrame:
    """Return key and value of the latest record of each key.

    The latest is by offset within a partition, by append time across partitions. The value is null where that record
    has none.
    """
    of_record = F.struct("timestamp", "offset", "value")
    per_partition = records.groupBy("key", "partition").agg(F.max_by(of_record, "offset").alias("last"))
    latest = F.max_by("last.value", F.struct("last.timestamp", "last.offset")).alias("value")
    return per_partition.repartition(_PARTS, "key").groupBy("key").agg(latest)


def _by_table(
    records: Sequence[tuple[bytes | None, bytes | None]], rejections: list[str]
) -> tuple[dict[str, list[Row]], dict[str, list[str]]]:
    """Return changed rows and ids of deleted rows, by table; append the reasons against other records to `rejections`.

    The sink reads the rejected records too, and writes them to the dead letters.
    """
    changed: dict[str, list[Row]] = defaultdict(list)
    deleted: dict[str, list[str]] = defaultdict(list)
    for key, value in records:
        try:
            row_key = decode_key(bytes(key or b"").decode())
            if value is None:
                table_named(row_key.table).key_values(row_key.id)
                deleted[row_key.table].append(row_key.id)
            else:
                changed[row_key.table].append(read_row(row_key, bytes(value)))
        # Unknown keys and malformed UTF-8 raise subclasses of it.
        except ValueError as error:
            rejections.append(truncated(str(error), MAX_REASON_CHARACTERS))
    return changed, deleted


def read_row(key: RowKey, value: bytes) -> Row:
    """Parse a row; raises ValueError if the value is not a row of the table."""
    try:
        fields = json.loads(value.decode(), parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("the value is nested too deep") from None
    if not isinstance(fields, dict):
        raise ValueError("the value is not a JSON object")
    table = table_named(key.table)
    if table.key and (problem := table.key_problem(fields, key.id)):
        raise ValueError(problem)
    return {column.name: _convert(column, fields.get(column.name)) for column in table.columns}


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _convert(column: Column, value: object) -> object:
    if value is None:
        return None
    match column.type, value:
        case ColumnType.DATE, str():
            time = datetime.fromisoformat(value)
            # Without a time zone it is UTC, as in Elasticsearch.
            return time if time.tzinfo else time.replace(tzinfo=UTC)
        case ColumnType.KEYWORD, str():
            return value
        case ColumnType.FLAG, bool():
            return value
        case ColumnType.LONG, int() if not isinstance(value, bool) and -_LONG_LIMIT <= value < _LONG_LIMIT:
            return value
        case ColumnType.DOUBLE, int() | float() if not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            return float(value)
        case ColumnType.DECIMAL, int() | float() if not isinstance(value, bool) and _fits(column, value):
            # Of the column's places: Polars takes no exponent such as that of 1e-101.
            return Decimal(repr(value)).quantize(Decimal(1).scaleb(-column.places), context=_EXACT)
    raise ValueError(f"{column.name} is a {type(value).__name__} that is invalid in a {column.type.value} column")


def _fits(column: Column, value: float) -> bool:
    """Whether a number is one of the decimals of a column."""
    limit: int = 10 ** (STATE_DIGITS - column.places)
    return abs(value) < limit


def _merge(lake: Lake, table: Table, rows: Sequence[Row]) -> None:
    schema = {column.name: polars_type(column.type, column.places) for column in table.columns}
    merge_rows(lake, table, pl.DataFrame(rows, schema=schema))


def _delete(lake: Lake, table: Table, ids: Sequence[str]) -> None:
    if not table.key:
        lake.table(table.name).delete()
        return
    schema = {column.name: polars_type(column.type) for column in table.columns if column.name in table.key}
    keys = pl.DataFrame([table.key_values(row_id) for row_id in ids], schema=schema, orient="row")
    (
        lake.table(table.name)
        .merge(keys, same_key(table), source_alias="new", target_alias="old")
        .when_matched_delete()
        .execute()
    )
