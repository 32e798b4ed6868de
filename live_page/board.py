"""What the pipeline did in the last minutes: looked at once a second, however many browsers are open."""

import logging
import threading
import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Final

from live_page.snapshot import Observer, Snapshot

logger = logging.getLogger(__name__)

_EVERY: Final = 1.0
KEPT: Final = 300.0
"""Seconds of history."""
_RATE_WINDOW: Final = 5.0


@dataclass(frozen=True)
class Reading:
    """A snapshot, and what follows from it and the ones before."""

    at: float
    """Seconds since the epoch."""
    snapshot: Snapshot
    rate: float | None = None
    """Interactions a second that Kafka gets."""
    latency: float | None = None
    """Seconds from an interaction's arrival in Kafka until the indices count it."""


class Board:
    """The readings of the last minutes."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque([Reading(0, Snapshot())])

    @property
    def latest(self) -> Reading:
        """The last one; nothing is known in the first."""
        return self._readings[-1]

    def readings(self) -> list[Reading]:
        """All of them, the latest last."""
        return [reading for reading in list(self._readings) if reading.at]

    def add(self, snapshot: Snapshot, at: float) -> None:
        """Take a snapshot down."""
        before = self.readings()
        self._readings.append(Reading(at, snapshot, _rate(before, snapshot, at), _latency(before, snapshot, at)))
        while at - self._readings[0].at > KEPT:
            self._readings.popleft()


class Watch:
    """Looks once a second, in a thread of its own."""

    def __init__(self, observer: Observer, board: Board) -> None:
        self._observer = observer
        self._board = board
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and let go of all connections."""
        self._stop.set()
        self._thread.join()
        self._observer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                # Of the time before the look: what it finds was there at the latest when it ended.
                at = time.time()
                self._board.add(self._observer.look(), at)
            except Exception:
                logger.exception("this look failed, the next one follows")
            self._stop.wait(max(0.1, _EVERY - (time.monotonic() - began)))


def _rate(before: list[Reading], now: Snapshot, at: float) -> float | None:
    first = next((r for r in before if at - r.at <= _RATE_WINDOW and r.snapshot.sent is not None), None)
    if first is None or first.snapshot.sent is None or now.sent is None:
        return None
    return max(0, now.sent - first.snapshot.sent) / (at - first.at)


def _latency(before: list[Reading], now: Snapshot, at: float) -> float | None:
    """The time since Kafka got the last interaction that the indices count: the n-th valid one is the n-th there too.

    None where the topic does not tell that, as after it was made anew; the last one where nothing new is counted.
    """
    known = [r for r in before if r.snapshot.sent is not None]
    if now.indexed is None or now.sent is None or not known:
        return None
    counted = now.indexed + (now.dead_letters or 0)
    last = known[-1]
    if last.snapshot.indexed is not None and now.indexed == last.snapshot.indexed:
        return last.latency
    sent = [(r.snapshot.sent or 0, r.at) for r in known] + [(now.sent, at)]
    if not sent[0][0] < counted <= now.sent:
        return None
    n = bisect_left(sent, (counted, 0.0))
    (below, since), (above, until) = sent[n - 1], sent[n]
    return at - (since + (until - since) * (counted - below) / (above - below))
