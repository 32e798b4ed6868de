"""The Delta tables: where they are, what columns they have, and what their history tells."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql.types import (
    DataType,
    DoubleType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from contract.tables import AGGREGATE_TABLES, INTERACTIONS, AggregateTable, ColumnType

INTERACTIONS_SCHEMA = StructType(
    [
        StructField("user_id", StringType()),
        StructField("item_id", StringType()),
        StructField("interaction_type", StringType()),
        StructField("timestamp", TimestampType()),
    ]
)

_SPARK_TYPES: dict[ColumnType, DataType] = {
    ColumnType.KEYWORD: StringType(),
    ColumnType.LONG: LongType(),
    ColumnType.DOUBLE: DoubleType(),
    ColumnType.DATE: TimestampType(),
}


def schema_of(table: AggregateTable) -> StructType:
    """The columns of an aggregate table as Spark has them."""
    return StructType([StructField(column.name, _SPARK_TYPES[column.type]) for column in table.columns])


@dataclass(frozen=True)
class Lake:
    """The warehouse: one Delta table per folder below it."""

    warehouse: str

    def path(self, table: str) -> str:
        """Where the table of that name is."""
        return f"{self.warehouse.rstrip('/')}/{table}"

    @property
    def interactions(self) -> str:
        """Where the interactions are."""
        return self.path(INTERACTIONS)

    def count(self, session: SparkSession) -> int:
        """The number of interactions; Delta's log tells it."""
        return session.read.format("delta").load(self.interactions).count()

    def has_interactions(self, session: SparkSession) -> bool:
        """Whether there is any interaction."""
        return not session.read.format("delta").load(self.interactions).isEmpty()

    def last_note(self, session: SparkSession) -> dict[str, Any] | None:
        """What the latest append that the history still knows says of itself."""
        history = DeltaTable.forPath(session, self.interactions).history()
        latest = history.where("userMetadata IS NOT NULL").orderBy("version", ascending=False).first()
        if latest is None:
            return None
        note: dict[str, Any] = json.loads(latest.userMetadata)
        return note

    def has(self, session: SparkSession, note: dict[str, Any]) -> bool:
        """Whether the latest append is the one with this note."""
        return self.last_note(session) == note

    def create_missing_tables(self, session: SparkSession) -> None:
        """Create the tables that do not exist; those that do are left as they are."""
        for name, schema, properties in _definitions():
            table = DeltaTable.createIfNotExists(session).location(self.path(name)).addColumns(schema)
            for key, value in properties.items():
                table = table.property(key, value)
            table.execute()


def _definitions() -> Iterator[tuple[str, StructType, dict[str, str]]]:
    # Statistics cost time on every append, and only a range of time is ever looked for.
    yield (
        INTERACTIONS,
        INTERACTIONS_SCHEMA,
        {
            "delta.appendOnly": "true",
            "delta.dataSkippingStatsColumns": "timestamp",
            # An append needs no state of the table, a checkpoint does: one per some minute of appends.
            "delta.checkpointInterval": "100",
        },
    )
    for table in AGGREGATE_TABLES:
        yield table.name, schema_of(table), {}
