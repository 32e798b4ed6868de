"""The Delta tables: where they are, what columns they have, and what their history tells."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from arro3.core import Table
from deltalake import CommitProperties, DeltaTable, Field, Schema, write_deltalake
from deltalake.schema import PrimitiveType
from pyspark.sql.types import StringType, StructField, StructType, TimestampType

from contract.tables import AGGREGATE_TABLES, INTERACTIONS, ColumnType
from stream_processing.arrow import arrow_column
from stream_processing.settings import StreamProcessingSettings

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
    storage_options: dict[str, str] = field(default_factory=dict, repr=False)
    """How delta-rs reaches the warehouse, where that is no folder."""

    @classmethod
    def of(cls, settings: StreamProcessingSettings) -> Self:
        """The warehouse that the settings name."""
        return cls(settings.warehouse, settings.storage_options)

    def table(self, name: str) -> DeltaTable:
        """The table of that name as it is now, for delta-rs; raises `TableNotFoundError`."""
        return DeltaTable(self.path(name), storage_options=self.storage_options)

    def path(self, table: str) -> str:
        """Where the table of that name is."""
        return f"{self.warehouse.rstrip('/')}/{table}"

    @property
    def interactions(self) -> str:
        """Where the interactions are."""
        return self.path(INTERACTIONS)

    def count(self) -> int:
        """The number of interactions; the table's log tells it."""
        return self.table(INTERACTIONS).count()

    def last_note(self) -> dict[str, Any] | None:
        """What the latest append that the history still knows says of itself."""
        for commit in self.table(INTERACTIONS).history():
            if "userMetadata" in commit:
                note: dict[str, Any] = json.loads(commit["userMetadata"])
                return note
        return None

    def has(self, note: dict[str, Any]) -> bool:
        """Whether the latest append is the one with this note."""
        return self.last_note() == note

    def leave_note(self, note: dict[str, Any]) -> None:
        """Leave a note in the history without any interaction; only while nobody else writes the table."""
        types = (*[ColumnType.KEYWORD] * 3, ColumnType.DATE)
        columns: dict[str, Any] = {
            name: arrow_column(kind, []) for name, kind in zip(INTERACTIONS_SCHEMA.names, types, strict=True)
        }
        nothing = Table.from_pydict(columns)
        said = CommitProperties(custom_metadata={"userMetadata": json.dumps(note, sort_keys=True)})
        write_deltalake(self.table(INTERACTIONS), nothing, mode="append", commit_properties=said)

    def renew_tables_of_another_form(self) -> None:
        """Empty the aggregate tables that have other columns than are declared now, and give them those."""
        for name, schema, _ in _definitions():
            path = self.path(name)
            if name == INTERACTIONS or not DeltaTable.is_deltatable(path, self.storage_options):
                continue
            if self.table(name).schema() != schema:
                DeltaTable.create(path, schema, mode="overwrite", storage_options=self.storage_options)

    def create_missing_tables(self) -> None:
        """Create the tables that do not exist; those that do are left as they are."""
        for name, schema, properties in _definitions():
            DeltaTable.create(
                self.path(name), schema, mode="ignore", configuration=properties, storage_options=self.storage_options
            )


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
