"""Stores the counts of each key with the lake's version that they cover, and finds the files that were appended since.

A snapshot is a Delta table beside the checkpoints, replaced in one commit, which carries the version.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from contract.tables import Key
from runtime.commands import command
from stream_processing.keyed_state import KeyedState, empty_state
from stream_processing.lake import Lake, read_files, table_files
from stream_processing.lake_log import LakeLog, MissingLogEntryError
from stream_processing.measures import has_sketch, key_name
from stream_processing.settings import StreamProcessingSettings

_LAKE_VERSION: Final = "lakeVersion"
_LAKE_ENTRY: Final = "lakeEntry"
"""The digest of that version's log entry: a table that was restored, or created again, has other versions."""

_CLOCK: Final = "eventTime"
"""The counts' clock."""
_LEFT_UNTIL: Final = "windowsLeftUntil"
"""`KeyedState.left_until`."""
_HASHES: Final = "hashes"
"""The version of Polars: another one may have other hashes, with which the sketches cannot be united."""

_VACUUM_EVERY: Final = 20
"""Snapshots of a key after which the files of the replaced ones are deleted."""
_CONFIGURATION: Final = {
    "delta.checkpointInterval": str(_VACUUM_EVERY),
    "delta.logRetentionDuration": "interval 1 minutes",
}

logger = logging.getLogger(__name__)


def snapshots_folder(settings: StreamProcessingSettings) -> str:
    """Return the folder with the snapshots of all keys."""
    return f"{settings.checkpoints}/state"


class OtherLakeError(Exception):
    """The interactions table is not the one that a snapshot was taken from."""


class UnreadableSnapshotError(Exception):
    """The stored counts of a key cannot be read; the message has the remedy."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a key as of a version of the lake; `version` is None if there is no snapshot."""

    rows: pl.DataFrame
    version: int | None
    entry: str | None = None
    """The digest of that version's log entry."""
    clock: datetime | None = None
    left_until: datetime | None = None

    def state(self, key: Key) -> KeyedState:
        """Return the state of the key."""
        return KeyedState(key, self.rows, self.left_until)


class Snapshots:
    """The snapshots of all keys."""

    def __init__(self, folder: str, lake: Lake, log: LakeLog) -> None:
        self._folder = folder
        self._lake = lake
        self._log = log

    def load(self, key: Key, version: int, *, all_rows: bool = False) -> tuple[Snapshot, Sequence[str]]:
        """Return the latest snapshot of a key, and the files that the lake has at `version` and the snapshot does not.

        Without a snapshot, or a log that reaches back to it, the whole lake is counted again. So it is if `all_rows`
        are needed, and those of closed windows have left the state.
        """
        snapshot = Snapshot(empty_state(key), None) if all_rows and key.window else self._load(key)
        try:
            self._require_same_lake(snapshot, version)
            return snapshot, self._files_since(snapshot, version)
        except (OtherLakeError, MissingLogEntryError) as error:
            logger.warning("%s: all aggregates by %s are computed again", error, key_name(key))
            snapshot = Snapshot(empty_state(key), None)
            return snapshot, self._files_since(snapshot, version)

    def _load(self, key: Key) -> Snapshot:
        try:
            return self._read(key)
        except (DeltaError, pl.exceptions.PolarsError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UnreadableSnapshotError(
                f"the counts by {key_name(key)} in {self._path(key)} cannot be read ({reason}): if they are damaged,"
                f" run `{command('stream_processing', 'rebuild')}`, which computes them again from the lake"
            ) from error

    def _read(self, key: Key) -> Snapshot:
        path, options = self._path(key), self._lake.storage_options
        if not DeltaTable.is_deltatable(path, options):
            return Snapshot(empty_state(key), None)
        table = DeltaTable(path, storage_options=options)
        # A deletion of old files is a commit too.
        commit = next(commit for commit in table.history() if _LAKE_VERSION in commit)
        # The snapshot of an empty lake has none.
        files = table_files(table, path)
        expected = empty_state(key).schema
        rows = read_files(files, options, expected).collect()
        if dict(rows.schema) != dict(expected):
            logger.warning("the measures have changed: all aggregates by %s are computed again", key_name(key))
            return Snapshot(empty_state(key), None)
        rows = rows.select(expected.names())
        if has_sketch(key) and commit.get(_HASHES) != pl.__version__:
            logger.info("Polars has another version: all aggregates by %s are computed again", key_name(key))
            return Snapshot(empty_state(key), None)
        return Snapshot(
            rows,
            int(commit[_LAKE_VERSION]),
            commit.get(_LAKE_ENTRY),
            _time(commit.get(_CLOCK)),
            _time(commit.get(_LEFT_UNTIL)),
        )

    def _require_same_lake(self, snapshot: Snapshot, version: int) -> None:
        if snapshot.version is None:
            return
        entry = self._log.digest(snapshot.version)
        if snapshot.version > version or (snapshot.entry and entry and snapshot.entry != entry):
            raise OtherLakeError(
                f"{self._lake.interactions} is not the table that was counted up to its version {snapshot.version}"
            )

    def save(
        self,
        key: Key,
        rows: pl.DataFrame,
        version: int,
        clock: datetime | None = None,
        left_until: datetime | None = None,
    ) -> None:
        """Replace the snapshot of a key."""
        covered = {_LAKE_VERSION: str(version), _LAKE_ENTRY: self._log.digest(version) or "", _HASHES: pl.__version__}
        times = {_CLOCK: clock, _LEFT_UNTIL: left_until}
        covered |= {name: time.isoformat() for name, time in times.items() if time is not None}
        write_deltalake(
            self._path(key),
            rows,
            mode="overwrite",
            schema_mode="overwrite",
            configuration=_CONFIGURATION,
            storage_options=self._lake.storage_options,
            commit_properties=CommitProperties(custom_metadata=covered),
        )
        table = DeltaTable(self._path(key), storage_options=self._lake.storage_options)
        if table.version() % _VACUUM_EVERY == 0:
            # Only the start of this job reads them.
            table.vacuum(0, enforce_retention_duration=False, dry_run=False)

    def _files_since(self, snapshot: Snapshot, version: int) -> Sequence[str]:
        if snapshot.version is None:
            return self._lake.files()
        return list(self._log.added_files(range(snapshot.version + 1, version + 1)))

    def _path(self, key: Key) -> str:
        return f"{self._folder}/{key_name(key)}"


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
