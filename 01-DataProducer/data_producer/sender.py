"""Sends random interactions at the rate that the controls set."""

import logging
import threading
import time
from typing import Final

from data_producer.controls import Controls
from data_producer.generator import EventGenerator
from data_producer.pacing import Pacer
from data_producer.publisher import KAFKA, Publisher
from data_producer.settings import ProducerSettings
from runtime.health import Health

logger = logging.getLogger(__name__)

_MAX_BATCH: Final = 5_000
_MAX_PAUSE: Final = 0.5
"""Seconds until changed controls take effect."""


class Sender:
    """The producer's loop: applies the controls, sends what is due, pauses."""

    def __init__(self, settings: ProducerSettings, controls: Controls, publisher: Publisher, health: Health) -> None:
        self._settings = settings
        self._controls = controls
        self._publisher = publisher
        self._health = health
        self._flow = controls.flow
        self._generator = self._new_generator()
        self._pacer = self._new_pacer()
        self._burst = 0
        """Interactions of bursts that are not sent yet."""

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set or the limit is reached. Raises `PublishError`."""
        limit = self._settings.producer_limit
        while not stop.is_set():
            self._apply_controls()
            self._drain_requests()
            size = min(self._due() + self._burst, _MAX_BATCH)
            if limit:
                if self._publisher.accepted >= limit:
                    return
                size = min(size, limit - self._publisher.accepted)
            self._send(size)
            stop.wait(self._pause())

    def _apply_controls(self) -> None:
        flow, previous = self._controls.flow, self._flow
        if flow == previous:
            return
        logger.info("changed by /control: %s", flow)
        self._flow = flow
        if (flow.users, flow.items) != (previous.users, previous.items):
            self._generator = self._new_generator()
        self._pacer = self._new_pacer()

    def _drain_requests(self) -> None:
        burst, malformed = self._controls.drain_requests()
        self._burst += burst
        if malformed:
            values = self._generator.malformed(malformed, timestamp=time.time())
            self._publisher.publish_records([{"value": value} for value in values])

    def _due(self) -> int:
        if self._flow.paused:
            return 0
        return self._pacer.due(time.monotonic()) if self._pacer else _MAX_BATCH

    def _send(self, size: int) -> None:
        self._publisher.publish(self._generator.batch(size, timestamp=time.time()))
        if self._publisher.delivered:
            self._health.ok(KAFKA)
        from_burst = min(size, self._burst)
        self._burst -= from_burst
        if self._pacer:
            self._pacer.record_sent(size - from_burst)

    def _pause(self) -> float:
        """Return the seconds until the next batch."""
        if self._burst:
            return 0.0
        if self._flow.paused:
            return _MAX_PAUSE
        return min(self._pacer.pause(time.monotonic()), _MAX_PAUSE) if self._pacer else 0.0

    def _new_generator(self) -> EventGenerator:
        settings, flow = self._settings, self._flow
        return EventGenerator(flow.users, flow.items, skew=settings.random_data_skew, seed=settings.random_data_seed)

    def _new_pacer(self) -> Pacer | None:
        return Pacer(self._flow.rate, time.monotonic()) if self._flow.rate else None
