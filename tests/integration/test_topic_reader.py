"""Reading a topic to its end: the records that are committed when the reading starts, and no others."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from runtime.kafka_client import headers_of
from runtime.topic_reader import read_to_end
from tests import raw_headers

PARTITIONS = 2


@pytest.fixture
def topic(kafka: str) -> str:
    name = f"reader-{uuid4().hex[:8]}"
    topic = NewTopic(name, num_partitions=PARTITIONS, replication_factor=1)
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([topic])[name].result()
    return name


def _values(kafka: str, topic: str) -> list[list[bytes | str | None]]:
    """Read the topic; return the values of each partition."""
    messages = list(read_to_end({"bootstrap.servers": kafka}, topic, group_id="tests"))
    return [[m.value() for m in messages if m.partition() == partition] for partition in range(PARTITIONS)]


def _send(kafka: str, topic: str, *values: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for value in values:
        for partition in range(PARTITIONS):
            producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0


def _transaction(kafka: str, topic: str, value: str) -> Producer:
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": uuid4().hex})
    producer.init_transactions(30)
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0
    return producer


def test_every_partition_is_read_in_order(kafka: str, topic: str) -> None:
    assert _values(kafka, topic) == [[], []]
    _send(kafka, topic, "1", "2", "3")
    assert _values(kafka, topic) == [[b"1", b"2", b"3"]] * PARTITIONS


@pytest.mark.parametrize("last", ["aborted", "open"])
def test_reading_ends_before_records_that_are_not_committed(kafka: str, topic: str, last: str) -> None:
    _transaction(kafka, topic, "aborted").abort_transaction(30)
    _transaction(kafka, topic, "committed").commit_transaction(30)
    transaction = _transaction(kafka, topic, last)
    finish: Callable[[float], None] = transaction.abort_transaction
    if last == "aborted":
        finish(30)
    assert _values(kafka, topic) == [[b"committed"]] * PARTITIONS
    if last == "open":
        finish(30)


def test_reading_begins_at_offsets_and_includes_uncommitted_records_on_request(kafka: str, topic: str) -> None:
    _send(kafka, topic, "1", "2", "3")
    transaction = _transaction(kafka, topic, "open")
    client = {"bootstrap.servers": kafka}
    messages = list(read_to_end(client, topic, group_id="tests", start={0: 1, 1: 9}, uncommitted=True))
    assert [(m.partition(), m.value()) for m in messages] == [(0, b"2"), (0, b"3"), (0, b"open")]
    transaction.abort_transaction(30)


def test_records_that_arrive_while_reading_are_left_out(kafka: str, topic: str) -> None:
    _send(kafka, topic, "before")
    messages = read_to_end({"bootstrap.servers": kafka}, topic, group_id="tests")
    first = next(messages)
    _send(kafka, topic, "after")
    assert [m.value() for m in (first, *messages)] == [b"before"] * PARTITIONS


def test_a_topic_that_does_not_exist_has_no_records(kafka: str) -> None:
    assert list(read_to_end({"bootstrap.servers": kafka}, "no-such-topic", group_id="tests")) == []


def test_a_broker_that_does_not_answer_raises_after_the_timeout() -> None:
    with pytest.raises(KafkaException) as raised:
        list(read_to_end({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "topic", group_id="tests", timeout=0.5))
    error = raised.value.args[0]
    assert isinstance(error, KafkaError)
    assert error.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT)


def test_a_record_whose_header_has_a_name_that_is_no_text_has_no_headers(kafka: str, topic: str) -> None:
    for name in (b"\xff", b"name"):
        raw_headers.send(kafka, topic, name, b"key", b"value", times=25)
    messages = list(read_to_end({"bootstrap.servers": kafka}, topic, group_id="tests"))
    # Often, as Python executes a function that is called often in another way.
    found = [headers_of(message) for message in messages]
    assert sorted(found) == [[]] * 25 + [[("name", b"x")]] * 25
