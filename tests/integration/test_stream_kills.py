"""The stream job is killed at each boundary between its steps, and no record is lost or duplicated."""

import signal
from collections import Counter

import orjson
import pytest
from mirakuru.exceptions import ProcessExitedWithError

from local_stack.services import STREAM
from tests.crash_points import CRASH_POINTS, CRASHING_STREAM
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, assert_equal, eventually, headers_of
from tests.reference import reference_tables

PER_CRASH_POINT = 1_500
MALFORMED = 20


def _interactions(run: int) -> list[Interaction]:
    numbers = range(run * PER_CRASH_POINT, (run + 1) * PER_CRASH_POINT)
    return [
        Interaction(f"user_{n * n % 31}", f"item_{n % 23}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 + n)
        for n in numbers
    ]


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("store", CRASH_POINTS)
def test_a_job_that_is_killed_between_any_two_steps_neither_loses_nor_duplicates_records(
    pipeline: Pipeline, store: str
) -> None:
    sent: list[Interaction] = []
    for run, crash_point in enumerate(CRASH_POINTS[store]):
        interactions = _interactions(run)
        records = [(i.user_id.encode(), orjson.dumps(i)) for i in interactions]
        malformed = [(f"{crash_point} {n}".encode(), b"not json") for n in range(MALFORMED)]
        job = pipeline.service(CRASHING_STREAM, STATE_STORE=store, KILL_AT=crash_point, MAX_OFFSETS_PER_BATCH=400)
        try:
            if run > 0:
                pipeline.send(pipeline.topic, records + malformed)
            try:
                job.start()
                if run == 0:
                    pipeline.send(pipeline.topic, records + malformed)
                assert job.process is not None
                status = job.process.wait(300)
            except ProcessExitedWithError as error:
                status = error.exit_code
            assert status == -signal.SIGKILL, crash_point
        finally:
            job.kill()
        sent += interactions

    if store == "rocksdb":
        state = pipeline.data / "checkpoints" / "aggregate" / "state"
        assert any(file.suffix in (".zip", ".changelog") for file in state.rglob("*")), "no state in RocksDB's format"
    with pipeline.running(STREAM, STATE_STORE=store):
        expected = reference_tables(sent)
        eventually(lambda: assert_equal(pipeline.topic_tables(), expected))
        eventually(lambda: assert_equal(pipeline.lake_tables(), expected))
        eventually(lambda: _assert_each_dead_letter_once(pipeline, MALFORMED * len(CRASH_POINTS[store])))
    rows = pipeline.lake_rows("SELECT user_id, item_id, interaction_type, timestamp FROM interactions")
    in_the_lake = Counter((row["user_id"], row["item_id"], int(row["timestamp"].timestamp())) for row in rows)
    assert in_the_lake == Counter((i.user_id, i.item_id, i.timestamp) for i in sent)
    _assert_rows_only_grow(pipeline)


def _assert_each_dead_letter_once(pipeline: Pipeline, expected: int) -> None:
    dead_letters = pipeline.read(pipeline.settings.dead_letter_topic)
    origins = Counter(
        headers_of(m)["dead_letter.partition"] + "-" + headers_of(m)["dead_letter.offset"] for m in dead_letters
    )
    assert len(origins) == len(dead_letters) == expected


def _assert_rows_only_grow(pipeline: Pipeline) -> None:
    """A later record of a key is never older than an earlier one."""
    totals: dict[bytes, int] = {}
    for message in pipeline.read(pipeline.settings.aggregated_topic):
        key = message.key()
        assert isinstance(key, bytes)
        if key.startswith(b"agg_interactions_user-"):
            total = orjson.loads(message.value() or b"")["total_interactions"]
            assert total >= totals.get(key, 0)
            totals[key] = total
