"""Keeps a rate, however long sending takes."""

import math


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
