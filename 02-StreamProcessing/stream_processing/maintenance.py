"""Keeps the lake small beside the running queries: small files put together, old versions and old logs removed.

Nothing here is in the way of a batch. Putting files together changes no data, so the aggregate query, which reads the
table as a stream, does not see it; what is removed is older than what any reader or query may still be at.
"""

import logging
import math
import threading
import time
from typing import Final

from delta.tables import DeltaTable as SparkDeltaTable
from pyspark.sql import SparkSession

from contract.tables import AGGREGATE_TABLES
from stream_processing import aggregate, metrics
from stream_processing.checkpoint import Checkpoint
from stream_processing.lake import Lake
from stream_processing.settings import StreamProcessingSettings
from stream_processing.storage import modified_at

logger = logging.getLogger(__name__)

_SMALL: Final = 16 << 20
"""Bytes; a file of at least this size is left alone, so that a round rewrites what is new and not what is old."""
_LARGE: Final = 64 << 20
"""Bytes; what a file put together may reach."""
_SLOWEST_READER: Final = 60.0
"""Minutes that a file may still be read after a newer version has replaced it."""


class Upkeep:
    """Rounds of upkeep in a thread of its own; a round that fails is told, and the next one tries again."""

    def __init__(self, session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> None:
        # A session of its own: what is set here is of no concern to the queries.
        self._session = session.newSession()
        self._session.conf.set("spark.databricks.delta.optimize.minFileSize", str(_SMALL))
        self._session.conf.set("spark.databricks.delta.optimize.maxFileSize", str(_LARGE))
        self._session.conf.set("spark.databricks.delta.optimize.maxThreads", "1")
        self._session.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
        # A vacuum lists the table's folder in 200 tasks by default.
        self._session.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", "2")
        self._settings = settings
        self._lake = lake

    def start(self, stop: threading.Event) -> threading.Thread:
        """Start the rounds, which end when `stop` is set."""

        def rounds() -> None:
            while not stop.wait(self._settings.upkeep_interval):
                try:
                    self.round()
                except Exception as error:
                    if not stop.is_set():
                        logger.warning("a round of upkeep failed, the next one tries again: %s", error)

        thread = threading.Thread(target=rounds, name="upkeep", daemon=True)
        thread.start()
        return thread

    def round(self) -> None:
        """One round over all tables."""
        began = time.monotonic()
        interactions = SparkDeltaTable.forPath(self._session, self._lake.interactions)
        interactions.optimize().executeCompaction()
        if self._is_old_history_needed():
            logger.info("old files and log entries are kept: the aggregate query's last batch begins there")
        else:
            interactions.vacuum(self._hours_kept)
            self._remove_old_log_entries()
        for table in AGGREGATE_TABLES:
            delta = self._lake.table(table.name)
            delta.vacuum(self._hours_kept, enforce_retention_duration=False, dry_run=False)
            delta.create_checkpoint()
            delta.cleanup_metadata()
        detail = interactions.detail().select("numFiles", "sizeInBytes").first()
        assert detail is not None
        metrics.LAKE_FILES.set(detail["numFiles"])
        metrics.LAKE_BYTES.set(detail["sizeInBytes"])
        logger.info(
            "upkeep took %.1f s: the interactions are %d files of %.1f MB in all",
            time.monotonic() - began, detail["numFiles"], detail["sizeInBytes"] / (1 << 20),
        )  # fmt: skip

    @property
    def _hours_kept(self) -> int:
        # A vacuum rounds to whole hours; none at all would take files that are being written.
        return math.ceil(max(self._settings.lake_history, _SLOWEST_READER) / 60)

    def _is_old_history_needed(self) -> bool:
        """Whether the aggregate query may still ask for entries of the log that are older than the history to keep.

        It does where it is far behind; and after a start Spark asks for its last batch once more, committed or not,
        which is an old one where nothing has arrived since.
        """
        start = Checkpoint(self._session, f"{self._settings.checkpoints}/{aggregate.NAME}").start_of_last_batch()
        first = 0 if start is None else min(int(source["reservoirVersion"]) for source in start)
        written = modified_at(self._session, f"{self._lake.interactions}/_delta_log/{first:020d}.json")
        return written is not None and time.time() - written > self._settings.lake_history * 60

    def _remove_old_log_entries(self) -> None:
        """Remove the entries of the log that a checkpoint covers and that are older than the history to keep.

        Delta itself does so by whole days; by then a folder that every batch lists would hold 200,000 of them.
        """
        jvm, gateway = self._session._jvm, self._session.sparkContext._gateway
        assert jvm is not None
        assert gateway is not None
        log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self._session._jsparkSession, self._lake.interactions)
        log.checkpoint()
        milliseconds = gateway.new_array(jvm.long, 1)
        milliseconds[0] = int(self._settings.lake_history * 60_000)
        retention = jvm.scala.Predef.wrapLongArray(milliseconds).headOption()
        minute = getattr(jvm.org.apache.spark.sql.delta, "TruncationGranularity$").__getattr__("MODULE$").MINUTE()
        log.cleanUpExpiredLogs(log.unsafeVolatileSnapshot(), retention, minute)
