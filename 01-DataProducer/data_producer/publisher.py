"""Sends interactions to Kafka by an idempotent producer: retries of librdkafka never duplicate one."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contract.dead_letters import MAX_REASON_CHARACTERS, truncated
from data_producer.events import Event, record_of
from runtime.client_logs import lower_routine
from runtime.health import Health
from runtime.kafka_client import ALL_BROKERS_DOWN, QUEUE_FULL, producer_config
from runtime.logs import coordinates

if TYPE_CHECKING:
    from data_producer.tracing import SendTraces

logger = logging.getLogger(__name__)
logger.addFilter(lower_routine)

KAFKA = "kafka"
"""The component's name in /health."""
FLUSH_TIMEOUT = 8.0
"""Seconds to deliver what is queued at the end: less than the 10 that a container has to stop."""


class PublishError(Exception):
    """The Kafka client has failed, and a retry cannot help."""


class Publisher:
    """Accepts interactions, sends them in the background, and counts the delivered ones.

    It retries accepted interactions until the broker is available. Meanwhile its queue fills up, and `publish` blocks.
    """

    def __init__(
        self,
        kafka_client: Mapping[str, str | int],
        topic: str,
        health: Health,
        max_message_bytes: int,
        traces: "SendTraces | None" = None,
    ) -> None:
        self._topic = topic
        self._traces = traces
        self._health = health
        self._fatal: KafkaError | None = None
        self.accepted = 0
        self.refused = 0
        """Accepted, and then permanently rejected by librdkafka or the broker."""
        self._producer = Producer(
            producer_config(kafka_client, max_message_bytes)
            | {
                # No timeout.
                "message.timeout.ms": 0,
                "linger.ms": 20,
                "batch.size": 512 << 10,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 200_000,
                # Callbacks for failures only: the rest follows from the counts of accepted, refused and waiting.
                "delivery.report.only.error": True,
                "on_delivery": self._on_failure,
                "error_cb": self._on_error,
            },
            logger=logger,
        )

    def publish(self, events: Sequence[Event]) -> None:
        """Accept events, blocking while the queue is full. Raises `PublishError`."""
        records = list(map(record_of, events))
        if self._traces is None:
            self.publish_records(records)
        else:
            self._publish_traced(records, self._traces)

    def publish_records(self, pending: list[dict[str, Any]]) -> None:
        """Accept records with a `value` and an optional `key`, like `publish`."""
        while pending:
            self._producer.produce_batch(self._topic, pending)
            queue_full = []
            for message in pending:
                error = message.pop("_error", None)
                if error is not None and error.code() == QUEUE_FULL:
                    queue_full.append(message)
                elif error is not None:
                    self._refuse(error, message["value"])
            self.accepted += len(pending) - len(queue_full)
            pending = queue_full
            self.poll(0.05 if pending else 0)

    def _publish_traced(self, records: list[dict[str, Any]], traces: "SendTraces") -> None:
        """Publish records in their order, and those that are sampled one by one: a batch has no headers."""
        start = 0
        for number in traces.sampled(len(records)):
            self.publish_records(records[start:number])
            with traces.sending(records[number]) as headers:
                self._publish_with(headers, records[number])
            start = number + 1
        self.publish_records(records[start:])

    def _publish_with(self, headers: dict[str, str | bytes | None], record: dict[str, Any]) -> None:
        while True:
            try:
                self._producer.produce(self._topic, **record, headers=headers)
            except BufferError:
                self.poll(0.05)
            except KafkaException:
                # The topic may accept it without the header.
                return self.publish_records([record])
            else:
                self.accepted += 1
                return None

    def poll(self, seconds: float) -> None:
        """Serve librdkafka's callbacks for up to `seconds`. Raises `PublishError`."""
        self._producer.poll(seconds)
        if self._fatal is not None:
            raise PublishError(f"{self._fatal.str()} ({self._fatal.name()})")

    def flush(self, seconds: float) -> None:
        """Wait up to `seconds` for the queued interactions to be delivered."""
        self._producer.flush(seconds)

    @property
    def waiting(self) -> int:
        """Accepted and not yet acknowledged."""
        return len(self._producer)

    @property
    def delivered(self) -> int:
        """Acknowledged by the broker."""
        return self.accepted - self.refused - self.waiting

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refuse(error, message.value(), message.partition())

    def _refuse(self, error: KafkaError, value: object, partition: int | None = None) -> None:
        self.refused += 1
        logger.error(
            "an interaction was refused: %s: %s", error.str(), truncated(repr(value), MAX_REASON_CHARACTERS),
            extra=coordinates(self._topic, partition),
        )  # fmt: skip

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        elif error.code() == ALL_BROKERS_DOWN:
            self._health.failing(KAFKA, error.str())
