"""Publishes the progress of a streaming query as metrics and health."""

import json
from collections.abc import Mapping
from typing import Any

from pyspark.sql.streaming.query import StreamingQuery

from runtime.health import Health
from stream_processing import metrics


def report(query: StreamingQuery, health: Health) -> None:
    """Publish the last batch's figures. A query that has ended is unhealthy, with its exception as the reason."""
    if not query.isActive:
        health.failing(query.name, str(query.exception() or "stopped"))
        return
    health.ok(query.name)
    progress = query.lastProgress
    if progress is None:
        return
    metrics.BATCHES.labels(query.name).set(progress["batchId"] + 1)
    metrics.BATCH_ROWS.labels(query.name).set(progress["numInputRows"])
    metrics.BATCH_SECONDS.labels(query.name).set(progress["durationMs"]["triggerExecution"] / 1000)
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
