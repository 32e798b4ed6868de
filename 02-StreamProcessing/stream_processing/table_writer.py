"""Brings the aggregate tables up to the counts, in a thread of its own and at an interval of its own.

The changed rows are merged first. Then a snapshot of the counts is stored, with the lake's version that they cover: a
restart continues from there. So a row that a crash keeps from a table is changed again by the restart. A repeated merge
changes nothing.
"""

import threading
import time
from collections.abc import Callable

from stream_processing import metrics
from stream_processing.counts import CountedVersion
from stream_processing.engines import POLARS
from stream_processing.keyed_state import publishable, stored_rows
from stream_processing.lake import Lake, merge_rows
from stream_processing.measures import row_columns, tables_of
from stream_processing.retention import Retention
from stream_processing.snapshots import Snapshots

_SNAPSHOT_SHARE = 0.05
"""The maximum share of the time in which snapshots are stored: of a million keys, one takes a second."""


class TableWriter:
    """Writes tables and snapshots."""

    def __init__(self, lake: Lake, snapshots: Snapshots, retention: Retention) -> None:
        self._lake = lake
        self._retention = retention
        self._snapshots = snapshots
        self._saved_version: int | None = None
        self._next_snapshot = 0.0

    def write(self, counted: CountedVersion, flush: Callable[[], None]) -> bool:
        """Merge the changed rows, and store a snapshot if one is due; returns whether snapshots have this version.

        `flush` waits until Kafka has all rows of these counts: a restart would not publish them again.
        """
        with metrics.PHASE_SECONDS.labels("merge").time():
            self._merge(counted)
            self._retention.apply(counted.clock)
        started = time.monotonic()
        if counted.version == self._saved_version:
            return True
        if started < self._next_snapshot:
            return False
        flush()
        with metrics.PHASE_SECONDS.labels("snapshot").time():
            for key, rows in counted.rows.items():
                self._snapshots.save(key, stored_rows(rows), counted.version, counted.clock, counted.left_until[key])
        self._saved_version = counted.version
        finished = time.monotonic()
        self._next_snapshot = finished + (finished - started) / _SNAPSHOT_SHARE
        return True

    def _merge(self, counted: CountedVersion) -> None:
        for key in counted.rows:
            rows = publishable(counted.changed_rows(key))
            for table in tables_of(key):
                # Old ones too: those that were published are deleted from the topic as they are from the table.
                if len(rows):
                    merge_rows(self._lake, table, rows.select(**row_columns(POLARS, table)))


def run_every(seconds: float, stop: threading.Event, action: Callable[[], object]) -> None:
    """Call `action` at an interval until `stop` is set, and once more then."""
    while not stop.wait(seconds):
        action()
    action()
