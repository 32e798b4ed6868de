"""The Delta tables: where they are and what columns they have."""

from collections.abc import Iterator
from dataclasses import dataclass

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

    def create_missing_tables(self, session: SparkSession) -> None:
        """Create the tables that do not exist; those that do are left as they are."""
        for name, schema, properties in _definitions():
            table = DeltaTable.createIfNotExists(session).location(self.path(name)).addColumns(schema)
            for key, value in properties.items():
                table = table.property(key, value)
            table.execute()


def _definitions() -> Iterator[tuple[str, StructType, dict[str, str]]]:
    # Statistics cost time on every append, and only a range of time is ever looked for.
    yield INTERACTIONS, INTERACTIONS_SCHEMA, {"delta.appendOnly": "true", "delta.dataSkippingStatsColumns": "timestamp"}
    for table in AGGREGATE_TABLES:
        yield table.name, schema_of(table), {}


def exists(session: SparkSession, path: str) -> bool:
    """Whether there is a file or folder at `path`, a path or any URI that Hadoop knows."""
    jvm = session._jvm
    assert jvm is not None
    folder = jvm.org.apache.hadoop.fs.Path(path)
    return bool(folder.getFileSystem(session._jsc.hadoopConfiguration()).exists(folder))
