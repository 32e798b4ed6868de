"""How Spark reaches Kafka, and the form of what it writes there."""

from collections.abc import Sequence
from typing import Final

from confluent_kafka import Producer, TopicCollection
from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame

from contract import dead_letters
from runtime import topic_admin
from runtime.kafka_client import producer_config
from stream_processing.settings import StreamProcessingSettings

_LEAST_REQUEST: Final = 1 << 20
_LEAST_BUFFER: Final = 32 << 20
"""Both are the client's defaults."""


def connection_options(settings: StreamProcessingSettings) -> dict[str, str]:
    """How Spark's Java clients reach the broker: what `Settings.kafka_client` is for librdkafka."""
    options = {
        "kafka.bootstrap.servers": settings.kafka_broker,
        "kafka.security.protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        module = "plain.PlainLoginModule" if settings.kafka_sasl_mechanism == "PLAIN" else "scram.ScramLoginModule"
        user, password = _quoted(settings.kafka_username), _quoted(settings.kafka_password.get_secret_value())
        options |= {
            "kafka.sasl.mechanism": settings.kafka_sasl_mechanism,
            "kafka.sasl.jaas.config": (
                f"org.apache.kafka.common.security.{module} required username={user} password={password};"
            ),
        }
    if settings.kafka_ca_file is not None:
        options |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": str(settings.kafka_ca_file)}
    return options


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def source_options(settings: StreamProcessingSettings, topic: str) -> dict[str, str]:
    """Options of a Kafka source, streaming or not, over all of `topic`."""
    return {
        **connection_options(settings),
        "subscribe": topic,
        "startingOffsets": "earliest",
        # A gap in the offsets stops the job instead of passing for no data.
        "failOnDataLoss": "true",
        # What a transaction has aborted never happened. (Clients of librdkafka do this by default.)
        "kafka.isolation.level": "read_committed",
        # Larger fetches, and no second checksum over what TCP has checked: twice the events a second.
        "kafka.max.poll.records": "20000",
        "kafka.max.partition.fetch.bytes": str(16 << 20),
        "kafka.fetch.max.bytes": str(64 << 20),
        "kafka.check.crcs": "false",
    }


def max_message_bytes(settings: StreamProcessingSettings, topic: str) -> int:
    """The largest batch of records that the topic takes now, in bytes."""
    return topic_admin.max_message_bytes(settings.kafka_client, topic)


def write_records(
    records: DataFrame, settings: StreamProcessingSettings, topic: str, max_message_bytes: int = 0
) -> None:
    """Send records (key, value, headers if any) to `topic`; returns when the broker has them all.

    `max_message_bytes` is the topic's; below a MiB it does not matter.
    """
    request = min(max(max_message_bytes, _LEAST_REQUEST), dead_letters.MAX_BYTES)
    (
        records.write.format("kafka")
        .options(**connection_options(settings))
        .option("kafka.acks", "all")
        .option("kafka.enable.idempotence", "true")
        .option("kafka.linger.ms", "5")
        .option("kafka.batch.size", str(256 << 10))
        .option("kafka.compression.type", "lz4")
        # Kafka's client refuses what is larger than either, before it is compressed.
        .option("kafka.max.request.size", str(request))
        .option("kafka.buffer.memory", str(max(_LEAST_BUFFER, 2 * request)))
        # Long enough for a broker to come back; then the batch fails, and is done again.
        .option("kafka.delivery.timeout.ms", "300000")
        .option("topic", topic)
        .save()
    )


def partitions_of(settings: StreamProcessingSettings, topic: str) -> list[int]:
    """The partitions that the topic has now."""
    return list(AdminClient({**settings.kafka_client}).list_topics(topic, timeout=30).topics[topic].partitions)


def topic_id(settings: StreamProcessingSettings, topic: str) -> str:
    """What tells a topic from one of the same name that is made after it is deleted."""
    # The client has to live until it has answered.
    admin = AdminClient({**settings.kafka_client})
    found = admin.describe_topics(TopicCollection([topic]), request_timeout=30)
    return str(found[topic].result().topic_id)


class RecordSender:
    """Sends a few records from the driver, where a Spark job would cost more than the records."""

    def __init__(self, settings: StreamProcessingSettings, topic: str, max_message_bytes: int) -> None:
        self._topic = topic
        self._refused: list[str] = []
        self._producer = Producer(
            producer_config(settings.kafka_client, max_message_bytes)
            | {
                "linger.ms": 0,
                "on_delivery": lambda error, _: self._refused.append(error.str()) if error else None,
            }
        )

    def send(self, records: Sequence[tuple[str, str]]) -> None:
        """Send keys and values; returns when the broker has them all, and raises `ConnectionError` if it has not."""
        for key, value in records:
            self._producer.produce(self._topic, key=key.encode(), value=value.encode())
        # librdkafka gives a record up after five minutes, as Spark's sink does.
        self._producer.flush()
        if self._refused:
            raise ConnectionError(f"{self._topic}: {len(self._refused)} records were not delivered: {self._refused[0]}")
