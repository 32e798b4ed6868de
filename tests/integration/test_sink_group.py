"""The sink's membership of its consumer group, against a broker that hangs at the worst moments."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from elasticsearch_sink_alert.kafka.group_consumer import KAFKA, Membership
from elasticsearch_sink_alert.kafka.rows import Record
from elasticsearch_sink_alert.settings import SinkSettings
from mirakuru import TCPExecutor

from local_stack import servers
from local_stack.services import SINK
from runtime import topics
from runtime.health import Health
from tests.pipeline import Pipeline, assert_equal, eventually, item_record

_TARGET = "cluster"


class _Broker:
    """A broker that can be made to hang: it keeps its connections, and answers nothing."""

    def __init__(self, executor: TCPExecutor) -> None:
        assert executor.process is not None
        self._process = executor.process
        self.address = f"{executor.host}:{executor.port}"
        self.hangs = False

    def hang(self) -> None:
        self.hangs = True
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self.hangs = False


class _Member(Membership):
    """A member during whose next assignment something happens."""

    in_assignment: threading.Event
    broker: _Broker

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if not self.in_assignment.is_set():
            self.in_assignment.set()
            self.broker.hang()
        super()._on_assign(consumer, partitions)


@pytest.fixture
def broker(cache: None, tmp_path: Path) -> Iterator[_Broker]:
    with servers.kafka(tmp_path, servers.free_port()) as executor:
        broker = _Broker(executor)
        try:
            yield broker
        finally:
            broker.go_on()


def _settings(broker: str) -> SinkSettings:
    return SinkSettings(kafka_broker=broker, kafka_topic="group", kafka_group_id="group", loop_sleep=0.2)


def _publish(settings: SinkSettings, *numbers: int) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_broker})
    for n in numbers:
        key, value = item_record(n, n)
        producer.produce(settings.aggregated_topic, key=key, value=value)
    assert producer.flush(60) == 0


@contextmanager
def _member(broker: _Broker) -> Iterator[tuple[_Member, Health]]:
    settings = _settings(broker.address)
    topics.ensure(settings.kafka_client, threading.Event(), topics.aggregated_topic(settings))
    state = Health(KAFKA)
    member = _Member(settings, state, threading.Event())
    member.in_assignment, member.broker = threading.Event(), broker
    member.join(_TARGET)
    try:
        yield member, state
    finally:
        broker.go_on()
        member.leave()


def _take(member: Membership, expected: int) -> list[Record]:
    """Take records until there are as many as expected."""
    taken: list[Record] = []

    def take() -> None:
        taken.extend(member.take())
        assert len(taken) >= expected

    eventually(take)
    return taken


def _committed(settings: SinkSettings) -> int:
    consumer = Consumer({**settings.kafka_client, "group.id": settings.kafka_group_id})
    try:
        partitions = [TopicPartition(settings.aggregated_topic, n) for n in range(settings.kafka_topic_partition)]
        return sum(max(each.offset, 0) for each in consumer.committed(partitions, timeout=30))
    finally:
        consumer.close()


def test_a_broker_that_hangs_during_assignment_commit_or_leaving_neither_ends_nor_blocks_the_sink(
    broker: _Broker,
) -> None:
    settings = _settings(broker.address)
    with _member(broker) as (member, state):
        _publish(settings, 1, 2, 3)
        # The assignment: what was committed before cannot be known, and no record is taken without it.
        while not member.in_assignment.is_set():
            assert member.take() == []
        for _ in range(2):
            assert member.take() == []
        assert "not known yet" in state.problems()[KAFKA]
        broker.go_on()
        records = _take(member, 3)
        assert state.problems() == {}
        # A commit returns at once, and is repeated until the broker has it.
        broker.hang()
        member.commit(member.after(records))
        assert broker.hangs
        broker.go_on()

        def commit_arrives() -> None:
            assert member.take() == []
            assert _committed(settings) == 3

        eventually(commit_arrives)
        # Whoever leaves does so without an answer too, with a commit under way or behind it.
        _publish(settings, 4)
        last = _take(member, 1)
        broker.hang()
        member.commit(member.after(last))
        began = time.monotonic()
        member.leave()
        assert time.monotonic() - began < 8
        assert broker.hangs


def test_a_sink_that_is_stopped_while_the_broker_hangs_exits(broker: _Broker, pipeline: Pipeline) -> None:
    beside = Pipeline(broker.address, pipeline.es_url, pipeline.topic, pipeline.data / "sink")
    with beside.running(SINK) as sink:
        beside.publish(item_record(1, 1))
        eventually(lambda: assert_equal(set(beside.documents("agg_interactions_item")), {"item_1"}))
        broker.hang()
        began = time.monotonic()
        sink.stop()
        assert time.monotonic() - began < 10
        assert broker.hangs


def test_the_next_group_member_continues_at_the_offsets_committed_on_leaving(broker: _Broker) -> None:
    settings = _settings(broker.address)
    for first, expected in ((1, 0), (4, 3)):
        with _member(broker) as (member, _):
            member.in_assignment.set()
            _publish(settings, first, first + 1, first + 2)
            records = _take(member, 3)
            assert sorted(record.key or b"" for record in records) == [item_record(first + n, 0)[0] for n in range(3)]
            assert _committed(settings) == expected
            member.commit(member.after(records))
    assert _committed(settings) == 6


def test_aborted_records_are_neither_polled_nor_counted_as_lag(kafka: str) -> None:
    settings = _settings(kafka).model_copy(update={"kafka_topic": "transactions", "kafka_group_id": "transactions"})
    topics.ensure(settings.kafka_client, threading.Event(), topics.aggregated_topic(settings))
    member = Membership(settings, Health(KAFKA), threading.Event())
    member.join(_TARGET)
    try:
        producer = Producer({**settings.kafka_client, "transactional.id": "transactions"})
        producer.init_transactions(60)
        for number, ending in ((1, producer.commit_transaction), (2, producer.abort_transaction)):
            producer.begin_transaction()
            key, value = item_record(number, number)
            for partition in range(settings.kafka_topic_partition):
                producer.produce(settings.aggregated_topic, key=key, value=value, partition=partition)
            producer.flush(60)
            ending(60)
        records = _take(member, settings.kafka_topic_partition)
        assert {record.key for record in records} == {item_record(1, 1)[0]}

        def nothing_is_left() -> None:
            assert member.take() == []
            assert_equal(member.lag(), 0)

        eventually(nothing_is_left)
    finally:
        member.leave()
