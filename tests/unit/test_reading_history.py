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


def test_the_latency_stays_while_nothing_new_is_counted() -> None:
    history = _history(_counted(0, 0), _counted(100, 0), _counted(200, 150), _counted(300, 150))
    before, latest = history.readings()[-2:]
    assert before.latency is not None
    assert latest.latency == before.latency


@pytest.mark.parametrize(
    "latest",
    [
        pytest.param(Snapshot(indexed=150, dead_letters=0), id="Kafka does not answer"),
        pytest.param(_counted(200, None), id="Elasticsearch does not answer"),
        pytest.param(_counted(200, 150, dead_letters=None), id="dead letters are unknown"),
        pytest.param(_counted(200, 250), id="more counted than sent: the topic was recreated"),
        pytest.param(_counted(200, 40), id="arrived before the history begins"),
        pytest.param(_counted(200, 150, unread=0, in_the_lake=150), id="offsets of aborted records"),
    ],
)
def test_the_latency_is_unknown_where_offsets_do_not_tell_it(latest: Snapshot) -> None:
    assert _history(_counted(50, 0), _counted(200, 0), latest).latest.latency is None


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
