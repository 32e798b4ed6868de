"""Keeps the lake small while the job runs: compacts small files, removes old versions and old log entries.

A round does not block any batch. Compaction changes no data, so the aggregation skips it; removed files and
entries are older than any that a reader, the aggregation or its next start can still need.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

from delta.tables import DeltaTable as SparkDeltaTable
from pyspark.sql import SparkSession

from contract.declared import TABLES
from stream_processing import metrics
from stream_processing.lake import Lake
from stream_processing.settings import StreamProcessingSettings
from stream_processing.spark_internals import remove_expired_log_entries
from stream_processing.storage import modified_at

_COMPACTION_INTERVAL: Final = 20.0
"""Seconds between checks of the number of small files."""

logger = logging.getLogger(__name__)

_MAX_FILE_BYTES: Final = 64 << 20
"""The size that a compacted file can reach."""
_MAX_READ_MINUTES: Final = 60.0
"""The time for which a file can still be read after a newer version has replaced it."""


class Maintenance:
    """Rounds of maintenance in a thread of its own; a round that fails is logged, and the next one tries again."""

    def __init__(
        self,
        session: SparkSession,
        settings: StreamProcessingSettings,
        lake: Lake,
        first_needed_version: Callable[[], int],
        require_held: Callable[[], None],
    ) -> None:
        """`first_needed_version` returns the first version of the lake that the aggregation can still read.

        `require_held` is called before each round.
        """
        # A session of its own: its configuration does not affect the query.
        self._session = session.newSession()
        self._session.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
        # Spark's commit of a version is no atomic step on every file system: beside ingest, it could replace an append.
        self._session.conf.set("spark.databricks.delta.vacuum.logging.enabled", "false")
        # A vacuum lists the table's folder in 200 tasks by default.
        self._session.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", "2")
        self._settings = settings
        self._lake = lake
        self._first_needed_version = first_needed_version
        self._require_held = require_held

    def start(self, stop: threading.Event) -> threading.Thread:
        """Start the rounds, which end when `stop` is set."""

        def rounds() -> None:
            next_round = time.monotonic() + self._settings.upkeep_interval
            while not stop.wait(min(_COMPACTION_INTERVAL, self._settings.upkeep_interval)):
                try:
                    self._require_held()
                    metrics.set_lake_size(self._lake.compact_small_files())
                    if time.monotonic() >= next_round:
                        next_round = time.monotonic() + self._settings.upkeep_interval
                        self.run_once()
                except Exception as error:
                    if not stop.is_set():
                        metrics.MAINTENANCE_FAILURES.inc()
                        logger.warning("maintenance failed, the next round tries again: %s", error)

        thread = threading.Thread(target=rounds, name="maintenance", daemon=True)
        thread.start()
        return thread

    def run_once(self) -> None:
        """Run one round over all tables."""
        started = time.monotonic()
        interactions = SparkDeltaTable.forPath(self._session, self._lake.interactions)
        self._lake.compact(_MAX_FILE_BYTES)
        if self._is_old_history_needed():
            logger.info("old files and log entries are kept: the aggregates do not cover them yet")
        else:
            interactions.vacuum(self._retention_hours)
            # Delta Lake removes entries itself at the granularity of days: a folder that every batch lists would
            # hold 200,000 of them.
            remove_expired_log_entries(self._session, self._lake.interactions, self._minutes_to_keep())
        self._clean_aggregate_tables()
        sizes = self._lake.file_sizes()
        metrics.set_lake_size(sizes)
        seconds = time.monotonic() - started
        metrics.MAINTENANCE_SECONDS.observe(seconds)
        logger.info(
            "maintenance took %.1f s: table interactions has %d files, %.1f MB in total",
            seconds, len(sizes), sum(sizes) / (1 << 20),
        )  # fmt: skip

    def _clean_aggregate_tables(self) -> None:
        for table in TABLES:
            delta = self._lake.table(table.name)
            delta.vacuum(self._retention_hours, enforce_retention_duration=False, dry_run=False)
            delta.create_checkpoint()
            delta.cleanup_metadata()

    @property
    def _retention_hours(self) -> int:
        # A vacuum rounds to whole hours; 0 would delete files that are being written.
        return math.ceil(max(self._settings.lake_history, _MAX_READ_MINUTES) / 60)

    def _minutes_to_keep(self) -> float:
        """Return the minutes for which log entries are kept: those of the latest appends stay, however old they are."""
        first = self._lake.first_version_to_keep()
        written = None if first is None else self._written_at(first)
        age = 0.0 if written is None else (time.time() - written) / 60
        # Delta Lake rounds to minutes.
        return max(self._settings.lake_history, age + 1)

    def _written_at(self, version: int) -> float | None:
        return modified_at(self._session, f"{self._lake.interactions}/_delta_log/{version:020d}.json")

    def _is_old_history_needed(self) -> bool:
        """Whether the aggregation can still read log entries that are older than the history to keep."""
        written = self._written_at(self._first_needed_version())
        return written is not None and time.time() - written > self._settings.lake_history * 60
