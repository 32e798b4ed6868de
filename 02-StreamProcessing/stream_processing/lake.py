"""The Delta tables: locations, schemas, and the append info in the history of the interactions table."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, Self

import polars as pl
from arro3.core import Table as ArrowTable
from deltalake import CommitProperties, DeltaTable, Field, Schema, WriterProperties, write_deltalake
from deltalake.schema import PrimitiveType

from contract.declared import EVENT, TABLES
from contract.fields import MAX_DECIMAL_DIGITS
from contract.tables import Table
from stream_processing.engines import lake_type, polars_type, spark_type
from stream_processing.settings import StreamProcessingSettings

EVENT_FRAME: Final = pl.Schema(
    {field.name: polars_type(field.column_type, field.places, MAX_DECIMAL_DIGITS) for field in EVENT.fields}
)
"""The columns of the table of events as a Polars schema."""
_EVENT_SCHEMA: Final = Schema([Field(field.name, PrimitiveType(lake_type(field))) for field in EVENT.fields])

_WRITER_PROPERTIES: Final = WriterProperties(compression="ZSTD")
_MAX_SMALL_FILES: Final = 100
"""A commit without Spark costs 50 microseconds for each file of the table."""
_SMALL_FILE_BYTES: Final = 4 << 20

ACCEPT_GAP: Final = "accept-gap"
"""The `query` of an append without rows, which the command of that name writes."""
_OF_ACCEPT_GAP: Final = f'"query": "{ACCEPT_GAP}"'
"""Part of the metadata of such an append."""
_LATEST_COMMITS: Final = 20
"""Commits that have two appends, unless maintenance and `accept-gap` have written many since."""
NO_CHECKPOINT: Final = "no checkpoint"
"""The query that such an append replaces if there was none."""


@dataclass(frozen=True)
class AppendInfo:
    """Identifies an append to the interactions table, in the user metadata of its commit."""

    query: str
    """The id of the streaming query."""
    batch: int
    topic_id: str
    offsets: dict[str, dict[str, int]]
    """The end offsets of the batch, by topic and partition."""
    replaces: str = ""
    """The id of the query whose checkpoint `accept-gap` deletes, or `NO_CHECKPOINT`; empty in those of earlier
    releases, and in appends."""

    def to_json(self) -> str:
        """Return the commit's user metadata."""
        fields = asdict(self)
        if not self.replaces:
            del fields["replaces"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, user_metadata: str) -> Self:
        """Parse the commit's user metadata; raises KeyError for metadata that another writer has left."""
        fields: dict[str, Any] = json.loads(user_metadata)
        return cls(
            str(fields["query"]),
            fields["batch"],
            str(fields["topic_id"]),
            fields["offsets"],
            fields.get("replaces", ""),
        )


@dataclass(frozen=True)
class Lake:
    """The warehouse: one Delta table per folder."""

    warehouse: str
    storage_options: dict[str, str] = field(default_factory=dict, repr=False)
    """Options with which delta-rs accesses an object store."""

    @classmethod
    def of(cls, settings: StreamProcessingSettings) -> Self:
        """Return the warehouse of these settings."""
        return cls(settings.warehouse, settings.storage_options)

    def table(self, name: str) -> DeltaTable:
        """Open the current version of a table with delta-rs; raises `TableNotFoundError`."""
        return DeltaTable(self.path(name), storage_options=self.storage_options)

    def path(self, table: str) -> str:
        """Return the location of a table."""
        return f"{self.warehouse.rstrip('/')}/{table}"

    @property
    def interactions(self) -> str:
        """The location of the interactions table."""
        return self.path(EVENT.name)

    def version(self) -> int:
        """Return the current version of the interactions table."""
        return self.table(EVENT.name).version()

    def files(self) -> list[str]:
        """Return the locations of the current files of the interactions table."""
        return table_files(self.table(EVENT.name), self.interactions)

    def events_of_windows(self, starts: Sequence[datetime], size: timedelta, version: int) -> pl.LazyFrame:
        """Return the events, as of a version, of all files that can have some in the windows that start then."""
        table = DeltaTable(self.interactions, version=version, storage_options=self.storage_options)
        starts = sorted(starts)

        def can_have(least: datetime | None, most: datetime | None) -> bool:
            if least is None or most is None:
                return True
            # The first window that ends after the file's first event.
            n = bisect_left(starts, least - size + timedelta.resolution)
            return n < len(starts) and starts[n] <= most

        files = files_with_bounds(table, self.interactions, EVENT.time)
        return scan_events([file for file, least, most in files if can_have(least, most)], self.storage_options)

    def count(self) -> int:
        """Return the number of interactions, from the table's log."""
        return self.table(EVENT.name).count()

    def file_sizes(self) -> list[int]:
        """Return the bytes of each file of the interactions table, from the table's log."""
        return [int(size) for size in self.table(EVENT.name).get_add_actions(flatten=True)["size_bytes"].to_pylist()]

    def last_append(self) -> AppendInfo | None:
        """Return the info of the latest append; None if the table's history does not reach back to one."""
        return next(iter(self.latest_appends(1)), None)

    def latest_appends(self, limit: int) -> list[AppendInfo]:
        """Return the info of the latest appends that the table's history has, the last one first."""
        history = (commit for commit in self.table(EVENT.name).history() if "userMetadata" in commit)
        return [AppendInfo.from_json(commit["userMetadata"]) for commit in islice(history, limit)]

    def first_version_to_keep(self) -> int | None:
        """Return the version of the append before the last one with rows; of the first one that the history has.

        A start compares the last append with the checkpoint, and its records with the dead letters.
        """
        table, version = self.table(EVENT.name), None
        # All of it has thousands of commits.
        for limit in (_LATEST_COMMITS, None):
            with_rows = False
            for commit in table.history(limit):
                if "userMetadata" in commit:
                    version = int(commit["version"])
                    if with_rows:
                        return version
                    # As text: another writer may have left metadata of its own.
                    with_rows = _OF_ACCEPT_GAP not in commit["userMetadata"]
        return version

    def has_append(self, info: AppendInfo) -> bool:
        """Whether the latest append is this one."""
        return self.last_append() == info

    def compact_small_files(self) -> list[int]:
        """Compact the files of recent appends if there are many; it takes a fraction of a second, without Spark.

        Returns the bytes of each file of the interactions table.
        """
        sizes = self.file_sizes()
        if sum(size < _SMALL_FILE_BYTES for size in sizes) <= _MAX_SMALL_FILES:
            return sizes
        self.compact(_SMALL_FILE_BYTES)
        return self.file_sizes()

    def compact(self, target_bytes: int) -> None:
        """Rewrite the files of the interactions table that are smaller, into files of about this size.

        Not by Spark, whose commit of a version is no atomic step on every file system: it could replace the version
        of an append that was committed at the same moment. This commit can be replaced, and then changes nothing.
        """
        self.table(EVENT.name).optimize.compact(
            target_size=target_bytes, max_concurrent_tasks=1, writer_properties=_WRITER_PROPERTIES
        )

    def write_marker(self, info: AppendInfo) -> None:
        """Commit an append without rows that carries this info; only while no job writes the table."""
        properties = CommitProperties(custom_metadata={"userMetadata": info.to_json()})
        rows = pl.DataFrame(schema=EVENT_FRAME)
        write_deltalake(self.table(EVENT.name), rows, mode="append", commit_properties=properties)

    def add_missing_event_columns(self) -> None:
        """Add the columns of new fields to the table of events; its rows have null there."""
        table = self.table(EVENT.name)
        existing = {field.name for field in table.schema().fields}
        if new := [field for field in _EVENT_SCHEMA.fields if field.name not in existing]:
            table.alter.add_columns(new)

    def recreate_changed_tables(self) -> None:
        """Recreate, empty, the aggregate tables whose columns differ from their declaration."""
        for name, schema, _ in _definitions():
            path = self.path(name)
            if name == EVENT.name or not DeltaTable.is_deltatable(path, self.storage_options):
                continue
            if self.table(name).schema() != schema:
                DeltaTable.create(path, schema, mode="overwrite", storage_options=self.storage_options)

    def create_missing_tables(self) -> None:
        """Create the tables that do not exist; existing ones are not changed."""
        for name, schema, properties in _definitions():
            DeltaTable.create(
                self.path(name), schema, mode="ignore", configuration=properties, storage_options=self.storage_options
            )


def table_files(table: DeltaTable, location: str) -> list[str]:
    """Return the locations of a table's files; `DeltaTable.file_uris` would escape characters of the folder."""
    return [f"{location}/{path}" for path in table.get_add_actions(flatten=True)["path"].to_pylist()]


def files_with_bounds(
    table: DeltaTable, location: str, column: str
) -> Iterator[tuple[str, datetime | None, datetime | None]]:
    """Yield the location of each file of a table, and the least and greatest time of a column; None if not known."""
    actions = table.get_add_actions(flatten=True)
    known = set(actions.schema.names)
    least, most = (
        actions[name].to_pylist() if name in known else [None] * actions.num_rows
        for name in (f"min.{column}", f"max.{column}")
    )
    return zip(table_files(table, location), least, most, strict=True)


def scan_events(files: Sequence[str], storage_options: dict[str, str]) -> pl.LazyFrame:
    """Return the events in files of the lake's table, which may be older than some fields."""
    optional = [field for field in EVENT.fields if field.optional]
    if not optional or not files:
        return read_files(files, storage_options)
    events = pl.scan_parquet(
        list(files), glob=False, storage_options=storage_options or None, schema=EVENT_FRAME, missing_columns="insert"
    )
    defaults = [field for field in optional if field.default is not None]
    return events.with_columns(
        pl.col(field.name).fill_null(pl.lit(field.default, EVENT_FRAME[field.name])) for field in defaults
    )


def read_files(files: Sequence[str], storage_options: dict[str, str], schema: pl.Schema = EVENT_FRAME) -> pl.LazyFrame:
    """Return the rows of Parquet files; none, with this schema, of no files."""
    if not files:
        return pl.LazyFrame(schema=schema)
    return pl.scan_parquet(list(files), glob=False, storage_options=storage_options or None)


def same_key(table: Table) -> str:
    """Return the condition under which a row `new` replaces a row `old`."""
    return " AND ".join(f'old."{name}" = new."{name}"' for name in table.key)


def merge_rows(lake: Lake, table: Table, rows: pl.DataFrame | ArrowTable) -> None:
    """Merge rows into an aggregate table; a repeated merge changes nothing."""
    if not table.key:
        write_deltalake(lake.table(table.name), rows, mode="overwrite")
        return
    (
        lake.table(table.name)
        .merge(rows, same_key(table), source_alias="new", target_alias="old")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


def append_rows(table: DeltaTable, interactions: pl.DataFrame, info: AppendInfo) -> None:
    """Append interactions in one commit, which carries `info`, and bring `table` to a version that has it."""
    table.update_incremental()
    write_deltalake(
        table,
        interactions,
        mode="append",
        writer_properties=_WRITER_PROPERTIES,
        commit_properties=CommitProperties(custom_metadata={"userMetadata": info.to_json()}),
    )


def _definitions() -> Iterator[tuple[str, Schema, dict[str, str]]]:
    yield (
        EVENT.name,
        _EVENT_SCHEMA,
        {
            "delta.appendOnly": "true",
            # Statistics cost time on every append, and queries filter by time only.
            "delta.dataSkippingStatsColumns": EVENT.time,
            # An append needs no snapshot of the table, a checkpoint does: one in a hundred appends writes one.
            "delta.checkpointInterval": "100",
        },
    )
    for table in TABLES:
        columns = [Field(each.name, PrimitiveType(spark_type(each.type, each.places))) for each in table.columns]
        yield table.name, Schema(columns), {}
