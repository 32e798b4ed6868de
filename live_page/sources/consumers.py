"""Consumers of the page's own, which stay connected from one reading to the next."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Final

from confluent_kafka import Consumer

from live_page.settings import PageSettings
from live_page.sources.errors import EmptyError, translate_errors

KAFKA: Final = "Kafka"
TIMEOUT: Final = 3.0
"""Seconds that a request to the broker may take."""
_IDLE: Final = 2
"""This many are kept."""


class Consumers:
    """Consumers that are connected already, each for one reading at a time."""

    def __init__(self, settings: PageSettings) -> None:
        self._settings = settings
        self._idle: SimpleQueue[Consumer] = SimpleQueue()

    @contextmanager
    def borrow(self) -> Iterator[Consumer]:
        """Lend a consumer without an assignment; errors of the client are translated."""
        with translate_errors(KAFKA):
            try:
                consumer = self._idle.get_nowait()
            except Empty:
                consumer = self._create()
            is_fine = False
            try:
                yield consumer
                consumer.unassign()
                is_fine = True
            except EmptyError:
                consumer.unassign()
                is_fine = True
                raise
            finally:
                if is_fine and self._idle.qsize() < _IDLE:
                    self._idle.put(consumer)
                else:
                    consumer.close()

    def _create(self) -> Consumer:
        return Consumer(
            {
                **self._settings.kafka_client,
                "group.id": "live-page",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                # If the last offsets are not records, this alone signals the end of the partition.
                "enable.partition.eof": True,
                "log_level": 0,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                # Bounds what is prefetched: records may be large.
                "queued.max.messages.kbytes": 8 << 10,
            }
        )
