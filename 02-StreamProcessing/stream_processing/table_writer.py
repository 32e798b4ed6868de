"""Brings the aggregate tables up to the counts, in a thread of its own and at an interval of its own.

The changed rows are merged first. Then a snapshot of the counts is stored, with the lake's version that they cover: a
restart continues from there. So a row that a crash keeps from a table is changed again by the restart. A repeated merge
changes nothing.
"""

import threading
import time
from collections.abc import Callable

import polars as pl

from contract.tables import AGGREGATE_TABLES
from stream_processing.counts import CountsCheckpoint
from stream_processing.engines import POLARS
from stream_processing.keyed_state import publishable
from stream_processing.lake import Lake, merge_rows
from stream_processing.measures import row_columns
from stream_processing.snapshots import Snapshots

_SNAPSHOT_SHARE = 0.05
"""The maximum share of the time in which snapshots are stored: of a million keys, one takes a second."""


class TableWriter:
    """Writes tables and snapshots."""

    def __init__(self, lake: Lake, snapshots: Snapshots) -> None:
        self._lake = lake
        self._snapshots = snapshots
        self._saved_version: int | None = None
        self._next_snapshot = 0.0

    def write(self, checkpoint: CountsCheckpoint, flush: Callable[[], None]) -> bool:
        """Merge the changed rows, and store a snapshot if one is due; returns whether snapshots have this version.

        `flush` waits until Kafka has all rows of the checkpoint: a restart would not publish them again.
        """
        for key, changed in checkpoint.changed.items():
            rows = publishable(key, checkpoint.states[key].filter(pl.col(key).is_in(changed.implode())))
            for table in AGGREGATE_TABLES:
                if table.key == key and len(rows):
                    merge_rows(self._lake, table, rows.select(**row_columns(POLARS, table)))
        if checkpoint.changed and checkpoint.overall is not None:
            for table in AGGREGATE_TABLES:
                if table.key is None:
                    merge_rows(self._lake, table, checkpoint.overall.select(**row_columns(POLARS, table)))
        started = time.monotonic()
        if checkpoint.version == self._saved_version:
            return True
        if started < self._next_snapshot:
            return False
        flush()
        for key, rows in checkpoint.states.items():
            self._snapshots.save(key, rows, checkpoint.version)
        self._saved_version = checkpoint.version
        finished = time.monotonic()
        self._next_snapshot = finished + (finished - started) / _SNAPSHOT_SHARE
        return True


def run_every(seconds: float, stop: threading.Event, action: Callable[[], object]) -> None:
    """Call `action` at an interval until `stop` is set, and once more then."""
    while not stop.wait(seconds):
        action()
    action()
