"""Aggregates with Spark's own state store: for more keys than the memory of this process can hold.

Two further queries do it: one reads the lake and publishes the changed rows, one merges those into the tables.
"""

import time
from collections.abc import Callable
from typing import Final

from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from runtime.health import Health
from stream_processing import aggregate, materialise, progress
from stream_processing.aggregator import Append
from stream_processing.checkpoint import Checkpoint
from stream_processing.failures import describe_failure
from stream_processing.lake import Lake
from stream_processing.settings import StreamProcessingSettings

_HEAD_START: Final = 10.0
"""Maximum seconds for which the aggregate query's first batch runs before materialise starts: its rows are needed
sooner than the tables, and first batches slow each other down on a cold machine."""


class SparkAggregation:
    """The queries aggregate and materialise."""

    def __init__(
        self, session: SparkSession, settings: StreamProcessingSettings, lake: Lake, require_held: Callable[[], None]
    ) -> None:
        """`require_held` is called before rows are published, and before tables are written."""
        self._session = session
        self._require_held = require_held
        self._settings = settings
        self._lake = lake
        self._queries: list[StreamingQuery] = []
        self._head_start_ends = 0.0

    def start(self) -> None:
        """Start the aggregate query; materialise follows after its first batch, or after its head start."""
        self._queries.append(aggregate.start_aggregate(self._session, self._settings, self._lake, self._require_held))
        self._head_start_ends = time.monotonic() + _HEAD_START

    def put(self, append: Append) -> None:
        """Do nothing: the aggregate query polls the lake itself."""

    def first_needed_version(self) -> int:
        """Return the first version that Spark can still request.

        After a restart it requests its last batch once more, committed or not, which is an old one if no data has
        arrived since.
        """
        start = Checkpoint(self._session, f"{self._settings.checkpoints}/{aggregate.NAME}").start_of_last_batch()
        return 0 if start is None else min(int(source["reservoirVersion"]) for source in start)

    def report(self, state: Health) -> None:
        """Publish the progress and health of the queries."""
        if len(self._queries) == 1 and (
            self._queries[0].lastProgress is not None or time.monotonic() > self._head_start_ends
        ):
            self._queries.append(
                materialise.start_materialise(self._session, self._settings, self._lake, self._require_held)
            )
        for query in self._queries:
            progress.report(query, state)

    def failures(self) -> dict[str, str]:
        """Return the failed queries by name, and why each has failed."""
        return {query.name: describe_failure(query) for query in self._queries if not query.isActive}

    def stop(self) -> None:
        """Stop the queries."""
        for query in self._queries:
            query.stop()
