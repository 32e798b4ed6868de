"""Turns what Spark says of a query's progress into metrics and health."""

import json
from typing import Any

from pyspark.sql.streaming.query import StreamingQuery

from runtime.health import Health
from stream_processing import metrics


def report(query: StreamingQuery, health: Health) -> None:
    """Publish the last batch's figures. A query that has ended counts as failing, with its exception."""
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
    lags = [_records_behind(source) for source in progress["sources"]]
    metrics.LAG.labels(query.name).set(sum(lags))


def _records_behind(source: dict[str, Any]) -> int:
    done, latest = _offsets(source["endOffset"]), _offsets(source["latestOffset"])
    return sum(max(0, offset - done.get(partition, 0)) for partition, offset in latest.items())


def _offsets(offset: Any) -> dict[tuple[str, str], int]:
    """Offsets by topic and partition; a source that is no topic has none."""
    value = json.loads(offset) if isinstance(offset, str) else offset
    if not isinstance(value, dict):
        return {}
    return {
        (topic, partition): int(position)
        for topic, partitions in value.items()
        if isinstance(partitions, dict)
        for partition, position in partitions.items()
    }
