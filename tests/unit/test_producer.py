import math
import random
from collections import Counter
from itertools import pairwise

import pytest
from data_producer.generator import EventGenerator
from data_producer.pacing import Pacer
from data_producer.surge import Surge

from contract.declared import EVENT
from contract.loading import load
from local_stack.services import ROOT
from tests.interaction import INTERACTION_TYPES


def test_the_same_seed_gives_the_same_interactions() -> None:
    one, two, other = (EventGenerator(9, 9, seed=seed).batch(50, 1) for seed in (1, 1, 2))
    assert one == two != other


def test_interactions_stay_within_the_users_items_and_types() -> None:
    batch = EventGenerator(3, 2, seed=1).batch(500, timestamp=77)
    assert {i["user_id"] for i in batch} == {"user_0", "user_1", "user_2"}
    assert {i["item_id"] for i in batch} == {"item_0", "item_1"}
    assert {i["interaction_type"] for i in batch} == set(INTERACTION_TYPES)
    assert {i["timestamp"] for i in batch} == {77}


def test_without_skew_all_users_are_equally_likely() -> None:
    counts = Counter(i["user_id"] for i in EventGenerator(10, 10, seed=1).batch(20_000, 1))
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_with_a_skew_of_one_users_follow_zipfs_law() -> None:
    counts = Counter(i["user_id"] for i in EventGenerator(100, 10, skew=1, seed=1).batch(100_000, 1))
    assert counts["user_0"] / counts["user_9"] == pytest.approx(10, rel=0.15)


def test_a_pacer_catches_up_after_a_delay() -> None:
    pacer = Pacer(interval=0.01, start=0.0)
    sent = 0
    for now in (0.0, 0.005, 0.5, 0.505, 1.0):
        due = pacer.due(now)
        pacer.record_sent(due)
        sent += due
    assert sent == 101
    assert pacer.pause(1.0) == pytest.approx(0.01)


def test_a_pacer_sends_nothing_early() -> None:
    pacer = Pacer(interval=2.0, start=10.0)
    pacer.record_sent(pacer.due(10.0))
    assert pacer.due(11.9) == 0
    assert pacer.pause(11.0) == pytest.approx(1.0)


def test_types_are_as_frequent_as_the_declaration_says() -> None:
    size = 40_000
    counts = Counter(i["interaction_type"] for i in EventGenerator(9, 9, seed=1).batch(size, 1))
    for kind, share in {"view": 0.60, "click": 0.25, "like": 0.10, "purchase": 0.05}.items():
        deviation = math.sqrt(size * share * (1 - share))
        assert abs(counts[kind] - size * share) < 4 * deviation, kind


def test_a_declaration_without_weights_gives_the_same_events_for_a_seed_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("data_producer.generator.EVENT", load(ROOT / "examples/sensors/pipeline.py").event)
    found = [tuple(event.values()) for event in EventGenerator(10, 10, seed=7).batch(4, 1736404972)]
    assert found == [
        ("device_3", "humidity", -21.259, "percent", 1736404972000),
        ("device_1", "humidity", 810.656, "hPa", 1736404972000),
        ("device_6", "temperature", 46.696, "C", 1736404972000),
        ("device_0", "humidity", 90.497, "C", 1736404972000),
    ]


@pytest.mark.parametrize("clock", [0.0, 1736404972.3])
def test_a_wave_changes_the_rate_and_not_its_mean(clock: float) -> None:
    pacer = Pacer(interval=0.01, start=500.0, wave=60.0, clock=clock)
    until = [pacer.due(500.0 + second) - 1 for second in range(0, 601, 60)]
    assert until == [pytest.approx(6_000 * n, abs=1) for n in range(11)]


def test_the_rate_in_a_wave_is_half_of_its_mean_at_its_start_and_one_and_a_half_of_it_in_the_middle() -> None:
    # It starts ten seconds before a multiple of a minute.
    pacer = Pacer(interval=0.001, start=500.0, wave=60.0, clock=1736404980.0 - 10.0)
    per_second = [late - early for early, late in pairwise(pacer.due(500.0 + second) for second in range(61))]
    assert per_second[9:11] == [pytest.approx(500, abs=3)] * 2
    assert per_second[39:41] == [pytest.approx(1_500, abs=3)] * 2
    assert per_second.index(min(per_second)) in (9, 10)
    assert per_second.index(max(per_second)) in (39, 40)


@pytest.mark.parametrize("interval", [0.0001, 0.02, 7.0])
def test_in_a_wave_the_next_interaction_is_due_when_the_pause_is_over_and_not_before(interval: float) -> None:
    rng, now = random.Random(interval), 500.0
    pacer = Pacer(interval, start=now, wave=60.0, clock=1736404972.3)
    for _ in range(200):
        now += rng.uniform(0, 3 * interval)
        pacer.record_sent(pacer.due(now))
        pause = pacer.pause(now)
        assert pacer.due(now + max(0.0, pause - 5e-6)) == 0
        assert pacer.due(now + pause + 5e-6) == 1


def test_a_surge_is_about_one_item_and_spread_over_ten_seconds() -> None:
    surge = Surge(EventGenerator(50, 200, seed=3), size=4_000, start=0.0)
    taken = [surge.take(5_000, now=0.5 * n, timestamp=77) for n in range(21)]
    assert [len(events) for events in taken] == [1, *[200] * 19, 199]
    assert surge.left == 0
    events = [event for part in taken for event in part]
    assert len({event["item_id"] for event in events}) == 1
    assert {event["user_id"] for event in events} == {f"user_{n}" for n in range(50)}
    assert {event["interaction_type"] for event in events} == set(INTERACTION_TYPES)
    assert {tuple(event) for event in events} == {EVENT.names}


def test_a_surge_never_takes_more_than_it_may() -> None:
    surge = Surge(EventGenerator(5, 5, seed=3), size=100, start=0.0)
    assert [len(surge.take(60, now=60.0, timestamp=1)) for _ in range(3)] == [60, 40, 0]
