"""The sink's place in the consumer group: which partitions it has, and how it keeps them while it waits."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from contract import dead_letters
from contract.health import Health
from elasticsearch_sink_alert.rows import Record
from elasticsearch_sink_alert.settings import SinkSettings
from elasticsearch_sink_alert.versions import VersionClock

logger = logging.getLogger(__name__)

KAFKA: Final = "kafka"

_GATHER_SECONDS: Final = 0.05
"""How long a batch may fill up after its first record."""
_KAFKA_TIMEOUT: Final = 10.0


class StoppedError(Exception):
    """The service was told to stop while it was waiting."""


class Membership:
    """A member of the group: takes records, commits them, and stays a member while nothing can be indexed."""

    def __init__(self, settings: SinkSettings, health: Health, stop: threading.Event) -> None:
        self._settings = settings
        self._health = health
        self._stop = stop
        self._held: list[Message] = []
        self.clock = VersionClock()
        self.has_new_partitions = False
        """Set when partitions were assigned; whoever cares resets it."""
        self._consumer = Consumer(
            {
                **settings.kafka_client,
                "group.id": settings.kafka_group_id,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                # After a kill -9 its partitions are free again within seconds.
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 2_000,
                "fetch.wait.max.ms": 100,
                # What is fetched ahead: the memory that a backlog may take.
                "queued.max.messages.kbytes": 32 << 10,
                "fetch.message.max.bytes": 8 << 20,
                "error_cb": self._on_error,
            },
            logger=logger,
        )
        self._target = ""

    def join(self, target: str) -> None:
        """Join the group. `target` says whose rows the commits are about; commits for another one do not count."""
        self._target = target
        topics = [self._settings.aggregated_topic]
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke)

    def begin_again(self, target: str) -> None:
        """Take all records of this member's partitions once more, for another target."""
        self._target = target
        self._held = []
        partitions = self._consumer.assignment()
        self._consumer.incremental_unassign(partitions)
        self._assign(partitions, anew=True)

    def take(self, *, at_once: bool = False) -> list[Record]:
        """The next records: none if there was none for `LOOP_SLEEP` seconds, or if none is there `at_once`."""
        messages, self._held = self._held, []
        if not messages:
            first = self._consumer.poll(0 if at_once else max(self._settings.loop_sleep, 0.01))
            if first is None:
                return []
            messages.append(first)
        messages += self._consumer.consume(self._settings.sink_batch_size, timeout=_GATHER_SECONDS)
        self._health.ok(KAFKA)
        return [record for message in messages if (record := self._record(message)) is not None]

    def wait(self, seconds: float) -> None:
        """Sleep without losing the membership. Raises `StoppedError` when the service is to stop.

        Polling once a second is enough to take part in rebalances; the record that it may bring is held
        for the next batch. (Pausing the partitions meanwhile would throw away what is fetched already.)
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stop.wait(min(left, 1.0)):
                raise StoppedError
            message = self._consumer.poll(0)
            if message is not None:
                self._held.append(message)

    def after(self, records: Sequence[Record]) -> list[TopicPartition]:
        """What to commit once these records, the last ones taken, are done: what follows, with the clock's state."""
        topic = self._settings.aggregated_topic
        following = {record.partition: record.offset + 1 for record in records}
        return [
            TopicPartition(topic, partition, offset, f"{self.clock.metadata(partition)} {self._target}")
            for partition, offset in following.items()
        ]

    def commit(self, following: Sequence[TopicPartition]) -> None:
        """Commit what `after` gave, but for partitions that are no longer this member's."""
        mine = self.partitions
        offsets = [each for each in following if each.partition in mine]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # Whoever has the partition now does the records again: that changes nothing.
            logger.warning("offsets were not committed, the records will be processed again: %s", error)

    @property
    def partitions(self) -> set[int]:
        """The partitions that this member has."""
        return {assigned.partition for assigned in self._consumer.assignment()}

    def lag(self) -> int:
        """Records of this member's partitions that it has not taken yet, as far as it knows."""
        behind = 0
        for position in self._consumer.position(self._consumer.assignment()):
            if position.offset >= 0:
                _, end = self._consumer.get_watermark_offsets(position, cached=True)
                behind += max(0, end - position.offset)
        return behind

    def leave(self) -> None:
        """Give the partitions back at once."""
        self._consumer.close()

    def _record(self, message: Message) -> Record | None:
        error = message.error()
        if error is not None:
            self._health.failing(KAFKA, error.str())
            return None
        return Record(
            topic=self._settings.aggregated_topic,
            partition=int(message.partition() or 0),
            offset=int(message.offset() or 0),
            timestamp_ms=message.timestamp()[1],
            key=as_bytes(message.key()),
            value=as_bytes(message.value()),
            replay_of=_replay_of(message),
        )

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assign(partitions)
        self._health.ok(KAFKA)
        logger.info("assigned partitions %s", sorted(p.partition for p in partitions))

    def _assign(self, partitions: Sequence[TopicPartition], *, anew: bool = False) -> None:
        if not partitions:
            return
        start = []
        for committed in self._consumer.committed(list(partitions), timeout=_KAFKA_TIMEOUT):
            version, _, target = (committed.metadata or "").partition(" ")
            offset = committed.offset
            if anew or (target and target != self._target):
                logger.warning(
                    "partition %d is taken from the beginning, for Elasticsearch is another", committed.partition
                )
                version, offset = "", OFFSET_BEGINNING
            self.clock.restore(committed.partition, version)
            start.append(TopicPartition(committed.topic, committed.partition, offset))
        self.has_new_partitions = True
        self._consumer.incremental_assign(start)

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {p.partition for p in partitions}
        self._held = [message for message in self._held if message.partition() not in gone]
        logger.info("gave back partitions %s", sorted(gone))

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._health.failing(KAFKA, error.str())


def _replay_of(message: Message) -> str | None:
    headers = message.headers()
    if not headers:
        return None
    assert isinstance(headers, list)
    return (
        next((as_bytes(value) or b"" for name, value in headers if name == dead_letters.REPLAY_OF), b"").decode(
            errors="replace"
        )
        or None
    )


def as_bytes(data: object) -> bytes | None:
    """A key or value as the bytes that it is; librdkafka's types allow text as well."""
    return data.encode() if isinstance(data, str) else data if isinstance(data, bytes) else None
