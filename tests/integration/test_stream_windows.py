"""Windows of event time through the real job: late interactions are counted, and old rows are deleted everywhere."""

import urllib.request

import pytest
from mirakuru import HTTPExecutor

from local_stack.services import SINK, STREAM
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, assert_equal, eventually, kill_9
from tests.reference import reference_tables

MINUTES, HOURS = "agg_interactions_minute", "agg_interactions_item_hour"
_START = 1_700_000_000
_HOUR, _DAY = 3_600, 86_400


def _interactions(start: int, seconds: int, count: int) -> list[Interaction]:
    """Return interactions whose times are spread over so many seconds."""
    return [
        Interaction(f"user_{n % 11}", f"item|{n % 3}", INTERACTION_TYPES[n % 4], start + n * seconds // count)
        for n in range(count)
    ]


def _in_memory(job: HTTPExecutor, table: str) -> int:
    """Return the number of rows of a table that the job has in memory."""
    assert job.url is not None
    with urllib.request.urlopen(job.url.geturl().replace("/health", "/metrics"), timeout=10) as response:
        lines = response.read().decode().splitlines()
    (value,) = (line.split()[-1] for line in lines if line.startswith(f'stream_state_rows{{table="{table}"}}'))
    return int(float(value))


def _assert_closed(job: HTTPExecutor, most: int) -> None:
    assert _in_memory(job, MINUTES) <= most


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_late_interactions_are_in_their_windows_after_hours_also_across_a_kill(pipeline: Pipeline, store: str) -> None:
    sent = _interactions(_START, 3 * _HOUR, 900)
    job = pipeline.service(STREAM, STATE_STORE=store)
    try:
        job.start()
        pipeline.send_interactions(sent)
        eventually(lambda: pipeline.assert_published(sent))
        later = _interactions(_START + 4 * _HOUR, 60, 20)
        pipeline.send_interactions(later)
        sent += later
        eventually(lambda: assert_equal(pipeline.lake_tables(), reference_tables(sent)))
        if store == "memory":
            # The windows of the first hours have left it.
            eventually(lambda: _assert_closed(job, 20))
        late = _interactions(_START + 100, 2 * _HOUR, 60)
        pipeline.send_interactions(late)
        sent += late
        eventually(lambda: pipeline.assert_published(sent))
        late = _interactions(_START + 50, 3 * _HOUR, 40)
        pipeline.send_interactions(late)
        sent += late
    finally:
        kill_9(job)
    late = _interactions(_START + 20, _HOUR, 30)
    pipeline.send_interactions(late)
    sent += late
    with pipeline.running(STREAM, STATE_STORE=store):
        eventually(lambda: pipeline.assert_published(sent))
        eventually(lambda: assert_equal(pipeline.lake_tables(), reference_tables(sent)))


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_rows_of_windows_that_are_no_longer_kept_are_deleted_everywhere(pipeline: Pipeline, store: str) -> None:
    sent = _interactions(_START, _HOUR, 200)
    with pipeline.running(SINK), pipeline.running(STREAM, STATE_STORE=store):
        pipeline.send_interactions(sent)
        pipeline.assert_everywhere(sent)
        assert len(pipeline.documents(MINUTES)) > 50
        for days in (8, 31):
            later = _interactions(_START + days * _DAY, 60, 10)
            pipeline.send_interactions(later)
            sent += later
            pipeline.assert_everywhere(sent)
        assert len(pipeline.documents(MINUTES)) <= 2
        assert {row["item_id"] for row in pipeline.documents(HOURS).values()} == {"item|0", "item|1", "item|2"}
        # What was deleted does not come back with a late interaction.
        late = _interactions(_START, _HOUR, 5)
        pipeline.send_interactions(late)
        sent += late
        pipeline.assert_everywhere(sent)
        pipeline.assert_exact()
