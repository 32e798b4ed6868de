"""Sends the load to Kafka, by an idempotent producer of its own, and keeps the ledger of it."""

import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, Message, Producer
from data_producer.pacing import Pacer

from chaos.ledger import NUMBER, Ledger
from chaos.records import Record, Records, probe
from runtime.kafka_client import headers_of, producer_config
from runtime.settings import Settings
from runtime.topic_reader import read_to_end

_MAX_WAITING: Final = 100_000
"""Records that wait for the broker; then nothing is sent until some have been acknowledged."""
_MAX_BATCH: Final = 1_000
_POLL: Final = 0.02
"""Seconds."""
_MAX_MESSAGE_BYTES: Final = 1_048_588
"""Kafka's default of max.message.bytes."""


class Load(threading.Thread):
    """Sends records at a rate until it is stopped."""

    def __init__(self, settings: Settings, seed: int, rate: float, stopped: threading.Event) -> None:
        """`settings` name the broker; `stopped` ends the wait for it."""
        super().__init__(name="load", daemon=True)
        self.ledger = Ledger()
        self.failure: str | None = None
        """Why the client cannot send any longer."""
        self._settings = settings
        self._seed = seed
        self._rate = rate
        self._stopped = stopped
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._producer = Producer(
            producer_config(settings.kafka_client, _MAX_MESSAGE_BYTES)
            | {
                # No timeout.
                "message.timeout.ms": 0,
                "linger.ms": 20,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 2 * _MAX_WAITING,
                "error_cb": self._on_error,
                "log_level": 0,
            },
            logger=_silent(),
        )

    def run(self) -> None:
        """Send until `stop`."""
        try:
            self._send_all()
        except Exception as error:
            self.failure = f"the load has failed: {error}"
            raise

    def _send_all(self) -> None:
        records = Records(self._seed, time.time(), self._rate)
        pacer, number = Pacer(1 / self._rate, time.monotonic()), 0
        while not (self._is_over.is_set() or self._stopped.is_set()):
            due = min(pacer.due(time.monotonic()), _MAX_BATCH) if len(self._producer) < _MAX_WAITING else 0
            for record in map(records.record, range(number, number + due)):
                self._send(record)
            pacer.record_sent(due)
            number += due
            self._producer.poll(_POLL)
        while len(self._producer) and self.failure is None and not self._stopped.is_set():
            self._producer.poll(_POLL)

    def stop(self) -> None:
        """Send no more; the thread ends when everything is acknowledged."""
        self._is_over.set()

    @property
    def waiting(self) -> int:
        """Records that are not acknowledged yet."""
        return self.ledger.sent - self.ledger.acknowledged

    def send_probes(self, name: str) -> "Probes":
        """Send a record to each partition behind everything that was sent before."""
        probes = Probes(name, self._settings.kafka_topic_partition)
        for partition, user in enumerate(probes.users):
            self._send(probe(user, time.time()), partition, probes)
        return probes

    def _send(self, record: Record, partition: int = -1, probes: "Probes | None" = None) -> None:
        # Two threads send: the numbers of the ledger are those of the order.
        with self._lock:
            number = self.ledger.enter(record.key, record.value)
            self._producer.produce(
                self._settings.kafka_topic,
                key=record.key,
                value=record.value,
                partition=partition,
                headers={NUMBER: str(number)},
                on_delivery=partial(self._on_delivery, number, probes),
            )

    def _on_delivery(self, number: int, probes: "Probes | None", error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failure = f"record {number} was refused: {error.str()}"
            return
        self.ledger.acknowledge(number)
        if probes is not None:
            probes.offsets[int(message.partition() or 0)] = int(message.offset() or 0)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.failure = f"Kafka's client has failed: {error.str()}"


class Probes:
    """A record in each partition that was sent behind everything else."""

    def __init__(self, name: str, partitions: int) -> None:
        self.users = [f"{name}-{partition}" for partition in range(partitions)]
        """The user of each, who has no other record."""
        self.offsets: dict[int, int] = {}
        """The offset in each partition, once it is acknowledged."""

    @property
    def are_acknowledged(self) -> bool:
        """Whether the topic has all of them."""
        return len(self.offsets) == len(self.users)


def committed(settings: Settings) -> Iterator[tuple[int | None, bytes | None, bytes | None]]:
    """Yield what the ledger compares, of all committed records of the topic."""
    for message in read_to_end(settings.kafka_client, settings.kafka_topic, group_id="chaos"):
        yield _number(message), _bytes(message.key()), _bytes(message.value())


def _number(message: Message) -> int | None:
    value = dict(headers_of(message)).get(NUMBER)
    return None if value is None else int(value)


def _bytes(part: str | bytes | None) -> bytes | None:
    return part.encode() if isinstance(part, str) else part


def _silent() -> logging.Logger:
    """Return a logger of nothing: broken connections are what is wanted."""
    logger = logging.getLogger("chaos.kafka")
    logger.disabled = True
    return logger
