"""Topics, partitions, committed offsets and records, read from Kafka by a consumer of the page's own."""

import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cachetools.func import ttl_cache
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from contract import dead_letters
from live_page.settings import PageSettings
from live_page.sources.errors import translate_errors
from runtime.kafka_client import PARTITION_EOF, headers_of, time_of
from runtime.topic_reader import offset_ranges

KAFKA: Final = "Kafka"
_TIMEOUT: Final = 3.0
_CACHE_SECONDS: Final = 0.9
SEARCHED_RECORDS: Final = 50_000
"""Number of a topic's latest records that a search by key reads."""


@dataclass(frozen=True)
class Partition:
    """A partition of a topic."""

    partition: int
    start: int
    end: int
    """The offset of the next record."""
    leader: int
    committed: int | None
    """Committed by the sink's group, if it reads this topic."""

    @property
    def lag(self) -> int | None:
        """Records that the group has not committed."""
        return None if self.committed is None else max(0, self.end - self.committed)


@dataclass(frozen=True)
class TopicState:
    """Current state of a topic."""

    name: str
    partitions: tuple[Partition, ...]
    exists: bool

    @property
    def records(self) -> int:
        """Offsets in the topic, including compacted and aborted records and markers of transactions."""
        return sum(each.end - each.start for each in self.partitions)

    @property
    def lag(self) -> int | None:
        """Lag of the sink's group over all partitions."""
        lags = [each.lag for each in self.partitions if each.lag is not None]
        return sum(lags) if lags else None


@dataclass(frozen=True)
class Record:
    """A committed record, decoded; bytes that are not UTF-8 are escaped, control characters are not."""

    at: datetime
    partition: int
    offset: int
    key: str
    value: str
    headers: dict[str, str]


class Topics:
    """Reads from the broker; every method raises `UnavailableError`."""

    def __init__(self, settings: PageSettings) -> None:
        self._settings = settings
        self._admin = AdminClient({**settings.kafka_client, "log_level": 0})
        self.state = ttl_cache(20, _CACHE_SECONDS)(self._state)
        self.latest = ttl_cache(50, _CACHE_SECONDS)(self._latest)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pipeline's topics."""
        return self._settings.kafka_topic, self._settings.aggregated_topic, self._settings.dead_letter_topic

    def _state(self, topic: str) -> TopicState:
        """Read the current state of a topic."""
        with translate_errors(KAFKA):
            metadata = self._admin.list_topics(topic, timeout=_TIMEOUT).topics[topic]
            committed = self._committed(topic, metadata.partitions)
            with closing(self._consumer()) as consumer:
                offsets = offset_ranges(consumer, topic, _TIMEOUT)
        partitions = (
            Partition(n, start, end, metadata.partitions[n].leader, committed.get(n))
            for n, (start, end) in sorted(offsets.items())
        )
        return TopicState(topic, tuple(partitions), metadata.error is None)

    def _committed(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        group = self._settings.kafka_group_id
        requested = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, n) for n in partitions])
        if topic != self._settings.aggregated_topic or not requested.topic_partitions:
            return {}
        response = self._admin.list_consumer_group_offsets([requested], request_timeout=_TIMEOUT)[group].result()
        return {each.partition: each.offset for each in response.topic_partitions or [] if each.offset >= 0}

    def _latest(self, topic: str, size: int = 20) -> list[Record]:
        """Return the latest records, the last one first."""
        with translate_errors(KAFKA):
            messages = self._read(topic, size)
        return [_record(message) for message in messages[:size]]

    def find(self, topic: str, key: str, size: int = 50) -> list[Record]:
        """Return the records with a key among the topic's latest 50,000, the last one first."""
        with translate_errors(KAFKA):
            found = [message for message in self._read(topic, SEARCHED_RECORDS) if _decode(message.key()) == key]
        return [_record(message) for message in found[:size]]

    def _read(self, topic: str, limit: int) -> list[Message]:
        """Return the latest committed records of all partitions, the last one first: `limit` or somewhat more.

        Returns fewer if the topic has fewer or reading takes longer than 3 s.
        """
        deadline = time.monotonic() + _TIMEOUT
        messages: list[Message] = []
        with closing(self._consumer()) as consumer:
            offsets = offset_ranges(consumer, topic, _TIMEOUT)
            filled = {n: (start, end) for n, (start, end) in offsets.items() if start < end}
            # Grows until it holds enough records: transactions and compaction leave gaps in the offsets.
            window = max(limit // len(filled), min(limit, 50)) if filled else 0
            while window:
                starts = {n: max(start, end - window) for n, (start, end) in filled.items()}
                messages = _consume(consumer, topic, starts, deadline)
                is_all = all(start == filled[n][0] for n, start in starts.items())
                if len(messages) >= limit or is_all or window > SEARCHED_RECORDS or time.monotonic() > deadline:
                    break
                window *= 10
        return sorted(messages, key=lambda message: (message.timestamp()[1], message.offset() or 0), reverse=True)

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                **self._settings.kafka_client,
                "group.id": "live-page",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                # If the last offsets are not records, this alone signals the end of the partition.
                "enable.partition.eof": True,
                "log_level": 0,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
            }
        )


def _consume(consumer: Consumer, topic: str, starts: dict[int, int], deadline: float) -> list[Message]:
    """Read from these offsets to the partitions' ends, or until `deadline` (monotonic clock)."""
    consumer.assign([TopicPartition(topic, n, start) for n, start in starts.items()])
    messages: list[Message] = []
    ended: set[int | None] = set()
    while len(ended) < len(starts) and time.monotonic() < deadline:
        for message in consumer.consume(5_000, timeout=0.2):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == PARTITION_EOF:
                ended.add(message.partition())
            elif error.fatal():
                raise KafkaException(error)
    return messages


def is_dead_letter(record: Record) -> bool:
    """Whether a record has the headers of a dead letter, rather than those of a replayed one."""
    return dead_letters.REASON in record.headers


def _record(message: Message) -> Record:
    return Record(
        at=time_of(message),
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=_decode(message.key()),
        value=_decode_value(message.value()),
        headers={name: _decode(value) for name, value in headers_of(message)},
    )


def _decode_value(data: object) -> str:
    # Not parsed: formatting JSON again could change a number.
    return "(deleted)" if data is None else _decode(data)


def _decode(data: object) -> str:
    return data.decode(errors="backslashreplace") if isinstance(data, bytes) else "" if data is None else str(data)
