"""An upgrade of the Kafka client that moves one of its private parts fails here first."""

from datetime import UTC, datetime

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from runtime import kafka_client
from runtime.kafka_errors import is_transient


def test_the_admin_classes_are_those_that_the_admin_client_accepts() -> None:
    admin = AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    resource = kafka_client.ConfigResource(
        kafka_client.ResourceType.TOPIC,
        "topic",
        incremental_configs=[
            kafka_client.ConfigEntry("retention.ms", "1", incremental_operation=kafka_client.AlterConfigOpType.SET)
        ],
    )
    assert set(admin.describe_configs([resource], request_timeout=0.1)) == {resource}
    assert set(admin.incremental_alter_configs([resource], request_timeout=0.1)) == {resource}
    assert set(admin.create_topics([kafka_client.NewTopic("topic", 1)], request_timeout=0.1)) == {"topic"}
    assert set(admin.create_partitions([kafka_client.NewPartitions("topic", 2)], request_timeout=0.1)) == {"topic"}


def test_the_error_codes_are_those_of_librdkafka() -> None:
    codes = {
        kafka_client.ALL_BROKERS_DOWN: "_ALL_BROKERS_DOWN",
        kafka_client.INVALID_ARGUMENT: "_INVALID_ARG",
        kafka_client.MESSAGE_TIMED_OUT: "_MSG_TIMED_OUT",
        kafka_client.PARTITION_EOF: "_PARTITION_EOF",
        kafka_client.QUEUE_FULL: "_QUEUE_FULL",
        kafka_client.RESOLVE_FAILED: "_RESOLVE",
        kafka_client.TIMED_OUT: "_TIMED_OUT",
        kafka_client.TRANSPORT_FAILED: "_TRANSPORT",
    }
    assert {code: KafkaError(code).name() for code in codes} == codes


def test_an_unavailable_broker_is_transient_and_a_wrong_configuration_is_not() -> None:
    for code in (kafka_client.TIMED_OUT, kafka_client.TRANSPORT_FAILED, kafka_client.ALL_BROKERS_DOWN):
        assert is_transient(KafkaError(code))
    for code in (KafkaError.INVALID_CONFIG, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART):
        assert not is_transient(KafkaError(code))


def test_a_producer_accepts_the_shared_configuration() -> None:
    config = kafka_client.producer_config({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, 1_000_000)
    assert (config["acks"], config["enable.idempotence"], config["partitioner"]) == ("all", True, "murmur2_random")
    Producer(config)


@pytest.mark.parametrize(
    ("milliseconds", "time"),
    [
        (1_795_805_360_499, datetime(2026, 11, 27, 18, 49, 20, 499_000, UTC)),
        # Nanoseconds, sent as milliseconds.
        (1_795_805_360_499_000_000, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (2**63 - 1, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (-(2**63), datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_any_timestamp_of_a_record_is_a_time(milliseconds: int, time: datetime) -> None:
    assert kafka_client.time_of(Message(timestamp=(1, milliseconds))) == time
