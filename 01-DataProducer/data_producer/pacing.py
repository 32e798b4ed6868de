"""Keeps a rate, or the pace of recorded timestamps, however long sending takes."""

import itertools
import math
from collections.abc import Iterable


class Pacer:
    """Spaces interactions evenly; catches up after a delay.

    >>> pacer = Pacer(interval=0.5, start=100.0)
    >>> pacer.due(now=101.2)
    3
    >>> pacer.record_sent(3)
    >>> pacer.due(now=101.2), round(pacer.pause(now=101.2), 1)
    (0, 0.3)
    """

    def __init__(self, interval: float, start: float) -> None:
        self._interval = interval
        self._start = start
        self._sent = 0

    def due(self, now: float) -> int:
        """Return the number of interactions to send by `now` (seconds on the clock of `start`)."""
        return max(0, math.floor((now - self._start) / self._interval) + 1 - self._sent)

    def record_sent(self, count: int) -> None:
        """Count `count` interactions as sent."""
        self._sent += count

    def pause(self, now: float) -> float:
        """Return the seconds until the next interaction is due."""
        return max(0.0, self._start + self._sent * self._interval - now)


class RecordedPacer:
    """Spaces events as their timestamps are, at a multiple of that speed; catches up after a delay.

    An event whose timestamp is before that of its predecessor is due at once.

    >>> pacer = RecordedPacer(speed=10, start=100.0)
    >>> pacer.due([1000, 1005, 1001, 1020], now=100.6)
    3
    >>> pacer.pause(1020, now=101.5)
    0.5
    """

    def __init__(self, speed: float, start: float) -> None:
        self._speed = speed
        self._start = start
        self._first: float | None = None

    def due(self, timestamps: Iterable[float | None], now: float) -> int:
        """Return how many of the next events are due by `now` (seconds on the clock of `start`); None: due at once."""
        return sum(1 for _ in itertools.takewhile(lambda timestamp: self.pause(timestamp, now) <= 0, timestamps))

    def pause(self, timestamp: float | None, now: float) -> float:
        """Return the seconds until an event is due. The first event is due at `start`."""
        if timestamp is None:
            return 0.0
        if self._first is None:
            self._first = timestamp
        return max(0.0, self._start + (timestamp - self._first) / self._speed - now)
