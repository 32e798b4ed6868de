"""Rates, lags and latency that follow from snapshots, on plain objects."""

import threading
from typing import Any

import pytest

from observer.reading_history import Poller, Reading, ReadingHistory
from observer.snapshot import Snapshot


def _history(*snapshots: Snapshot) -> ReadingHistory:
    """A history with one snapshot per second, from second 1 on."""
    history = ReadingHistory()
    for second, snapshot in enumerate(snapshots, start=1):
        history.add(snapshot, at=float(second))
    return history


def _counted(sent: int, indexed: int | None, **fields: Any) -> Snapshot:
    return Snapshot(sent=sent, indexed=indexed, **{"dead_letters": 0, **fields})


def test_nothing_is_known_before_the_first_snapshot() -> None:
    history = ReadingHistory()
    assert history.latest == Reading(0, Snapshot())
    assert history.readings() == []
    assert [(stage.rows, stage.rate, stage.lag) for stage in history.stages()] == [(None, None, None)] * 4


def test_readings_older_than_five_minutes_are_dropped() -> None:
    history = _history(*[Snapshot(sent=n) for n in range(400)])
    assert [reading.at for reading in history.readings()] == [float(second) for second in range(100, 401)]


def test_the_rate_is_the_growth_within_the_last_five_seconds() -> None:
    assert _history(Snapshot(sent=0)).latest.rate is None
    assert _history(Snapshot(sent=0), Snapshot(sent=100)).latest.rate == 100
    # Second 8 against second 3.
    assert _history(*[Snapshot(sent=sent) for sent in (0, 0, 0, 10, 20, 30, 40, 500)]).latest.rate == 100


def test_the_rate_is_unknown_without_kafka_and_zero_after_the_topic_was_recreated() -> None:
    assert _history(Snapshot(sent=10), Snapshot()).latest.rate is None
    assert _history(Snapshot(sent=10), Snapshot(), Snapshot(sent=30)).latest.rate == 10
    assert _history(Snapshot(sent=10), Snapshot(sent=3)).latest.rate == 0


def test_the_latency_is_the_age_of_the_latest_counted_interaction() -> None:
    # The 150th arrived between seconds 2 and 3, halfway.
    history = _history(_counted(0, 0), _counted(100, 0), _counted(200, 0), _counted(200, 150))
    assert history.latest.latency == pytest.approx(1.5)


def test_the_latency_counts_dead_letters_as_done() -> None:
    history = _history(_counted(0, 0), _counted(100, 0), _counted(200, 0), _counted(200, 130, dead_letters=20))
    assert history.latest.latency == pytest.approx(1.5)


def test_the_latency_is_known_where_the_indices_are_read_later_than_kafka_and_count_more() -> None:
    # At second n Kafka has 100 n, and 0.4 s later the indices count what arrived up to 0.2 s before.
    snapshots = [_counted(100 * n, 100 * n + 20, indexed_after=0.4) for n in range(1, 6)]
    history = _history(*snapshots)
    # The 120th arrives between seconds 1 and 2: that is known at second 2.
    assert _latencies(history)[1:] == [(0.2, False)] * 4


def _latencies(history: ReadingHistory) -> list[tuple[float | None, bool]]:
    """The latency of each point, and whether it is a lower bound."""
    return [
        (None if point.latency is None else round(point.latency, 2), point.is_latency_lower_bound)
        for point in history.points(3_600)
    ]


def test_the_latency_stays_while_nothing_arrives() -> None:
    history = _history(_counted(0, 0), _counted(100, 0), _counted(100, 100), *[_counted(100, 100)] * 60)
    assert _latencies(history)[2:] == [(1.0, False)] * 61


def test_the_latency_grows_with_the_oldest_record_that_is_not_counted_and_is_a_lower_bound_then() -> None:
    # Everything up to second 3 is counted; from then on nothing, whatever arrives.
    arriving = [_counted(100 * second, min(100 * (second - 1), 300)) for second in range(1, 8)]
    history = _history(*arriving, _counted(900, 800))
    # The 301st arrived 10 ms after second 3.
    assert _latencies(history) == [
        (None, False), (0.99, True), (1.0, False), (1.0, False), (1.99, True), (2.99, True), (3.99, True), (0.5, False),
    ]  # fmt: skip
    assert history.latest.latency == pytest.approx(0.5)
    assert history.readings()[-2].is_latency_lower_bound


def test_the_latency_of_a_backlog_is_at_least_the_time_for_which_it_is_known() -> None:
    # It was there before the first snapshot.
    assert _latencies(_history(*[_counted(500, 100)] * 4)) == [(None, False), (1.0, True), (2.0, True), (3.0, True)]


def test_the_latency_of_an_outage_longer_than_the_history_grows_on() -> None:
    history = _history(_counted(100, 100), *[_counted(200, 100)] * 2_000)
    assert history.latest.latency == pytest.approx(2_000, abs=1)


def test_the_latency_of_malformed_records_alone_does_not_grow() -> None:
    # Each is a dead letter a second after it arrived.
    flow = [_counted(100 + 10 * second, 100, dead_letters=10 * (second - 1)) for second in range(1, 30)]
    assert max(seconds or 0 for seconds, _ in _latencies(_history(*flow))) < 1


def test_the_latency_is_unknown_while_a_server_does_not_answer_and_goes_on_from_there() -> None:
    away = [_counted(400, None), Snapshot(indexed=100, dead_letters=0)]
    history = _history(_counted(0, 0), _counted(100, 0), _counted(200, 100), *away, _counted(500, 100))
    # The 101st arrived 10 ms after second 2.
    assert _latencies(history)[-4:] == [(1.0, False), (None, False), (None, False), (3.99, True)]


def test_the_latency_of_offsets_that_are_no_records_is_unknown_in_the_middle_of_a_batch_too() -> None:
    aborted = _counted(200, 150, unread=0, in_the_lake=150)
    history = _history(_counted(50, 0), aborted, _counted(300, 150), _counted(300, 200))
    assert _latencies(history)[1:] == [(None, False)] * 3


@pytest.mark.parametrize(
    "latest",
    [
        pytest.param(Snapshot(indexed=150, dead_letters=0), id="Kafka does not answer"),
        pytest.param(_counted(200, None), id="Elasticsearch does not answer"),
        pytest.param(_counted(200, 150, dead_letters=None), id="dead letters are unknown"),
        pytest.param(_counted(200, 250), id="more counted than sent: the topic was recreated"),
        pytest.param(_counted(200, 150, unread=0, in_the_lake=150), id="offsets of aborted records"),
    ],
)
def test_the_latency_is_unknown_where_offsets_do_not_tell_it(latest: Snapshot) -> None:
    assert _history(_counted(50, 0), _counted(200, 0), latest).latest.latency is None


def test_the_latency_of_what_arrived_before_the_history_is_that_of_what_waits() -> None:
    history = _history(_counted(50, 0), _counted(200, 0), _counted(200, 40))
    assert _latencies(history)[-1] == (2.0, True)
    assert _history(_counted(50, 0), _counted(50, 50)).latest.latency is None


def test_the_latency_of_a_first_snapshot_is_unknown() -> None:
    assert _history(_counted(200, 150)).latest.latency is None


def test_stages_have_rows_rates_and_lags() -> None:
    first = Snapshot(sent=0, in_the_lake=0, aggregated=0, published=0, dead_letters=0, sink_lag=0)
    second = Snapshot(sent=100, in_the_lake=80, aggregated=70, published=20, dead_letters=5, sink_lag=3)
    assert [(each.name, each.rows, each.rate, each.lag) for each in _history(first, second).stages()] == [
        ("sent to Kafka", 100, 100, None),
        ("in the lake", 80, 80, 15),
        ("aggregated", 70, 70, 10),
        ("rows published", 20, 20, 3),
    ]


def test_the_lag_of_the_lake_is_what_the_job_has_not_read() -> None:
    history = _history(
        Snapshot(sent=15, unread=3, in_the_lake=6, dead_letters=0, indexed=6),
        Snapshot(sent=18, unread=0, in_the_lake=9, dead_letters=0, indexed=9),
    )
    assert history.stages()[1].lag == 0
    # The n-th offset is not the n-th interaction.
    assert history.latest.latency is None


def test_an_unknown_number_of_dead_letters_is_not_taken_for_zero() -> None:
    assert _history(Snapshot(sent=15, in_the_lake=6, indexed=6)).stages()[1].lag is None


def test_aborted_records_do_not_keep_a_pipeline_from_being_drained() -> None:
    drained = {"in_the_lake": 8, "dead_letters": 0, "aggregated": 8, "sink_lag": 0, "uncommitted": 0}
    # 8 committed, 5 aborted, 2 markers.
    assert Snapshot(sent=15, unread=0, **drained).is_drained  # type: ignore[arg-type]
    assert not Snapshot(sent=15, unread=3, **drained).is_drained  # type: ignore[arg-type]
    assert not Snapshot(sent=15, unread=None, **drained).is_drained  # type: ignore[arg-type]
    assert not Snapshot(sent=15, unread=0, **(drained | {"aggregated": 7})).is_drained  # type: ignore[arg-type]
    # A dead letter of the sink is no record of the interactions topic.
    assert Snapshot(sent=8, unread=0, **(drained | {"dead_letters": 1})).is_drained  # type: ignore[arg-type]


class _FailingOnceObserver:
    """Fails on the first snapshot and signals the second."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_closed = False
        self.succeeded = threading.Event()

    def snapshot(self) -> Snapshot:
        self.calls += 1
        if self.calls == 1:
            raise RuntimeError("no snapshot")
        self.succeeded.set()
        return Snapshot(sent=7)

    def close(self) -> None:
        self.is_closed = True


def test_the_poller_goes_on_after_a_failed_snapshot_and_closes_its_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observer.reading_history._INTERVAL", 0.0)
    observer, history = _FailingOnceObserver(), ReadingHistory()
    poller = Poller(observer, history)  # type: ignore[arg-type]
    poller.start()
    assert observer.succeeded.wait(10)
    poller.stop()
    assert history.latest.snapshot.sent == 7
    assert observer.is_closed
