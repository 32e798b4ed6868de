"""Follows a topic of changed rows while an engine writes it, reading each record once."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks.published import USERS, Published, Row
from runtime.topic_reader import offset_ranges

_BATCH: Final = 10_000
_POLL_SECONDS: Final = 0.5
_QUIET_SECONDS: Final = 3.0
"""Without a record for that long after everything was counted, nothing more is published."""
_PATIENCE_SECONDS: Final = 900.0


class OutputTopic:
    """The latest row of each key, and when the rows of users were appended; only committed records count."""

    def __init__(self, broker: str, topic: str) -> None:
        self.rows: dict[str, bytes] = {}
        self.published = Published()
        self.last_append_ms = 0
        """When the latest record was appended (epoch ms)."""
        self._covered = 0
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker,
                "group.id": "benchmarks",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        partitions = offset_ranges(self._consumer, topic, timeout=30.0)
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close()

    def drain(self, interactions: int, check: Callable[[], None]) -> int:
        """Read until the users' rows count all interactions and no row follows; return the last append (epoch ms).

        `check` is called now and then, to raise an error if the engine has failed. Raises TimeoutError.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        quiet_since = time.monotonic()
        while self._covered < interactions or time.monotonic() - quiet_since < _QUIET_SECONDS:
            if self.read(_POLL_SECONDS):
                quiet_since = time.monotonic()
            check()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self._covered:,} of {interactions:,} interactions were counted in {_PATIENCE_SECONDS:.0f} s"
                )
        return self.last_append_ms

    def read(self, seconds: float) -> int:
        """Read what arrives within `seconds`; return the number of records."""
        messages = self._consumer.consume(_BATCH, timeout=seconds)
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            self._add(message.key() or b"", message.value() or b"", message.timestamp()[1])
        return len(messages)

    def _add(self, key: bytes, value: bytes, at_ms: int) -> None:
        self.last_append_ms = max(self.last_append_ms, at_ms)
        if not key.startswith(USERS):
            self.rows[key.decode()] = value
            return
        row = orjson.loads(value)
        if row.get("diff", 1) < 0:  # Pathway's retraction of a row that is replaced.
            return
        self.rows[key.decode()] = value
        rows = self.published.rows[row["user_id"].encode()]
        self._covered += row["total_interactions"] - (rows[-1].total if rows else 0)
        rows.append(Row(at_ms, row["total_interactions"]))
