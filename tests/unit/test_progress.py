"""The health of a streaming query, from Spark's progress and from the batch that it is working on."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from pyspark.sql.streaming.query import StreamingQuery
from stream_processing import progress
from stream_processing.progress import RunningBatch, report

from runtime.health import Health

_LAST_BATCH = {
    "batchId": 6,
    "numInputRows": 3,
    "durationMs": {"triggerExecution": 400},
    "sources": [{"endOffset": {"t": {"0": 5}}, "latestOffset": {"t": {"0": 9}}}],
}


class _Clock:
    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def _problem(running: RunningBatch, last: dict[str, Any] | None = _LAST_BATCH) -> str | None:
    health = Health("ingest")
    query = SimpleNamespace(name="ingest", isActive=True, lastProgress=last)
    report(cast(StreamingQuery, query), health, running)
    return health.problems().get("ingest")


def _lag() -> float | None:
    return REGISTRY.get_sample_value("stream_lag_records", {"query": "ingest"})


def test_a_topic_without_new_records_is_healthy_for_any_time(clock: _Clock) -> None:
    running = RunningBatch()
    assert _problem(running, None) is None
    clock.now += 10**9
    assert _problem(running, None) is None
    with running.of(3):
        assert _problem(running) is None
    clock.now += 10**9
    assert _problem(running) is None
    assert _lag() == 4


@pytest.mark.parametrize(("records", "seconds"), [(1, 60), (100, 60), (1_500_000, 360), (10**9, 200_060)])
def test_a_batch_is_stuck_after_a_minute_and_a_second_for_each_5000_records(
    clock: _Clock, records: int, seconds: int
) -> None:
    running = RunningBatch()
    with running.of(records):
        clock.now += seconds
        assert _problem(running) is None
        clock.now += 1
        problem = f"no batch has finished for {seconds + 1} s although records are waiting ({records})"
        assert (_problem(running) or "").startswith(problem)
        assert _lag() == max(4, records)
        assert (_problem(running, None) or "").startswith(problem)
    assert _problem(running) is None
    assert _lag() == 4


def test_a_batch_that_has_failed_is_no_longer_running(clock: _Clock) -> None:
    running = RunningBatch()
    with pytest.raises(OSError, match="disk"), running.of(1):
        raise OSError("disk")
    clock.now += 1_000
    assert _problem(running) is None
