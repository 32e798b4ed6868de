"""Writes records that cannot be indexed to the dead letter topic: the original bytes, and the reason."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import KafkaError, Message, Producer

from contract import dead_letters
from elasticsearch_sink_alert.kafka.rows import Rejected
from runtime import topic_admin
from runtime.client_logs import lower_routine
from runtime.kafka_client import producer_config

logger = logging.getLogger(__name__)
logger.addFilter(lower_routine)

_Header = tuple[str, str | bytes | None]


class UndeliverableError(Exception):
    """The broker refuses a dead letter, and would refuse it again."""


class DeadLetterWriter:
    """Writes dead letters and waits until the broker has acknowledged them. `sleep` waits for some seconds."""

    def __init__(self, kafka_client: Mapping[str, str | int], topic: str, sleep: Callable[[float], None]) -> None:
        self._kafka_client = kafka_client
        self._topic = topic
        self._sleep = sleep
        self._connected: tuple[Producer, dead_letters.Capacity] | None = None

    def write(self, rejected: Iterable[Rejected]) -> None:
        """Write dead letters, and wait for the broker's acknowledgement for as long as it takes.

        Of a record that is larger than the topic accepts, only the start is written. Raises `UndeliverableError` if
        the broker still refuses one.
        """
        refused = self._send(list(rejected))
        if any(error.code() == KafkaError.MSG_SIZE_TOO_LARGE for _, error in refused):
            # The topic's limit was lowered since it was read.
            self._connected = None
            refused = self._send([rejection for rejection, _ in refused])
        if refused:
            raise UndeliverableError(
                f"topic {self._topic} refuses a dead letter ({refused[0][1].str()}): nothing was committed, and the"
                " records are processed again once this is fixed"
            )

    def _send(self, rejected: Sequence[Rejected]) -> list[tuple[Rejected, KafkaError]]:
        """Return the records that the broker has refused, with the errors."""
        producer, capacity = self._connected = self._connected or self._connect()
        refused: list[tuple[Rejected, KafkaError]] = []
        for rejection in rejected:
            self._produce(producer, capacity, rejection, refused)
        while producer.flush(0.5):
            self._sleep(0.5)
        return refused

    def _produce(
        self,
        producer: Producer,
        capacity: dead_letters.Capacity,
        rejection: Rejected,
        refused: list[tuple[Rejected, KafkaError]],
    ) -> None:
        def on_delivery(error: KafkaError | None, _: Message) -> None:
            if error:
                refused.append((rejection, error))

        key, value, cut = capacity.fit(rejection.record.key, rejection.record.value)
        headers = _headers(rejection, cut)
        while True:
            try:
                producer.produce(self._topic, key=key, value=value, headers=headers, on_delivery=on_delivery)
                return
            except BufferError:
                # The client's queue is full.
                producer.poll(0.5)
                self._sleep(0)

    def _connect(self) -> tuple[Producer, dead_letters.Capacity]:
        limit = min(self._max_message_bytes(), dead_letters.MAX_BYTES)
        config = producer_config(self._kafka_client, limit) | {"message.timeout.ms": 0}
        return Producer(config, logger=logger), dead_letters.Capacity.of(limit)

    def _max_message_bytes(self) -> int:
        # Short requests: the sink polls Kafka between them, to keep its group membership.
        try:
            return topic_admin.wait_for_max_message_bytes(
                self._kafka_client, self._topic, self._sleep, request_timeout=2.0
            )
        except topic_admin.TopicError as error:
            raise UndeliverableError(str(error)) from None


def _headers(rejection: Rejected, cut: str | None) -> list[_Header]:
    headers = {
        dead_letters.TOPIC: rejection.record.topic,
        dead_letters.PARTITION: str(rejection.record.partition),
        dead_letters.OFFSET: str(rejection.record.offset),
        dead_letters.REASON: dead_letters.truncated(rejection.reason, dead_letters.MAX_REASON_CHARACTERS),
        dead_letters.SERVICE: dead_letters.ELASTICSEARCH_SINK,
    }
    if cut is not None:
        headers[dead_letters.CUT] = cut
    return [(name, text.encode(errors="replace")) for name, text in headers.items()]
