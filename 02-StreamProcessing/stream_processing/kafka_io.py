"""Connects Spark and the driver to Kafka: client options, sources, sinks and topic metadata."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, Producer
from pyspark.sql import DataFrame

from contract import dead_letters
from runtime import topic_admin, topic_reader
from runtime.client_logs import lower_routine
from runtime.kafka_client import producer_config
from runtime.signals import StoppedError
from stream_processing.quoting import double_quoted
from stream_processing.settings import StreamProcessingSettings

logger = logging.getLogger(__name__)
logger.addFilter(lower_routine)

_MIN_REQUEST_BYTES: Final = 1 << 20
_MIN_BUFFER_BYTES: Final = 32 << 20
"""Both are the defaults of Kafka's Java client."""
_STOP_TIMEOUT: Final = 2.0
"""Seconds that a stop waits for Kafka; rows that are not acknowledged by then are published after the next start."""


class UndeliveredError(ConnectionError):
    """Kafka has not acknowledged records within the client's timeout."""


def connection_options(settings: StreamProcessingSettings) -> dict[str, str]:
    """Return the connection options of Spark's Java clients, as `Settings.kafka_client` does for librdkafka."""
    options = {
        "kafka.bootstrap.servers": settings.kafka_broker,
        "kafka.security.protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        module = "plain.PlainLoginModule" if settings.kafka_sasl_mechanism == "PLAIN" else "scram.ScramLoginModule"
        user = double_quoted(settings.kafka_username)
        password = double_quoted(settings.kafka_password.get_secret_value())
        options |= {
            "kafka.sasl.mechanism": settings.kafka_sasl_mechanism,
            "kafka.sasl.jaas.config": (
                f"org.apache.kafka.common.security.{module} required username={user} password={password};"
            ),
        }
    if settings.kafka_ca_file is not None:
        options |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": str(settings.kafka_ca_file)}
    return options


def source_options(settings: StreamProcessingSettings, topic: str) -> dict[str, str]:
    """Return the options of a Kafka source, streaming or batch, that reads all of `topic`."""
    return {
        **connection_options(settings),
        "subscribe": topic,
        "startingOffsets": "earliest",
        # A gap in the offsets stops the job; otherwise it would look like no data.
        "failOnDataLoss": "true",
        # Records of aborted transactions are not read. (Clients of librdkafka do this by default.)
        "kafka.isolation.level": "read_committed",
        # Larger fetches, and no second checksum over data that TCP has checked: twice the events per second.
        "kafka.max.poll.records": "20000",
        "kafka.max.partition.fetch.bytes": str(16 << 20),
        "kafka.fetch.max.bytes": str(64 << 20),
        # After the last records of a partition the client already waits for more of them, by default half a second, and
        # Spark's next request on that connection, for the offsets that the partition has, waits behind it.
        "kafka.fetch.max.wait.ms": "1",
        "kafka.check.crcs": "false",
    }


def max_message_bytes(settings: StreamProcessingSettings, topic: str) -> int:
    """Return the current `max.message.bytes` of the topic."""
    return topic_admin.max_message_bytes(settings.kafka_client, topic)


def write_records(
    records: DataFrame, settings: StreamProcessingSettings, topic: str, max_message_bytes: int = 0
) -> None:
    """Write records (key, value, optional headers) to `topic`; returns when the broker has acknowledged them all.

    `max_message_bytes` is the topic's; below 1 MiB it has no effect.
    """
    request = min(max(max_message_bytes, _MIN_REQUEST_BYTES), dead_letters.MAX_BYTES)
    (
        records.write.format("kafka")
        .options(**connection_options(settings))
        .option("kafka.acks", "all")
        .option("kafka.enable.idempotence", "true")
        .option("kafka.linger.ms", "5")
        .option("kafka.batch.size", str(256 << 10))
        .option("kafka.compression.type", "lz4")
        # The client rejects a record that is larger than either, before compression.
        .option("kafka.max.request.size", str(request))
        .option("kafka.buffer.memory", str(max(_MIN_BUFFER_BYTES, 2 * request)))
        # Long enough for a broker restart; after that the batch fails and is repeated.
        .option("kafka.delivery.timeout.ms", "300000")
        .option("topic", topic)
        .save()
    )


def partitions_of(settings: StreamProcessingSettings, topic: str) -> list[int]:
    """Return the current partitions of the topic."""
    return topic_admin.partitions_of(settings.kafka_client, topic)


def offset_ranges(settings: StreamProcessingSettings, topic: str, timeout: float = 30) -> dict[int, tuple[int, int]]:
    """Return the first offset of each partition, and that of its next committed record; raises KafkaException."""
    with closing(
        Consumer({**settings.kafka_client, "group.id": "stream-processing-offsets"}, logger=logger)
    ) as consumer:
        return topic_reader.offset_ranges(consumer, topic, timeout)


def topic_id(settings: StreamProcessingSettings, topic: str) -> str:
    """Return the id of the topic, which a topic recreated under the same name does not share."""
    return topic_admin.topic_id(settings.kafka_client, topic)


class RowProducer:
    """Sends records from the driver, many in flight; an error of one is raised by a later call.

    Every method ends with a `StoppedError` if Kafka does not answer after `stop` was set.
    """

    def __init__(
        self, settings: StreamProcessingSettings, topic: str, max_message_bytes: int, stop: threading.Event
    ) -> None:
        self._topic = topic
        self._stop = stop
        self._give_up_at = 0.0
        self._errors: list[str] = []
        self._producer = Producer(
            producer_config(settings.kafka_client, max_message_bytes)
            | {
                "linger.ms": 2,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 200_000,
                # A call for each record would cost a third of sending it.
                "delivery.report.only.error": True,
            },
            logger=logger,
        )

    def send(self, records: Iterable[tuple[str, str | None]], headers: Mapping[str, str] | None = None) -> None:
        """Send keys and values, without waiting for the broker while there is room for them.

        The value of a deleted row is None. Raises `UndeliveredError` if earlier ones have failed.
        """
        # To pass no headers would cost a seventh of sending a record.
        produce = self._producer.produce if headers is None else partial(self._producer.produce, headers=dict(headers))
        for key, value in records:
            while True:
                try:
                    produce(self._topic, key=key, value=value, on_delivery=self._on_error)
                    break
                except BufferError:
                    self._poll(self._producer.poll)
        self._producer.poll(0)
        self._raise_errors()

    def flush(self) -> None:
        """Wait until the broker has acknowledged all records; raises `UndeliveredError` if it has not."""
        # librdkafka fails a record after five minutes, as Spark's sink does.
        while self._poll(self._producer.flush):
            pass
        self._raise_errors()

    def _poll(self, poll: Callable[[float], int]) -> int:
        result = poll(0.1)
        if self._stop.is_set():
            self._give_up_at = self._give_up_at or time.monotonic() + _STOP_TIMEOUT
            if time.monotonic() > self._give_up_at:
                raise StoppedError
        return result

    def _on_error(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._errors.append(error.str())

    def _raise_errors(self) -> None:
        if self._errors:
            raise UndeliveredError(f"{self._topic}: {len(self._errors)} records were not delivered: {self._errors[0]}")


class RecordSender:
    """Sends a few records from the driver, for which a Spark job would be too expensive."""

    def __init__(self, settings: StreamProcessingSettings, topic: str, max_message_bytes: int) -> None:
        self._topic = topic
        self._errors: list[str] = []
        self._producer = Producer(
            producer_config(settings.kafka_client, max_message_bytes)
            | {
                "linger.ms": 0,
                "on_delivery": lambda error, _: self._errors.append(error.str()) if error else None,
            },
            logger=logger,
        )

    def send(self, records: Sequence[tuple[str, str | None]]) -> None:
        """Send keys and values, None for a deleted row, and wait until the broker has acknowledged them.

        Raises `UndeliveredError` otherwise.
        """
        for key, value in records:
            self._producer.produce(self._topic, key=key.encode(), value=None if value is None else value.encode())
        # librdkafka fails a record after five minutes, as Spark's sink does.
        self._producer.flush()
        if self._errors:
            raise UndeliveredError(f"{self._topic}: {len(self._errors)} records were not delivered: {self._errors[0]}")
