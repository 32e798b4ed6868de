"""Commits offsets: asynchronously, one request at a time, repeated until the broker has them."""

import logging
import time
from collections.abc import Iterable
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from elasticsearch_sink_alert import metrics

logger = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 1.0
"""Pause between a commit that failed and the next attempt."""


class OffsetCommits:
    """The offsets that are processed but not committed yet: the latest of each partition.

    No call waits for the broker. A commit that a kill or a rebalance loses only repeats work.
    """

    def __init__(self) -> None:
        self._uncommitted: dict[int, TopicPartition] = {}
        self._is_committing = False
        self._next_attempt = 0.0

    def add(self, offsets: Iterable[TopicPartition]) -> None:
        """Commit these offsets with the next request; they replace earlier ones of the same partitions."""
        self._uncommitted |= {each.partition: each for each in offsets}

    def drop(self, partitions: Iterable[int]) -> None:
        """Do not commit offsets of these partitions: they were revoked."""
        for partition in partitions:
            self._uncommitted.pop(partition, None)

    def clear(self) -> None:
        """Do not commit any offset that is still uncommitted."""
        self._uncommitted.clear()

    def send(self, consumer: Consumer) -> None:
        """Send a commit request, unless one is in flight or failed less than a second ago."""
        if not self._uncommitted or self._is_committing or time.monotonic() < self._next_attempt:
            return
        try:
            consumer.commit(offsets=list(self._uncommitted.values()), asynchronous=True)
            self._is_committing = True
        except KafkaException as error:
            self._failed(error.args[0])

    def send_now(self, consumer: Consumer) -> None:
        """Send a last commit request, whatever became of earlier ones."""
        self._is_committing, self._next_attempt = False, 0.0
        self.send(consumer)

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Handle the answer to a request: the consumer's callback `on_commit`."""
        self._is_committing = False
        if error is not None:
            self._failed(error)
            return
        for done in partitions:
            if done.error is not None:
                self._failed(done.error)
            elif (pending := self._uncommitted.get(done.partition)) is not None and pending.offset == done.offset:
                del self._uncommitted[done.partition]

    def _failed(self, error: KafkaError) -> None:
        self._next_attempt = time.monotonic() + _RETRY_SECONDS
        metrics.COMMIT_FAILURES.inc()
        logger.warning("offsets are not committed yet, next attempt in %.0f s: %s", _RETRY_SECONDS, error.str())
