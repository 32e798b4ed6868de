"""The stream job is killed at every boundary between its stages, and nothing is lost or doubled."""

import signal
from collections import Counter

import orjson
import pytest
from mirakuru.exceptions import ProcessExitedWithError

from contract.interaction import INTERACTION_TYPES, Interaction
from local_stack.services import STREAM, Service
from tests.crash_points import MOMENTS
from tests.pipeline import Pipeline, assert_equal, eventually, headers_of
from tests.reference import reference_tables

KILLED = Service("tests.crash_points", STREAM.port_setting, STREAM.port)
PER_MOMENT = 1_500
MALFORMED = 20


def _interactions(moment: int) -> list[Interaction]:
    numbers = range(moment * PER_MOMENT, (moment + 1) * PER_MOMENT)
    return [
        Interaction(f"user_{n * n % 31}", f"item_{n % 23}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 + n)
        for n in numbers
    ]


@pytest.mark.timeout(2400)
def test_a_job_that_is_killed_between_any_two_steps_loses_and_doubles_nothing(pipeline: Pipeline) -> None:
    sent: list[Interaction] = []
    for number, moment in enumerate(MOMENTS):
        more = _interactions(number)
        records = [(i.user_id.encode(), orjson.dumps(i)) for i in more]
        bad = [(f"{moment} {n}".encode(), b"not json") for n in range(MALFORMED)]
        job = pipeline.service(KILLED, KILL_AT=moment, MAX_OFFSETS_PER_BATCH=400)
        try:
            if number > 0:
                pipeline.send(pipeline.topic, records + bad)
            try:
                job.start()
                if number == 0:
                    pipeline.send(pipeline.topic, records + bad)
                assert job.process is not None
                ended = job.process.wait(300)
            except ProcessExitedWithError as error:
                ended = error.exit_code
            assert ended == -signal.SIGKILL, moment
        finally:
            job.kill()
        sent += more

    with pipeline.running(STREAM):
        expected = reference_tables(sent)
        eventually(lambda: assert_equal(pipeline.topic_tables(), expected))
        eventually(lambda: assert_equal(pipeline.lake_tables(), expected))
        eventually(lambda: _assert_every_dead_letter_once(pipeline))
    rows = pipeline.lake_rows("SELECT user_id, item_id, interaction_type, timestamp FROM interactions")
    in_the_lake = Counter((row["user_id"], row["item_id"], int(row["timestamp"].timestamp())) for row in rows)
    assert in_the_lake == Counter((i.user_id, i.item_id, i.timestamp) for i in sent)
    _assert_rows_only_grow(pipeline)


def _assert_every_dead_letter_once(pipeline: Pipeline) -> None:
    letters = pipeline.read(pipeline.settings.dead_letter_topic)
    origins = Counter(
        headers_of(m)["dead_letter.partition"] + "-" + headers_of(m)["dead_letter.offset"] for m in letters
    )
    assert len(origins) == len(letters) == MALFORMED * len(MOMENTS)


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
