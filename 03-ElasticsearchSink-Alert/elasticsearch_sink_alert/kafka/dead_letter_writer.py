"""Sends what cannot be indexed to the dead letter topic: the original bytes, and the reason."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from contract import dead_letters
from elasticsearch_sink_alert.kafka.rows import Rejected
from runtime import topic_admin
from runtime.kafka_client import producer_config

SERVICE: Final = "elasticsearch-sink-alert"
"""Who put a record aside, in its headers."""


class UndeliverableError(Exception):
    """The broker refuses a dead letter for good."""


class DeadLetterWriter:
    """Writes dead letters, and knows when the broker has them."""

    def __init__(self, kafka_client: Mapping[str, str | int], topic: str, sleep: Callable[[float], None]) -> None:
        self._kafka_client = kafka_client
        self._topic = topic
        self._sleep = sleep
        self._connected: tuple[Producer, dead_letters.Capacity] | None = None

    def write(self, rejected: Iterable[Rejected]) -> None:
        """Send them, and wait for the broker's acknowledgement for as long as it takes.

        Of what is larger than the topic takes, the start is sent. Raises `UndeliverableError` for what the broker
        refuses all the same.
        """
        refused = self._send(list(rejected))
        if any(error.code() == KafkaError.MSG_SIZE_TOO_LARGE for _, error in refused):
            # The topic takes less than when it was asked.
            self._connected = None
            refused = self._send([letter for letter, _ in refused])
        if refused:
            raise UndeliverableError(
                f"topic {self._topic} takes no dead letter ({refused[0][1].str()}): nothing was committed, and the"
                " records are done again once this is fixed"
            )

    def _send(self, rejected: Sequence[Rejected]) -> list[tuple[Rejected, KafkaError]]:
        """Those that the broker has refused, and why."""
        producer, capacity = self._connected = self._connected or self._connect()
        refused: list[tuple[Rejected, KafkaError]] = []

        def of(letter: Rejected) -> Callable[[KafkaError | None, Message], None]:
            return lambda error, _: refused.append((letter, error)) if error else None

        for letter in rejected:
            record = letter.record
            key, value, cut = capacity.fit(record.key, record.value)
            headers = {
                dead_letters.TOPIC: record.topic,
                dead_letters.PARTITION: str(record.partition),
                dead_letters.OFFSET: str(record.offset),
                dead_letters.REASON: dead_letters.truncated(letter.reason, dead_letters.MAX_REASON_CHARACTERS),
                dead_letters.SERVICE: SERVICE,
            }
            if cut is not None:
                headers[dead_letters.CUT] = cut
            encoded: list[tuple[str, str | bytes | None]] = [
                (name, text.encode(errors="replace")) for name, text in headers.items()
            ]
            while True:
                try:
                    producer.produce(self._topic, key=key, value=value, headers=encoded, on_delivery=of(letter))
                    break
                except BufferError:
                    # What waits to be sent is as much as the client holds.
                    producer.poll(0.5)
                    self._sleep(0)
        while producer.flush(0.5):
            self._sleep(0.5)
        return refused

    def _connect(self) -> tuple[Producer, dead_letters.Capacity]:
        limit = min(self._max_message_bytes(), dead_letters.MAX_BYTES)
        config = producer_config(self._kafka_client, limit) | {"message.timeout.ms": 0}
        return Producer(config), dead_letters.Capacity.of(limit)

    def _max_message_bytes(self) -> int:
        # Short requests: the sink polls Kafka between them, to keep its group membership.
        try:
            return topic_admin.wait_for_max_message_bytes(
                self._kafka_client, self._topic, self._sleep, request_timeout=2.0
            )
        except topic_admin.TopicError as error:
            raise UndeliverableError(str(error)) from None
