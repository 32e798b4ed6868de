"""Reads topics from one offset to another."""

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from runtime.kafka_client import PARTITION_EOF
from runtime.topic_reader import offset_ranges
from verify.lake import NotReadableError

_BATCH: Final = 10_000
_POLL: Final = 0.1
_TIMEOUT: Final = 60.0
"""Seconds without any record, after which the broker does not answer."""


class TopicReader:
    """Reads one topic, again and again."""

    def __init__(self, kafka_client: Mapping[str, str | int], topic: str) -> None:
        self.topic = topic
        self._positions: dict[int, int] = {}
        self._consumer = Consumer(
            {
                **kafka_client,
                "group.id": "verify",
                "log_level": 0,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                # The last offsets may be of aborted records or transaction markers, which are never delivered.
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "queued.max.messages.kbytes": 64 << 10,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def ranges(self) -> dict[int, tuple[int, int]]:
        """Return the first and the next offset of each partition; raises `NotReadableError` without the topic."""
        ranges = offset_ranges(self._consumer, self.topic, 30.0)
        if not ranges:
            raise NotReadableError(f"there is no topic {self.topic}: set KAFKA_TOPIC, or start the pipeline first")
        return ranges

    def read(self, begins: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[list[Message]]:
        """Yield the committed records between two offsets of each partition, one partition after another.

        Raises `NotReadableError` if the broker sends nothing for a minute, and KafkaException.
        """
        for partition, end in sorted(ends.items()):
            begin = begins.get(partition, 0)
            if begin < end:
                self._consumer.assign([TopicPartition(self.topic, partition, begin)])
                yield from self._read_assigned(end)
        self._consumer.unassign()

    def read_new(self) -> Iterator[list[Message]]:
        """Yield the committed records that were added since the last call, at first all."""
        ranges = self.ranges()
        begins = {partition: max(self._positions.get(partition, 0), begin) for partition, (begin, _) in ranges.items()}
        ends = {partition: end for partition, (_, end) in ranges.items()}
        yield from self.read(begins, ends)
        self._positions = ends

    def _read_assigned(self, end: int) -> Iterator[list[Message]]:
        deadline = time.monotonic() + _TIMEOUT
        while True:
            batch, is_read = [], False
            for message in self._consumer.consume(_BATCH, timeout=_POLL):
                deadline = time.monotonic() + _TIMEOUT
                error, offset = message.error(), int(message.offset() or 0)
                if error is not None and error.code() != PARTITION_EOF:
                    raise KafkaException(error)
                is_read |= offset >= end - 1
                if error is None and offset < end:
                    batch.append(message)
            if batch:
                yield batch
            if is_read:
                return
            if time.monotonic() > deadline:
                raise NotReadableError(f"topic {self.topic}: Kafka sends nothing for {_TIMEOUT:.0f} s")
