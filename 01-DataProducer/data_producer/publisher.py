"""Sends interactions to Kafka, each at most once however often librdkafka has to retry."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from confluent_kafka import KafkaError, Message, Producer

from contract.dead_letters import MAX_REASON_CHARACTERS, truncated
from contract.interaction import Interaction
from runtime.health import Health

logger = logging.getLogger(__name__)

KAFKA_PART = "kafka"


class PublishError(Exception):
    """The producer cannot go on; waiting would not mend it."""


class Publisher:
    """Accepts interactions, sends them in the background, and counts what was delivered.

    What it has accepted it sends for as long as it takes, while the broker is away too: then its
    queue fills up, and `publish` waits.
    """

    def __init__(
        self, kafka_client: Mapping[str, str | int], topic: str, health: Health, max_message_bytes: int
    ) -> None:
        self._topic = topic
        self._health = health
        self._fatal: KafkaError | None = None
        self.accepted = 0
        self.refused = 0
        """Accepted, and then given up by librdkafka or the broker for good."""
        self._producer = Producer(
            {
                **kafka_client,
                "acks": "all",
                "enable.idempotence": True,
                # The Java client's partitioner, so that every client finds a key in the same partition.
                "partitioner": "murmur2_random",
                # No message is ever too old to be sent: its timeout is infinite.
                "message.timeout.ms": 0,
                "linger.ms": 20,
                "batch.size": 512 << 10,
                # Of a batch as well: the topic would refuse a larger one as a whole.
                "message.max.bytes": max_message_bytes,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 200_000,
                # Only failures call back: what is delivered is what was accepted and neither failed nor waits.
                "delivery.report.only.error": True,
                "on_delivery": self._on_failure,
                "error_cb": self._on_error,
            },
            logger=logger,
        )

    def publish(self, interactions: Sequence[Interaction]) -> None:
        """Accept interactions, waiting while the queue is full. Raises `PublishError`."""
        self.publish_records(
            [{"key": interaction.user_id.encode(), "value": orjson.dumps(interaction)} for interaction in interactions]
        )

    def publish_records(self, pending: list[dict[str, Any]]) -> None:
        """The same for records of any making, each with a `value` and perhaps a `key`."""
        while pending:
            self._producer.produce_batch(self._topic, pending)
            left = []
            for message in pending:
                error = message.pop("_error", None)
                if error is not None and error.code() == KafkaError._QUEUE_FULL:
                    left.append(message)
                elif error is not None:
                    self._refuse(error, message["value"])
            self.accepted += len(pending) - len(left)
            pending = left
            self.poll(0.05 if pending else 0)

    def poll(self, seconds: float) -> None:
        """Let librdkafka report for up to `seconds`. Raises `PublishError`."""
        self._producer.poll(seconds)
        if self._fatal is not None:
            raise PublishError(f"{self._fatal.str()} ({self._fatal.name()})")

    def flush(self, seconds: float) -> None:
        """Wait up to `seconds` for what is queued."""
        self._producer.flush(seconds)

    @property
    def waiting(self) -> int:
        """Accepted, and not acknowledged yet."""
        return len(self._producer)

    @property
    def delivered(self) -> int:
        """Acknowledged by the broker."""
        return self.accepted - self.refused - self.waiting

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refuse(error, message.value())

    def _refuse(self, error: KafkaError, value: object) -> None:
        self.refused += 1
        logger.error("an interaction was refused: %s: %s", error.str(), truncated(repr(value), MAX_REASON_CHARACTERS))

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._health.failing(KAFKA_PART, error.str())
