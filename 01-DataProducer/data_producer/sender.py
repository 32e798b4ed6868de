"""Sends random interactions at the rate that the controls set."""

import logging
import random
import threading
import time
from typing import Final

from data_producer.controls import Controls
from data_producer.generator import EventGenerator
from data_producer.pacing import Pacer
from data_producer.publisher import KAFKA, Publisher
from data_producer.settings import ProducerSettings
from data_producer.surge import Surge
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
        self._surges: list[Surge] = []
        self._seeds = random.Random(settings.random_data_seed)
        """Of surges: the regular interactions are the same with and without them."""

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set or the limit is reached. Raises `PublishError`."""
        while not stop.is_set() and self._largest_batch():
            self._apply_controls()
            self._drain_requests()
            self._send(min(self._due() + self._burst, self._largest_batch()))
            self._send_surges()
            stop.wait(self._pause())

    def _largest_batch(self) -> int:
        """Return the largest number of interactions to send at once; 0 when the limit is reached."""
        limit = self._settings.producer_limit
        return max(0, min(_MAX_BATCH, limit - self._publisher.accepted)) if limit else _MAX_BATCH

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
        burst, malformed, viral_interactions = self._controls.drain_requests()
        self._burst += burst
        if malformed:
            values = self._generator.malformed(malformed, timestamp=time.time())
            self._publisher.publish_records([{"value": value} for value in values])
        if viral_interactions:
            # Every user is as likely to notice it, and every item to be the one.
            generator = EventGenerator(self._flow.users, self._flow.items, seed=self._seeds.getrandbits(64))
            self._surges.append(Surge(generator, viral_interactions, time.monotonic()))

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

    def _send_surges(self) -> None:
        for surge in self._surges:
            self._publisher.publish(surge.take(self._largest_batch(), time.monotonic(), time.time()))
        self._surges = [surge for surge in self._surges if surge.left]

    def _pause(self) -> float:
        """Return the seconds until the next batch."""
        if self._burst:
            return 0.0
        now = time.monotonic()
        pauses = [_MAX_PAUSE, *(surge.pause(now) for surge in self._surges)]
        if not self._flow.paused:
            pauses.append(self._pacer.pause(now) if self._pacer else 0.0)
        return min(pauses)

    def _new_generator(self) -> EventGenerator:
        settings, flow = self._settings, self._flow
        return EventGenerator(flow.users, flow.items, skew=settings.random_data_skew, seed=settings.random_data_seed)

    def _new_pacer(self) -> Pacer | None:
        flow = self._flow
        return Pacer(flow.rate, time.monotonic(), wave=flow.wave, clock=time.time()) if flow.rate else None
