"""Deletes the rows of old windows, in tables that keep theirs for a limited time (`Table.keep`).

First from the topic, where a record without a value makes the sink delete the document, then from the Delta table. A
kill between the two repeats the first.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import polars as pl

from contract.declared import TABLES
from contract.tables import Table
from stream_processing.engines import POLARS
from stream_processing.event_time import event_time
from stream_processing.lake import Lake, files_with_bounds
from stream_processing.measures import record_key

logger = logging.getLogger(__name__)

_KEPT_BRIEFLY: Final = tuple(table for table in TABLES if table.keep is not None)


def is_expired(table: Table, clock: datetime | None) -> pl.Expr:
    """Whether a row of the table is older than the table keeps it."""
    if table.keep is None or table.key.window is None or clock is None:
        return pl.lit(False)
    return pl.col(table.key.window.name) <= clock - table.keep


class Retention:
    """Deletes old rows; `send` sends records without a value for these keys, and waits until Kafka has them."""

    def __init__(self, lake: Lake, send: Callable[[Sequence[str]], None]) -> None:
        self._lake = lake
        self._send = send

    def apply(self, clock: datetime | None) -> None:
        """Delete the rows that are too old at this time of the events."""
        for table in _KEPT_BRIEFLY:
            expired = self._expired(table, clock) if clock is not None else None
            if expired is not None and len(expired):
                self._send(expired.select(record_key(POLARS, table)).to_series().to_list())
                self._delete(table, expired)
                logger.info("deleted %d rows of %s that are older than %s", len(expired), table.name, table.keep)

    def apply_at_latest_window(self) -> None:
        """Delete the rows that are too old when the latest window of these tables starts."""
        starts = filter(None, map(self._latest_start, _KEPT_BRIEFLY))
        self.apply(max(starts, default=None))

    def _latest_start(self, table: Table) -> datetime | None:
        assert table.key.window is not None
        files = [file for file, _, _ in self._bounds(table)]
        return event_time(self._scan(files), table.key.window.name) if files else None

    def _expired(self, table: Table, clock: datetime) -> pl.DataFrame | None:
        """Return the keys of the rows that are too old; None if the log of the Delta table says that there are none."""
        assert table.key.window is not None
        assert table.keep is not None
        until = clock - table.keep
        files = [file for file, least, _ in self._bounds(table) if least is None or least <= until]
        if not files:
            return None
        return self._scan(files).filter(is_expired(table, clock)).select(table.key.columns).collect()

    def _scan(self, files: Sequence[str]) -> pl.LazyFrame:
        return pl.scan_parquet(list(files), glob=False, storage_options=self._lake.storage_options or None)

    def _bounds(self, table: Table) -> Iterator[tuple[str, datetime | None, datetime | None]]:
        """Return the files of a Delta table, with the least and greatest start of a window in each."""
        assert table.key.window is not None
        return files_with_bounds(self._lake.table(table.name), self._lake.path(table.name), table.key.window.name)

    def _delete(self, table: Table, expired: pl.DataFrame) -> None:
        assert table.key.window is not None
        name = table.key.window.name
        last = expired[name].max()
        assert isinstance(last, datetime)
        self._lake.table(table.name).delete(f"\"{name}\" <= '{last.astimezone(UTC).isoformat()}'")
