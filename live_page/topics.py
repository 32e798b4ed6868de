"""What Kafka holds: topics, partitions, groups, and records, read beside the pipeline by a consumer of its own."""

import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cachetools.func import ttl_cache
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from contract import dead_letters
from live_page.settings import PageSettings
from live_page.unavailable import told
from runtime.topic_reader import offset_ranges

KAFKA: Final = "Kafka"
_TIMEOUT: Final = 3.0
_FRESH: Final = 0.9
_SEARCHED: Final = 50_000
"""Records of a topic, the latest, among which a key is looked for."""


@dataclass(frozen=True)
class Partition:
    """A partition of a topic."""

    partition: int
    start: int
    end: int
    """The offset that the next record gets."""
    leader: int
    committed: int | None
    """Where the sink's group is, if it reads this topic."""

    @property
    def lag(self) -> int | None:
        """Records that the group has not done."""
        return None if self.committed is None else max(0, self.end - self.committed)


@dataclass(frozen=True)
class TopicState:
    """A topic as it is now."""

    name: str
    partitions: tuple[Partition, ...]
    is_there: bool

    @property
    def records(self) -> int:
        """Offsets that are kept: records, those that were compacted or aborted, and markers of transactions."""
        return sum(each.end - each.start for each in self.partitions)

    @property
    def lag(self) -> int | None:
        """Of the sink's group over all partitions."""
        lags = [each.lag for each in self.partitions if each.lag is not None]
        return sum(lags) if lags else None


@dataclass(frozen=True)
class Record:
    """A committed record, decoded as far as it can be; its text may have anything in it."""

    at: datetime
    partition: int
    offset: int
    key: str
    value: str
    headers: dict[str, str]


class Topics:
    """Asks the broker. Every method raises `UnavailableError`."""

    def __init__(self, settings: PageSettings) -> None:
        self._settings = settings
        self._admin = AdminClient({**settings.kafka_client, "log_level": 0})
        self.state = ttl_cache(20, _FRESH)(self._state)
        self.latest = ttl_cache(50, _FRESH)(self._latest)

    @property
    def names(self) -> tuple[str, ...]:
        """The pipeline's topics."""
        return self._settings.kafka_topic, self._settings.aggregated_topic, self._settings.dead_letter_topic

    def _state(self, topic: str) -> TopicState:
        """The topic as it is now."""
        with told(KAFKA):
            metadata = self._admin.list_topics(topic, timeout=_TIMEOUT).topics[topic]
            committed = self._committed(topic, metadata.partitions)
            with closing(self._consumer()) as consumer:
                found = offset_ranges(consumer, topic, _TIMEOUT)
        partitions = (
            Partition(n, start, end, metadata.partitions[n].leader, committed.get(n))
            for n, (start, end) in sorted(found.items())
        )
        return TopicState(topic, tuple(partitions), metadata.error is None)

    def _committed(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        group = self._settings.kafka_group_id
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, n) for n in partitions])
        if topic != self._settings.aggregated_topic or not wanted.topic_partitions:
            return {}
        answer = self._admin.list_consumer_group_offsets([wanted], request_timeout=_TIMEOUT)[group].result()
        return {each.partition: each.offset for each in answer.topic_partitions or [] if each.offset >= 0}

    def _latest(self, topic: str, size: int = 20) -> list[Record]:
        """The latest records, the last one first."""
        with told(KAFKA):
            messages = self._read(topic, size)
        return [_record(message) for message in messages[:size]]

    def find(self, topic: str, key: str, size: int = 50) -> list[Record]:
        """The records of a key among the latest 50,000, the last one first."""
        with told(KAFKA):
            found = [message for message in self._read(topic, _SEARCHED) if _text(message.key()) == key]
        return [_record(message) for message in found[:size]]

    def _read(self, topic: str, most: int) -> list[Message]:
        """The latest committed records of all partitions, the last one first, `most` or somewhat more.

        What takes longer than some seconds is left out.
        """
        until = time.monotonic() + _TIMEOUT
        messages: list[Message] = []
        with closing(self._consumer()) as consumer:
            ranges = offset_ranges(consumer, topic, _TIMEOUT)
            spans_ = {n: (start, end) for n, (start, end) in ranges.items() if start < end}
            # Further back where transactions and compaction have left gaps.
            window = max(most // len(spans_), min(most, 50)) if spans_ else 0
            while window:
                starts = {n: max(start, end - window) for n, (start, end) in spans_.items()}
                messages = _consumed(consumer, topic, starts, until)
                is_all = all(start == spans_[n][0] for n, start in starts.items())
                if len(messages) >= most or is_all or window > _SEARCHED or time.monotonic() > until:
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
                # Where the last offsets are no records, nothing else tells that all have been read.
                "enable.partition.eof": True,
                "log_level": 0,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
            }
        )


def _consumed(consumer: Consumer, topic: str, starts: dict[int, int], until: float) -> list[Message]:
    """The records from these offsets on, up to the partitions' ends or a moment of the monotonic clock."""
    consumer.assign([TopicPartition(topic, n, start) for n, start in starts.items()])
    messages: list[Message] = []
    ended: set[int | None] = set()
    while len(ended) < len(starts) and time.monotonic() < until:
        for message in consumer.consume(5_000, timeout=0.2):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            elif error.fatal():
                raise KafkaException(error)
    return messages


def is_dead_letter(record: Record) -> bool:
    """Whether it has the headers of a letter, and not those of a letter's being sent again."""
    return dead_letters.REASON in record.headers


def _record(message: Message) -> Record:
    headers = message.headers() or []
    assert isinstance(headers, list)
    return Record(
        at=datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC),
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=_text(message.key()),
        value=_value(message.value()),
        headers={name: _text(value) for name, value in headers},
    )


def _value(data: object) -> str:
    # As it is in the topic: parsed and written again, a number could come out as another one.
    return "(deleted)" if data is None else _text(data)


def _text(data: object) -> str:
    return data.decode(errors="backslashreplace") if isinstance(data, bytes) else "" if data is None else str(data)
