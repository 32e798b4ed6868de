"""Sends what cannot be indexed to the dead letter topic: the original bytes, and the reason."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from confluent_kafka import KafkaError, Producer

from contract import dead_letters
from elasticsearch_sink_alert.rows import Rejected

SERVICE: Final = "elasticsearch-sink-alert"
"""Who put a record aside, in its headers."""


class UndeliverableError(Exception):
    """The broker refuses a dead letter for good."""


class DeadLetterWriter:
    """Writes dead letters, and knows when the broker has them."""

    def __init__(self, kafka_client: Mapping[str, str | int], topic: str, sleep: Callable[[float], None]) -> None:
        self._topic = topic
        self._sleep = sleep
        settings = {"acks": "all", "enable.idempotence": True, "message.timeout.ms": 0, "message.max.bytes": 20 << 20}
        self._producer = Producer({**kafka_client, **settings})

    def write(self, rejected: Iterable[Rejected]) -> None:
        """Send them, and wait for the broker's acknowledgement for as long as it takes.

        Raises `UndeliverableError` for what the broker refuses, such as a letter larger than the topic takes.
        """
        refused: list[KafkaError] = []
        for letter in rejected:
            record = letter.record
            headers = {
                dead_letters.TOPIC: record.topic,
                dead_letters.PARTITION: str(record.partition),
                dead_letters.OFFSET: str(record.offset),
                dead_letters.REASON: letter.reason,
                dead_letters.SERVICE: SERVICE,
            }
            self._producer.produce(
                self._topic,
                key=record.key,
                value=record.value,
                headers=[(name, value.encode()) for name, value in headers.items()],
                on_delivery=lambda error, _: refused.append(error) if error else None,
            )
        while self._producer.flush(0.5):
            self._sleep(0.5)
        if refused:
            raise UndeliverableError(
                f"topic {self._topic} takes no dead letter ({refused[0].str()}): nothing was committed, and the records"
                " are done again once this is mended (for too large ones: the topic's max.message.bytes)"
            )
