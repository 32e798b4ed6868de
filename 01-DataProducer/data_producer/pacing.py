"""Keeps a rate, or the pace of recorded timestamps, however long sending takes."""

import itertools
import math
from collections.abc import Iterable
from typing import Final

_SWING: Final = 0.5
"""The part of its mean by which a wave changes the rate, up and down."""
_PRECISION: Final = 1e-6
"""Seconds."""


class Pacer:
    """Spaces interactions evenly, or in waves; catches up after a delay.

    >>> pacer = Pacer(interval=0.5, start=100.0)
    >>> pacer.due(now=101.2)
    3
    >>> pacer.record_sent(3)
    >>> pacer.due(now=101.2), round(pacer.pause(now=101.2), 1)
    (0, 0.3)

    In waves the rate follows the clock, as the traffic of a shop does: half of its mean at each multiple of `wave`
    seconds, and one and a half times its mean in between. Over a whole wave it is exactly its mean.

    >>> pacer = Pacer(interval=0.5, start=100.0, wave=60.0, clock=600.0)
    >>> pacer.due(now=110.0), pacer.due(now=130.0), pacer.due(now=160.0)
    (12, 61, 121)
    """

    def __init__(self, interval: float, start: float, *, wave: float = 0.0, clock: float = 0.0) -> None:
        """Start at `start`, at which it is `clock` (epoch seconds); without `wave` the clock does not matter."""
        self._interval = interval
        self._start = start
        self._sent = 0
        self._turn = math.tau / wave if wave else 0.0
        self._phase = math.tau * (clock % wave / wave) if wave else 0.0

    def due(self, now: float) -> int:
        """Return the number of interactions to send by `now` (seconds on the clock of `start`)."""
        return max(0, math.floor(self._progress(now - self._start) / self._interval) + 1 - self._sent)

    def record_sent(self, count: int) -> None:
        """Count `count` interactions as sent."""
        self._sent += count

    def pause(self, now: float) -> float:
        """Return the seconds until the next interaction is due."""
        return max(0.0, self._start + self._elapsed(self._sent * self._interval, near=now - self._start) - now)

    def _progress(self, elapsed: float) -> float:
        """Return the time in which as much would be due at the mean rate as is due within `elapsed` seconds."""
        if not self._turn:
            return elapsed
        # The integral of 1 - _SWING * cos(phase + turn * t).
        return elapsed - _SWING / self._turn * (math.sin(self._phase + self._turn * elapsed) - math.sin(self._phase))

    def _elapsed(self, progress: float, near: float) -> float:
        """Return the time within which `_progress` is this much, found from a time near it."""
        if not self._turn:
            return progress
        elapsed = near
        # The slope of the progress differs from 1 by _SWING at most, so each step halves the error at least.
        while abs(step := progress - self._progress(elapsed)) > _PRECISION:
            elapsed += step
        return elapsed


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
