"""Topics that a broker does not know yet, or does not have."""

import threading
from collections.abc import Callable
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException

from contract.topics import Topic
from runtime import topic_admin

LOOKUPS: list[tuple[Callable[[dict[str, str | int], str], object], object]] = [
    (topic_admin.partitions_of, [0, 1]),
    (topic_admin.max_message_bytes, 2 << 20),
    (lambda client, topic: bool(topic_admin.topic_id(client, topic)), True),
]


def _topic(name: str) -> Topic:
    return Topic(name, partitions=2, replication_factor=1, config={"max.message.bytes": str(2 << 20)})


@pytest.mark.parametrize(("lookup", "expected"), LOOKUPS)
def test_a_topic_that_the_broker_learns_of_late_is_waited_for(
    kafka: str, lookup: Callable[[dict[str, str | int], str], object], expected: object
) -> None:
    client: dict[str, str | int] = {"bootstrap.servers": kafka}
    name = f"late-{uuid4().hex[:8]}"
    creation = threading.Timer(1.0, topic_admin.create_missing_topics, args=(client, threading.Event(), _topic(name)))
    creation.start()
    try:
        assert lookup(client, name) == expected
    finally:
        creation.join()


@pytest.mark.parametrize("lookup", [lookup for lookup, _ in LOOKUPS])
def test_a_topic_that_does_not_exist_is_an_error(
    kafka: str, monkeypatch: pytest.MonkeyPatch, lookup: Callable[[dict[str, str | int], str], object]
) -> None:
    monkeypatch.setattr(topic_admin, "_PROPAGATION", 0.5)
    with pytest.raises(KafkaException) as raised:
        lookup({"bootstrap.servers": kafka}, "no-topic")
    assert raised.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
