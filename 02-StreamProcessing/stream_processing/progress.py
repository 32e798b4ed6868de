"""Publishes the progress of a streaming query as metrics and health."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from pyspark.sql.streaming.query import StreamingQuery

from runtime.health import Health
from stream_processing import metrics

_BATCH_SECONDS: Final = 60.0
_RECORDS_PER_SECOND: Final = 5_000
"""A batch is stuck if it takes longer than this, and longer than its records take at a hundredth of the usual rate."""


class RunningBatch:
    """The batch that a query is working on: Spark reports a batch only when it has finished."""

    def __init__(self) -> None:
        self._started = 0.0
        self._records = 0
        self.finished: Mapping[str, int] = {}
        """The next offset of each partition after the last batch that has finished; empty: not known."""

    @contextmanager
    def of(self, records: int) -> Iterator[None]:
        """Take the `with` block for the work on a batch of this many records."""
        self._started, self._records = time.monotonic(), records
        try:
            yield
        finally:
            self._records = 0

    def overdue(self) -> tuple[int, float] | None:
        """Return the records of the batch and its seconds so far if it is stuck."""
        records, seconds = self._records, time.monotonic() - self._started
        return (records, seconds) if records and seconds > _BATCH_SECONDS + records / _RECORDS_PER_SECOND else None


def report(query: StreamingQuery, health: Health, running: RunningBatch | None = None) -> None:
    """Publish the last batch's figures.

    A query that has ended is unhealthy, with its exception as the reason, and one whose `running` batch is stuck.
    """
    if not query.isActive:
        health.failing(query.name, str(query.exception() or "stopped"))
        return
    progress = query.lastProgress
    if running is not None and (overdue := running.overdue()):
        records, seconds = overdue
        health.failing(
            query.name,
            f"no batch has finished for {seconds:.0f} s although records are waiting ({records}): check that Kafka and"
            " the storage of the lake respond",
        )
        lag = 0 if progress is None else sum(map(source_lag, progress["sources"]))
        metrics.LAG.labels(query.name).set(max(lag, records))
        return
    health.ok(query.name)
    if progress is None:
        return
    metrics.FINISHED_BATCH.labels(query.name).set(progress["batchId"])
    metrics.LAST_BATCH_ROWS.labels(query.name).set(progress["numInputRows"])
    metrics.LAST_BATCH_SECONDS.labels(query.name).set(progress["durationMs"]["triggerExecution"] / 1000)
    metrics.LAG.labels(query.name).set(sum(map(source_lag, progress["sources"])))


def source_lag(source: Mapping[str, Any]) -> int:
    """Return the number of records of a source that the query has not processed, from Spark's progress of the source.

    >>> source_lag({"endOffset": {"t": {"0": 5}}, "latestOffset": {"t": {"0": 7, "1": 3}}})
    5
    """
    processed, latest = _offsets(source["endOffset"]), _offsets(source["latestOffset"])
    return sum(max(0, offset - processed.get(partition, 0)) for partition, offset in latest.items())


def _offsets(offset: Any) -> dict[tuple[str, str], int]:
    """Return offsets by topic and partition; empty for a source other than Kafka."""
    value = json.loads(offset) if isinstance(offset, str) else offset
    if not isinstance(value, dict):
        return {}
    return {
        (topic, partition): int(position)
        for topic, partitions in value.items()
        if isinstance(partitions, dict)
        for partition, position in partitions.items()
    }
