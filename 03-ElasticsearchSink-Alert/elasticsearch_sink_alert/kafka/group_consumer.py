"""A consumer in the sink's consumer group: polls batches, commits offsets, and stays a member while it waits."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from contract import dead_letters
from contract.topics import TRACEPARENT
from elasticsearch_sink_alert.kafka.offset_commits import OffsetCommits
from elasticsearch_sink_alert.kafka.rows import Record
from elasticsearch_sink_alert.kafka.versions import VersionClock
from elasticsearch_sink_alert.settings import SinkSettings
from runtime.health import Health
from runtime.kafka_client import ALL_BROKERS_DOWN, PARTITION_EOF, as_bytes, headers_of
from runtime.signals import StoppedError

logger = logging.getLogger(__name__)

KAFKA: Final = "kafka"
"""Name of this part of the service in /health."""

_BATCH_FILL_SECONDS: Final = 0.05
"""Time that a batch has to fill up after its first record."""
_LOOKUP_SECONDS: Final = 1.0
"""Timeout of a lookup of committed offsets, which blocks the loop and is repeated."""
_CLOSE_SECONDS: Final = 5.0
"""Timeout for leaving the group: with the rest of the shutdown, less than the 10 s that a container has to stop."""


class GroupConsumer:
    """A member of the consumer group that keeps its partitions even while nothing can be indexed.

    No callback waits for the broker, and no commit is waited for: either would block a rebalance of the whole group.
    Failed requests are repeated from the loop.
    """

    def __init__(self, settings: SinkSettings, health: Health, stop: threading.Event) -> None:
        self._settings = settings
        self._topic = settings.aggregated_topic
        self._health = health
        self._stop = stop
        self._buffered: list[Message] = []
        """Messages that were polled while waiting; they start the next batch."""
        self._awaiting_offsets: dict[int, TopicPartition] = {}
        """Assigned partitions whose committed offset and clock are not known yet; their messages stay buffered."""
        self._ends: dict[int, int] = {}
        """Last known end of each partition: transaction markers may precede it, and no record follows them."""
        self._commits = OffsetCommits()
        self._closing: threading.Thread | None = None
        self.clock = VersionClock()
        self.assignments: Mapping[int, int] = {}
        """A number for the assignment of each partition, another one after a revocation; never mutated."""
        self._assigned_before = 0
        self.has_new_partitions = False
        """Set when partitions have been assigned; the caller resets it."""
        config = _consumer_config(settings, self._on_error, self._commits.on_commit)
        self._consumer = Consumer(config, logger=logger)
        self._target = ""

    def subscribe(self, target: str) -> None:
        """Join the group. `target` identifies the cluster that is written to; commits for another one are ignored."""
        self._target = target
        topics = [self._settings.aggregated_topic]
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke)

    def rewind(self, target: str) -> None:
        """Read all assigned partitions from the beginning again, for another target."""
        self._target = target
        self._buffered = []
        self._awaiting_offsets.clear()
        self._commits.clear()
        self._read_from_beginning(self._consumer.assignment())

    def poll_batch(self, *, wait: bool = True) -> list[Record]:
        """Return the next records; none if none arrives within `LOOP_SLEEP` seconds, or at once without `wait`."""
        self._commits.send(self._consumer)
        if self._awaiting_offsets and not self._restore_clocks():
            self._buffer_next()
            return []
        messages, self._buffered = self._buffered, []
        if not messages:
            first = self._consumer.poll(max(self._settings.loop_sleep, 0.01) if wait else 0)
            if first is None:
                return []
            messages.append(first)
        messages += self._consumer.consume(self._settings.sink_batch_size, timeout=_BATCH_FILL_SECONDS)
        self._health.ok(KAFKA)
        if self._awaiting_offsets:
            self._buffered = [message for message in messages if message.partition() in self._awaiting_offsets]
            messages = [message for message in messages if message.partition() not in self._awaiting_offsets]
        return [record for message in messages if (record := self._record(message)) is not None]

    def sleep(self, seconds: float) -> None:
        """Sleep and stay a member of the group. Raises `StoppedError` when the service is being stopped.

        Polling once a second is enough to take part in rebalances; a message that a poll returns is buffered for
        the next batch. (Pausing the partitions instead would discard what is prefetched.)
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stop.wait(min(left, 1.0)):
                raise StoppedError
            self._buffer_next()

    def _buffer_next(self) -> None:
        message = self._consumer.poll(0)
        if message is not None:
            self._buffered.append(message)

    def next_offsets(self, records: Sequence[Record]) -> list[TopicPartition]:
        """Return the offsets to commit once these records, the last that were polled, are processed.

        Their metadata is the state of the clock, and the target.
        """
        topic = self._settings.aggregated_topic
        offsets = {record.partition: record.offset + 1 for record in records}
        return [
            TopicPartition(topic, partition, offset, f"{self.clock.metadata(partition)} {self._target}")
            for partition, offset in offsets.items()
        ]

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        """Commit these offsets, except for partitions that are no longer assigned; does not wait for the broker.

        Records whose offsets stay uncommitted, after a kill or a rebalance, are processed again by the next owner of
        the partition, which changes nothing.
        """
        assigned = self.partitions
        self._commits.add(each for each in offsets if each.partition in assigned)
        self._commits.send(self._consumer)

    @property
    def partitions(self) -> set[int]:
        """The partitions that are assigned to this member."""
        return {assigned.partition for assigned in self._consumer.assignment()}

    def lag(self) -> int:
        """Return the number of records of the assigned partitions that are not polled yet, as far as known."""
        behind = 0
        for position in self._consumer.position(self._consumer.assignment()):
            if position.offset >= 0:
                _, end = self._consumer.get_watermark_offsets(position, cached=True)
                behind += max(0, end - max(position.offset, self._ends.get(position.partition, 0)))
        return behind

    def close(self) -> None:
        """Leave the group within seconds, whatever state it is in; raises nothing.

        If the broker does not answer in that time, it removes this member after the session timeout.
        """
        if self._closing is None:
            self._commits.send_now(self._consumer)
            # Consumer.close() has no timeout: it waits for as long as a broker hangs.
            self._closing = threading.Thread(target=self._close, name="leaving", daemon=True)
            self._closing.start()
        self._closing.join(_CLOSE_SECONDS)
        if self._closing.is_alive():
            logger.warning("stopping without having left the group: no answer from Kafka for %.0f s", _CLOSE_SECONDS)

    def _close(self) -> None:
        try:
            self._consumer.close()
        except KafkaException as error:
            logger.warning("not left the group, its broker removes this member after the session timeout: %s", error)

    def _record(self, message: Message) -> Record | None:
        error = message.error()
        if error is not None and error.code() == PARTITION_EOF:
            self._ends[int(message.partition() or 0)] = int(message.offset() or 0)
            return None
        if error is not None:
            self._health.failing(KAFKA, error.str())
            return None
        headers = headers_of(message)
        return Record(
            self._topic,
            message.partition() or 0,
            message.offset() or 0,
            message.timestamp()[1],
            message.key(),
            message.value(),
            _text_of(headers, dead_letters.REPLAY_OF) if headers else None,
            _text_of(headers, TRACEPARENT) if headers else None,
        )

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Without offsets, librdkafka starts from the committed ones.
        self._consumer.incremental_assign(partitions)
        self._awaiting_offsets |= {partition.partition: partition for partition in partitions}
        self._assigned_before += 1
        self.assignments = {**self.assignments, **{each.partition: self._assigned_before for each in partitions}}
        self._health.ok(KAFKA)
        logger.info("assigned partitions %s", sorted(p.partition for p in partitions))

    def _restore_clocks(self) -> bool:
        """Restore the clocks of newly assigned partitions from their commits; False if the broker does not answer."""
        try:
            known = self._consumer.committed(list(self._awaiting_offsets.values()), timeout=_LOOKUP_SECONDS)
            failed = next((each.error for each in known if each.error is not None), None)
        except KafkaException as error:
            failed = error.args[0]
        if failed is not None:
            reason = f"the committed offsets are not known yet: {failed.str()}"
            self._health.failing(KAFKA, reason)
            logger.warning("%s", reason)
            return False
        other_target = []
        for committed in known:
            version, _, target = (committed.metadata or "").partition(" ")
            self.clock.restore(committed.partition, version)
            if target and target != self._target:
                other_target.append(committed)
        self._awaiting_offsets.clear()
        # If another member has committed since they were fetched, records would get later versions than it has indexed.
        polled = {message.partition() or 0: message.offset() or 0 for message in reversed(self._buffered)}
        behind = [each for each in known if polled.get(each.partition, each.offset) < each.offset]
        self._read_from({each.partition: each.offset for each in behind})
        self._read_from_beginning(other_target)
        self.has_new_partitions = True
        return True

    def _read_from_beginning(self, partitions: Sequence[TopicPartition]) -> None:
        if not partitions:
            return
        numbers = {each.partition for each in partitions}
        logger.warning(
            "reading partitions %s from the beginning: the cluster or one of its indices changed", sorted(numbers)
        )
        self._read_from(dict.fromkeys(numbers, OFFSET_BEGINNING))
        for number in numbers:
            self.clock.restore(number, "")
        self.has_new_partitions = True

    def _read_from(self, offsets: Mapping[int, int]) -> None:
        """Read partitions from other offsets, and forget what was polled from them."""
        if not offsets:
            return
        self._buffered = [message for message in self._buffered if message.partition() not in offsets]
        topic = self._settings.aggregated_topic
        self._consumer.incremental_unassign([TopicPartition(topic, number) for number in offsets])
        self._consumer.incremental_assign([TopicPartition(topic, *each) for each in offsets.items()])

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        revoked = {p.partition for p in partitions}
        self._buffered = [message for message in self._buffered if message.partition() not in revoked]
        for number in revoked:
            self._awaiting_offsets.pop(number, None)
            self._ends.pop(number, None)
        self.assignments = {number: which for number, which in self.assignments.items() if number not in revoked}
        self._commits.drop(revoked)
        logger.info("revoked partitions %s", sorted(revoked))

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == ALL_BROKERS_DOWN:
            self._health.failing(KAFKA, error.str())


def _consumer_config(
    settings: SinkSettings,
    on_error: Callable[[KafkaError], None],
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
) -> dict[str, Any]:
    return {
        **settings.kafka_client,
        "group.id": settings.kafka_group_id,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        # The partitions of a killed sink are reassigned within seconds.
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 2_000,
        "fetch.wait.max.ms": 100,
        # Bounds what is prefetched, and so the memory that a backlog takes.
        "queued.max.messages.kbytes": 32 << 10,
        "fetch.message.max.bytes": 8 << 20,
        "error_cb": on_error,
        "on_commit": on_commit,
    }


def _text_of(headers: Sequence[tuple[str, str | bytes | None]], name: str) -> str | None:
    """Return the value of a header; None if it is missing or empty."""
    value = next((as_bytes(value) for each, value in headers if each == name), None)
    return value.decode(errors="replace") if value else None
