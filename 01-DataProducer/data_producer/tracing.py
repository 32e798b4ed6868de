"""Starts the traces of sampled interactions: each record has the header with which the other services continue it."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry.trace import SpanKind

from contract.topics import TRACEPARENT
from runtime.tracing import Attributes, Traces, header_of

_SERVICE: Final = "data-producer"


class SendTraces:
    """The root spans: an interaction is handed to the Kafka client, which sends it in the background."""

    def __init__(self, endpoint: str, ratio: float, topic: str) -> None:
        """Sample a share of the interactions, from 0 to 1."""
        self._traces = Traces(_SERVICE, endpoint)
        self._ratio = ratio
        self._topic = topic
        self._random = random.Random()

    def sampled(self, size: int) -> Iterator[int]:
        """Yield the positions of the sampled interactions among `size`."""
        return (number for number in range(size) if self._random.random() < self._ratio)

    @contextmanager
    def sending(self, record: Mapping[str, Any]) -> Iterator[dict[str, str | bytes | None]]:
        """Record the span of one record; yields the record's headers."""
        attributes: Attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": self._topic,
            "messaging.kafka.message.key": record["key"].decode(),
        }
        span = self._traces.start(f"send {self._topic}", SpanKind.PRODUCER, attributes)
        try:
            yield {TRACEPARENT: header_of(span)}
        finally:
            span.end()

    def close(self) -> None:
        """Send the last spans, within a second."""
        self._traces.close()
