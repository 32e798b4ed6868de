"""The sink's consumer against a broker that hangs during assignment, commit and shutdown."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from elasticsearch_sink_alert.kafka.group_consumer import KAFKA, GroupConsumer
from elasticsearch_sink_alert.kafka.rows import Record
from elasticsearch_sink_alert.settings import SinkSettings
from mirakuru import TCPExecutor

from contract.topics import aggregated_topic
from local_stack import servers
from local_stack.services import SINK
from runtime import topic_admin
from runtime.health import Health
from tests.pipeline import Pipeline, assert_equal, eventually, item_record

_TARGET = "cluster"


class _Broker:
    """A broker that can hang: it keeps its connections, and answers nothing."""

    def __init__(self, executor: TCPExecutor) -> None:
        assert executor.process is not None
        self._process = executor.process
        self.address = f"{executor.host}:{executor.port}"
        self.hangs = False

    def hang(self) -> None:
        self.hangs = True
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self.hangs = False


class _Consumer(GroupConsumer):
    """A consumer that makes the broker hang during its first assignment."""

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
            broker.resume()


def _settings(broker: str) -> SinkSettings:
    return SinkSettings(kafka_broker=broker, kafka_topic="group", kafka_group_id="group", loop_sleep=0.2)


def _publish(settings: SinkSettings, *numbers: int) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_broker})
    for n in numbers:
        key, value = item_record(n, n)
        producer.produce(settings.aggregated_topic, key=key, value=value)
    assert producer.flush(60) == 0


@contextmanager
def _subscribed(broker: _Broker) -> Iterator[tuple[_Consumer, Health]]:
    settings = _settings(broker.address)
    topic_admin.create_missing_topics(settings.kafka_client, threading.Event(), aggregated_topic(settings))
    state = Health(KAFKA)
    consumer = _Consumer(settings, state, threading.Event())
    consumer.in_assignment, consumer.broker = threading.Event(), broker
    consumer.subscribe(_TARGET)
    try:
        yield consumer, state
    finally:
        broker.resume()
        consumer.close()


def _poll(consumer: GroupConsumer, expected: int) -> list[Record]:
    """Poll until there are at least as many records as expected."""
    records: list[Record] = []

    def poll() -> None:
        records.extend(consumer.poll_batch())
        assert len(records) >= expected

    eventually(poll)
    return records


def _committed(settings: SinkSettings) -> int:
    consumer = Consumer({**settings.kafka_client, "group.id": settings.kafka_group_id})
    try:
        partitions = [TopicPartition(settings.aggregated_topic, n) for n in range(settings.kafka_topic_partition)]
        return sum(max(each.offset, 0) for each in consumer.committed(partitions, timeout=30))
    finally:
        consumer.close()


def test_a_broker_that_hangs_during_assignment_commit_and_close_neither_ends_nor_blocks_the_consumer(
    broker: _Broker,
) -> None:
    settings = _settings(broker.address)
    with _subscribed(broker) as (consumer, state):
        _publish(settings, 1, 2, 3)
        # Assignment: without the committed offsets, no record is returned.
        while not consumer.in_assignment.is_set():
            assert consumer.poll_batch() == []
        for _ in range(2):
            assert consumer.poll_batch() == []
        assert "not known yet" in state.problems()[KAFKA]
        broker.resume()
        records = _poll(consumer, 3)
        assert state.problems() == {}
        # Commit: it does not wait, and is repeated until the broker has it.
        broker.hang()
        consumer.commit(consumer.next_offsets(records))
        assert broker.hangs
        broker.resume()

        def commit_arrives() -> None:
            assert consumer.poll_batch() == []
            assert _committed(settings) == 3

        eventually(commit_arrives)
        # Close: it does not need an answer, also with a commit in flight.
        _publish(settings, 4)
        last = _poll(consumer, 1)
        broker.hang()
        consumer.commit(consumer.next_offsets(last))
        began = time.monotonic()
        consumer.close()
        assert time.monotonic() - began < 8
        assert broker.hangs


def test_a_sink_that_is_stopped_while_the_broker_hangs_exits_by_itself(broker: _Broker, pipeline: Pipeline) -> None:
    hanging_pipeline = Pipeline(broker.address, pipeline.es_url, pipeline.topic, pipeline.data / "sink")
    with hanging_pipeline.running(SINK) as sink:
        hanging_pipeline.publish(item_record(1, 1))
        eventually(lambda: assert_equal(set(hanging_pipeline.documents("agg_interactions_item")), {"item_1"}))
        broker.hang()
        began = time.monotonic()
        sink.stop()
        assert time.monotonic() - began < 10
        assert broker.hangs


def test_a_commit_on_close_reaches_the_broker_and_the_next_consumer_continues_from_it(broker: _Broker) -> None:
    settings = _settings(broker.address)
    for first, expected in ((1, 0), (4, 3)):
        with _subscribed(broker) as (consumer, _):
            consumer.in_assignment.set()
            _publish(settings, first, first + 1, first + 2)
            records = _poll(consumer, 3)
            assert sorted(record.key or b"" for record in records) == [item_record(first + n, 0)[0] for n in range(3)]
            assert _committed(settings) == expected
            consumer.commit(consumer.next_offsets(records))
    assert _committed(settings) == 6


def test_aborted_records_are_not_returned_and_do_not_count_as_lag(kafka: str) -> None:
    settings = _settings(kafka).model_copy(update={"kafka_topic": "transactions", "kafka_group_id": "transactions"})
    topic_admin.create_missing_topics(settings.kafka_client, threading.Event(), aggregated_topic(settings))
    consumer = GroupConsumer(settings, Health(KAFKA), threading.Event())
    consumer.subscribe(_TARGET)
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
        records = _poll(consumer, settings.kafka_topic_partition)
        assert {record.key for record in records} == {item_record(1, 1)[0]}

        def nothing_is_left() -> None:
            assert consumer.poll_batch() == []
            assert_equal(consumer.lag(), 0)

        eventually(nothing_is_left)
    finally:
        consumer.close()
