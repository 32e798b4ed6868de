"""How many interactions are due, so that a rate is kept however long sending takes."""

import math


class Pacer:
    """Spaces interactions evenly from a start; what a slow moment has missed is made up for.

    >>> pacer = Pacer(interval=0.5, start=100.0)
    >>> pacer.due(now=101.2)
    3
    >>> pacer.taken(3)
    >>> pacer.due(now=101.2), round(pacer.pause(now=101.2), 1)
    (0, 0.3)
    """

    def __init__(self, interval: float, start: float) -> None:
        self._interval = interval
        self._start = start
        self._taken = 0

    def due(self, now: float) -> int:
        """How many may be sent by `now` (seconds on the clock of `start`) that were not taken yet."""
        return max(0, math.floor((now - self._start) / self._interval) + 1 - self._taken)

    def taken(self, count: int) -> None:
        """`count` of those that were due are sent."""
        self._taken += count

    def pause(self, now: float) -> float:
        """Seconds until the next one is due."""
        return max(0.0, self._start + self._taken * self._interval - now)
