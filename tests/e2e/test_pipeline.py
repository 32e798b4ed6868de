"""The whole pipeline: every interaction ends up in every table, topic and index, even if the stream job is killed."""

from collections import Counter
from contextlib import ExitStack
from itertools import cycle, islice

from local_stack.services import PRODUCER, SINK, STREAM
from tests.pipeline import Pipeline, eventually, headers_of, kill_9_python_only
from tests.reference import reference_tables

INTERACTIONS = 100_000
MALFORMED = 500
MALFORMED_VALUES = (
    b"not json",
    b"\xff\xfe\x00",
    b'{"user_id": "u", "item_id": "i", "interaction_type": "like"}',
    b'{"user_id": "", "item_id": "i", "interaction_type": "like", "timestamp": 1}',
    b'{"user_id": "u", "item_id": "i", "interaction_type": "stare", "timestamp": 1}',
)


def test_everything_sent_arrives_exactly_once_although_the_stream_job_is_killed(pipeline: Pipeline) -> None:
    with ExitStack() as stack:
        sink = pipeline.running(SINK)
        stack.enter_context(sink)
        # Fifty batches: on any machine the kill comes between the first and the last.
        stream = pipeline.service(STREAM, MAX_OFFSETS_PER_BATCH=2_000)
        stack.callback(stream.kill)
        stream.start()

        _send_in_two_halves(pipeline)
        eventually(lambda: _assert_between(pipeline.lake_count(), 1, INTERACTIONS - 1))
        kill_9_python_only(stream)
        in_the_lake_at_kill = pipeline.lake_count()
        stack.enter_context(pipeline.running(STREAM, MAX_OFFSETS_PER_BATCH=10_000))

        assert in_the_lake_at_kill < INTERACTIONS
        sent = pipeline.interactions(ignore=MALFORMED_VALUES)
        assert len(sent) == INTERACTIONS
        pipeline.assert_everywhere(sent)
        eventually(lambda: _assert_dead_letters(pipeline))
        expected = reference_tables(sent)
        eventually(lambda: _assert_alerts(pipeline, expected))
        pipeline.assert_exact()


def _send_in_two_halves(pipeline: Pipeline) -> None:
    """Send the interactions with real producers, and malformed records before, between and after them."""
    malformed = list(islice(cycle(MALFORMED_VALUES), MALFORMED))
    pipeline.send(pipeline.topic, [(b"bad", value) for value in malformed[:100]])
    for half in (0, 1):
        pipeline.run_to_end(
            PRODUCER,
            PRODUCER_RATE=0,
            PRODUCER_LIMIT=INTERACTIONS // 2,
            RANDOM_DATA_MAX_USERS=60,
            RANDOM_DATA_MAX_ITEMS=400,
            RANDOM_DATA_SKEW=1.2,
        )
        pipeline.send(pipeline.topic, [(None, value) for value in malformed[100 + half * 200 :][:200]])


def _assert_dead_letters(pipeline: Pipeline) -> None:
    dead_letters = pipeline.read(pipeline.settings.dead_letter_topic)
    assert len(dead_letters) == MALFORMED
    origins = {(headers_of(m)["dead_letter.partition"], headers_of(m)["dead_letter.offset"]) for m in dead_letters}
    assert len(origins) == MALFORMED
    assert Counter(m.value() for m in dead_letters) == Counter(dict.fromkeys(MALFORMED_VALUES, 100))
    reasons = Counter(headers_of(m)["dead_letter.reason"] for m in dead_letters)
    assert len(reasons) == len(MALFORMED_VALUES)


def _assert_alerts(pipeline: Pipeline, expected: dict[str, dict[str, dict[str, object]]]) -> None:
    """Counts only grow, so their rules fire once per row and stay firing; the rule of the average may be resolved.

    Those of a window are resolved when it is over.
    """
    alerts = pipeline.alerts()
    periods = Counter((alert["alert_text"], alert["id"]) for alert in alerts)
    firing = {(alert["alert_text"], alert["id"]) for alert in alerts if alert["status"] == "firing"}
    items, users = expected["agg_interactions_item"], expected["agg_interactions_user"]
    popular = {("max_interactions > 12", item) for item, row in items.items() if _number(row, "max_interactions") > 12}
    busy = {("total_interactions > 100", u) for u, row in users.items() if _number(row, "total_interactions") > 100}
    calm = {("avg_interactions < 40", u) for u, row in users.items() if _number(row, "avg_interactions") < 40}
    minutes, hours = expected["agg_interactions_minute"], expected["agg_interactions_item_hour"]
    buying = {("total_purchase > 20", m) for m, row in minutes.items() if _number(row, "total_purchase") > 20}
    viral = {("total_interactions > 400", i) for i, row in hours.items() if _number(row, "total_interactions") > 400}
    assert all(periods[period] == 1 for period in popular | busy)
    assert buying
    assert buying | viral <= set(periods)
    assert firing - viral == popular | busy | calm


def _number(row: dict[str, object], name: str) -> float:
    value = row[name]
    assert isinstance(value, int | float)
    return value


def _assert_between(number: int, low: int, high: int) -> None:
    assert low <= number <= high
