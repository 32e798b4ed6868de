"""The sink's place in the consumer group: which partitions it has, and how it keeps them while it waits."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from contract import dead_letters
from elasticsearch_sink_alert.kafka.rows import Record
from elasticsearch_sink_alert.kafka.versions import VersionClock
from elasticsearch_sink_alert.settings import SinkSettings
from runtime.health import Health
from runtime.kafka_client import ALL_BROKERS_DOWN, PARTITION_EOF

logger = logging.getLogger(__name__)

KAFKA: Final = "kafka"

_GATHER_SECONDS: Final = 0.05
"""How long a batch may fill up after its first record."""
_LOOKUP_TIMEOUT: Final = 1.0
"""Seconds; a lookup of committed offsets blocks the loop for no longer, and is repeated."""
_COMMIT_PAUSE: Final = 1.0
"""Seconds between a commit that failed and the next attempt."""
_LONGEST_LEAVE: Final = 5.0
"""Seconds: with what else there is to do at the end, short of the ten that a container has to stop in."""


class StoppedError(Exception):
    """The service was told to stop while it was waiting."""


class Membership:
    """A member of the group: takes records, commits them, and stays a member while nothing can be indexed.

    Nothing here waits for the broker within a callback, and no commit is waited for: either would block a rebalance of
    the whole group. What fails is repeated from the loop, and a commit that is lost only repeats work.
    """

    def __init__(self, settings: SinkSettings, health: Health, stop: threading.Event) -> None:
        self._settings = settings
        self._health = health
        self._stop = stop
        self._held: list[Message] = []
        self._unpositioned: dict[int, TopicPartition] = {}
        """Assigned partitions whose committed offset and clock are not known yet; their records are held."""
        self._ends: dict[int, int] = {}
        """Offset of the end that was reached last: behind it there may be markers of transactions, and no record."""
        self._uncommitted: dict[int, TopicPartition] = {}
        self._is_committing = False
        self._next_commit = 0.0
        self._closing: threading.Thread | None = None
        self.clock = VersionClock()
        self.has_new_partitions = False
        """Set when partitions were assigned; whoever cares resets it."""
        self._consumer = Consumer(
            {
                **settings.kafka_client,
                "group.id": settings.kafka_group_id,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
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
                "on_commit": self._on_commit,
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
        self._unpositioned.clear()
        self._uncommitted.clear()
        self._start_over(self._consumer.assignment())

    def take(self, *, at_once: bool = False) -> list[Record]:
        """The next records: none if there was none for `LOOP_SLEEP` seconds, or if none is there `at_once`."""
        self._commit_pending()
        if self._unpositioned and not self._position():
            self._hold_next()
            return []
        messages, self._held = self._held, []
        if not messages:
            first = self._consumer.poll(0 if at_once else max(self._settings.loop_sleep, 0.01))
            if first is None:
                return []
            messages.append(first)
        messages += self._consumer.consume(self._settings.sink_batch_size, timeout=_GATHER_SECONDS)
        self._health.ok(KAFKA)
        if self._unpositioned:
            self._held = [message for message in messages if message.partition() in self._unpositioned]
            messages = [message for message in messages if message.partition() not in self._unpositioned]
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
            self._hold_next()

    def _hold_next(self) -> None:
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
        """Commit what `after` gave, but for partitions that are no longer this member's; returns at once.

        What a kill or a lost partition leaves uncommitted is processed again by whoever has the partition then, which
        changes nothing.
        """
        mine = self.partitions
        self._uncommitted |= {each.partition: each for each in following if each.partition in mine}
        self._commit_pending()

    def _commit_pending(self) -> None:
        """Commit what is not committed yet, one request at a time."""
        if not self._uncommitted or self._is_committing or time.monotonic() < self._next_commit:
            return
        try:
            self._consumer.commit(offsets=list(self._uncommitted.values()), asynchronous=True)
            self._is_committing = True
        except KafkaException as error:
            self._commit_failed(error.args[0])

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._is_committing = False
        if error is not None:
            self._commit_failed(error)
            return
        for done in partitions:
            if done.error is not None:
                self._commit_failed(done.error)
            elif (pending := self._uncommitted.get(done.partition)) is not None and pending.offset == done.offset:
                del self._uncommitted[done.partition]

    def _commit_failed(self, error: KafkaError) -> None:
        self._next_commit = time.monotonic() + _COMMIT_PAUSE
        logger.warning("offsets are not committed yet, the next try is in %.0f s: %s", _COMMIT_PAUSE, error.str())

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
                behind += max(0, end - max(position.offset, self._ends.get(position.partition, 0)))
        return behind

    def leave(self) -> None:
        """Give the partitions back, whatever state the group is in, within seconds; raises nothing.

        Where the broker does not answer in that time, it notices after the session's timeout that this member is gone.
        """
        if self._closing is None:
            self._is_committing, self._next_commit = False, 0.0
            self._commit_pending()
            # Closing waits for a broker that hangs for as long as that does, and has no timeout.
            self._closing = threading.Thread(target=self._close, name="leaving", daemon=True)
            self._closing.start()
        self._closing.join(_LONGEST_LEAVE)
        if self._closing.is_alive():
            logger.warning("not signed off from the group: Kafka has not answered for %.0f s", _LONGEST_LEAVE)

    def _close(self) -> None:
        try:
            self._consumer.close()
        except KafkaException as error:
            logger.warning("not signed off from the group, its broker will notice: %s", error)

    def _record(self, message: Message) -> Record | None:
        error = message.error()
        if error is not None and error.code() == PARTITION_EOF:
            self._ends[int(message.partition() or 0)] = int(message.offset() or 0)
            return None
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
        # From their committed offsets, which librdkafka asks for by itself.
        self._consumer.incremental_assign(partitions)
        self._unpositioned |= {partition.partition: partition for partition in partitions}
        self._health.ok(KAFKA)
        logger.info("assigned partitions %s", sorted(p.partition for p in partitions))

    def _position(self) -> bool:
        """Restore the clocks of newly assigned partitions from their commits, and tell whether that was possible."""
        try:
            known = self._consumer.committed(list(self._unpositioned.values()), timeout=_LOOKUP_TIMEOUT)
            failed = next((each.error for each in known if each.error is not None), None)
        except KafkaException as error:
            failed = error.args[0]
        if failed is not None:
            reason = f"the committed offsets are not known yet: {failed.str()}"
            self._health.failing(KAFKA, reason)
            logger.warning("%s", reason)
            return False
        elsewhere = []
        for committed in known:
            version, _, target = (committed.metadata or "").partition(" ")
            self.clock.restore(committed.partition, version)
            if target and target != self._target:
                elsewhere.append(committed)
        self._unpositioned.clear()
        self._start_over(elsewhere)
        self.has_new_partitions = True
        return True

    def _start_over(self, partitions: Sequence[TopicPartition]) -> None:
        """Read these partitions from their first record."""
        if not partitions:
            return
        numbers = {each.partition for each in partitions}
        logger.warning("partitions %s are read from the beginning: Elasticsearch or an index is new", sorted(numbers))
        self._held = [message for message in self._held if message.partition() not in numbers]
        topic = self._settings.aggregated_topic
        self._consumer.incremental_unassign([TopicPartition(topic, number) for number in numbers])
        self._consumer.incremental_assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers])
        for number in numbers:
            self.clock.restore(number, "")
        self.has_new_partitions = True

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {p.partition for p in partitions}
        self._held = [message for message in self._held if message.partition() not in gone]
        for each in (self._unpositioned, self._ends, self._uncommitted):
            for number in gone:
                each.pop(number, None)
        logger.info("gave back partitions %s", sorted(gone))

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == ALL_BROKERS_DOWN:
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
