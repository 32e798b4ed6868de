from collections import Counter

import pytest
from data_producer.generator import EventGenerator
from data_producer.pacing import Pacer

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
