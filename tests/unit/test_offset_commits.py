"""Offsets are committed one request at a time, and again until the broker has them."""

import time
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from elasticsearch_sink_alert.kafka.offset_commits import OffsetCommits


class Requests:
    """Collects the offsets of commit requests."""

    def __init__(self, error: KafkaError | None = None) -> None:
        self.error = error
        self.sent: list[dict[int, int]] = []

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self.sent.append({each.partition: each.offset for each in offsets})
        if self.error is not None:
            raise KafkaException(self.error)


def _offsets(**by_partition: int) -> list[TopicPartition]:
    return [TopicPartition("t", int(name[1:]), offset) for name, offset in by_partition.items()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def _send(commits: OffsetCommits, requests: Requests) -> list[dict[int, int]]:
    commits.send(cast("Consumer", requests))
    return requests.sent


def test_the_latest_offset_of_each_partition_is_committed_once(clock: list[float]) -> None:
    commits, requests = OffsetCommits(), Requests()
    assert _send(commits, requests) == []
    commits.add(_offsets(p0=3, p1=5))
    commits.add(_offsets(p0=4))
    assert _send(commits, requests) == [{0: 4, 1: 5}]
    commits.on_commit(None, _offsets(p0=4, p1=5))
    assert _send(commits, requests) == [{0: 4, 1: 5}]


def test_offsets_that_are_added_during_a_request_are_in_the_next_one(clock: list[float]) -> None:
    commits, requests = OffsetCommits(), Requests()
    commits.add(_offsets(p0=3, p1=5))
    _send(commits, requests)
    commits.add(_offsets(p0=7))
    assert len(_send(commits, requests)) == 1
    commits.on_commit(None, _offsets(p0=3, p1=5))
    assert _send(commits, requests) == [{0: 3, 1: 5}, {0: 7}]


def test_a_failed_commit_is_repeated_after_a_second(clock: list[float]) -> None:
    commits, requests = OffsetCommits(), Requests()
    commits.add(_offsets(p0=3))
    _send(commits, requests)
    commits.on_commit(KafkaError(KafkaError._TIMED_OUT), [])
    assert len(_send(commits, requests)) == 1
    clock[0] += 1
    assert _send(commits, requests) == [{0: 3}] * 2


def test_a_request_that_cannot_be_sent_is_repeated_after_a_second_or_at_the_end(clock: list[float]) -> None:
    commits, requests = OffsetCommits(), Requests(KafkaError(KafkaError._STATE))
    commits.add(_offsets(p0=3))
    assert len(_send(commits, requests)) == 1
    assert len(_send(commits, requests)) == 1
    requests.error = None
    commits.send_now(cast("Consumer", requests))
    assert requests.sent == [{0: 3}] * 2


def test_offsets_of_revoked_partitions_are_not_committed(clock: list[float]) -> None:
    commits, requests = OffsetCommits(), Requests()
    commits.add(_offsets(p0=3, p1=5))
    commits.drop({1, 2})
    assert _send(commits, requests) == [{0: 3}]
    commits.clear()
    commits.on_commit(None, [])
    assert _send(commits, requests) == [{0: 3}]
