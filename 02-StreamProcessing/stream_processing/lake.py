"""The Delta tables: where they are, what columns they have, and what their history tells."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable as SparkDeltaTable
from deltalake import DeltaTable, Field, Schema
from deltalake.schema import PrimitiveType
from pyspark.sql import SparkSession
from pyspark.sql.types import StringType, StructField, StructType, TimestampType

from contract.tables import AGGREGATE_TABLES, INTERACTIONS, ColumnType

INTERACTIONS_SCHEMA = StructType(
    [
        StructField("user_id", StringType()),
        StructField("item_id", StringType()),
        StructField("interaction_type", StringType()),
        StructField("timestamp", TimestampType()),
    ]
)

_DELTA_TYPES: dict[ColumnType, str] = {
    ColumnType.KEYWORD: "string",
    ColumnType.LONG: "long",
    ColumnType.DOUBLE: "double",
    ColumnType.DATE: "timestamp",
}


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
        history = SparkDeltaTable.forPath(session, self.interactions).history()
        latest = history.where("userMetadata IS NOT NULL").orderBy("version", ascending=False).first()
        if latest is None:
            return None
        note: dict[str, Any] = json.loads(latest.userMetadata)
        return note

    def has(self, session: SparkSession, note: dict[str, Any]) -> bool:
        """Whether the latest append is the one with this note."""
        return self.last_note(session) == note

    def create_missing_tables(self) -> None:
        """Create the tables that do not exist; those that do are left as they are."""
        for name, schema, properties in _definitions():
            DeltaTable.create(self.path(name), schema, mode="ignore", configuration=properties)


def _definitions() -> Iterator[tuple[str, Schema, dict[str, str]]]:
    yield (
        INTERACTIONS,
        Schema.from_json(INTERACTIONS_SCHEMA.json()),
        {
            "delta.appendOnly": "true",
            # Statistics cost time on every append, and only a range of time is ever looked for.
            "delta.dataSkippingStatsColumns": "timestamp",
            # An append needs no state of the table, a checkpoint does: one in a hundred appends writes one.
            "delta.checkpointInterval": "100",
        },
    )
    for table in AGGREGATE_TABLES:
        fields = [Field(column.name, PrimitiveType(_DELTA_TYPES[column.type])) for column in table.columns]
        yield table.name, Schema(fields), {}
