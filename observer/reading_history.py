"""What the pipeline did in the last minutes: looked at once a second, however many browsers are open."""

import logging
import threading
import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Final

from observer.snapshot import Observer, Snapshot

logger = logging.getLogger(__name__)

_EVERY: Final = 1.0
_KEPT: Final = 300.0
"""Seconds of history."""
_RATE_WINDOW: Final = 5.0
_STAGE_WINDOW: Final = 10.0
"""The same of a stage, which moves in batches."""


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


@dataclass(frozen=True)
class Stage:
    """How far the interactions are on their way. None: not known."""

    name: str
    rows: int | None
    rate: float | None
    """Rows a second."""
    behind: int | None
    """Rows that the stage has yet to take."""


class Board:
    """The readings of the last minutes."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()

    @property
    def latest(self) -> Reading:
        """The last one; one in which nothing is known before there is any."""
        return self._readings[-1] if self._readings else Reading(0, Snapshot())

    def readings(self) -> list[Reading]:
        """All of them, the latest last."""
        return list(self._readings)

    def add(self, snapshot: Snapshot, at: float) -> None:
        """Take down a snapshot of a moment (seconds on any clock that only goes forward)."""
        before = self.readings()
        rate = _rate(before, snapshot, at, "sent", _RATE_WINDOW)
        self._readings.append(Reading(at, snapshot, rate, _latency(before, snapshot, at)))
        while at - self._readings[0].at > _KEPT:
            self._readings.popleft()

    def stages(self) -> list[Stage]:
        """From the topic of interactions to the changed rows."""
        *before, last = self.readings() or [self.latest]
        now = last.snapshot
        is_known = now.in_the_lake is not None and now.dead_letters is not None
        arrived = (now.in_the_lake or 0) + (now.dead_letters or 0) if is_known else None
        unread = _behind(now.sent, arrived) if now.unread is None else now.unread
        behind = {
            "sent": ("sent to Kafka", None),
            "in_the_lake": ("in the lake", unread),
            "aggregated": ("aggregated", _behind(now.in_the_lake, now.aggregated)),
            "published": ("rows published", now.sink_lag),
        }
        return [
            Stage(name, getattr(now, field), _rate(before, now, last.at, field, _STAGE_WINDOW), rows)
            for field, (name, rows) in behind.items()
        ]


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


def _rate(before: list[Reading], now: Snapshot, at: float, field: str, window: float) -> float | None:
    """How much a field of the snapshots has grown a second, since the window (seconds) began."""
    known = (r for r in before if at - r.at <= window and getattr(r.snapshot, field) is not None)
    first, reached = next(known, None), getattr(now, field)
    if first is None or reached is None or at <= first.at:
        return None
    return float(max(0, reached - getattr(first.snapshot, field)) / (at - first.at))


def _behind(ahead: int | None, behind: int | None) -> int | None:
    return None if ahead is None or behind is None else max(0, ahead - behind)


def _latency(before: list[Reading], now: Snapshot, at: float) -> float | None:
    """The time since Kafka got the last interaction that the indices count: the n-th valid one is the n-th there too.

    None where the topic does not tell that, as after it was made anew; the last one where nothing new is counted.
    """
    known = [r for r in before if r.snapshot.sent is not None]
    if now.indexed is None or now.sent is None or not known or not now.is_countable:
        return None
    if now.dead_letters is None:
        return None
    counted = now.indexed + now.dead_letters
    last = known[-1]
    if last.snapshot.indexed is not None and now.indexed == last.snapshot.indexed:
        return last.latency
    sent = [(r.snapshot.sent or 0, r.at) for r in known] + [(now.sent, at)]
    if not sent[0][0] < counted <= now.sent:
        return None
    n = bisect_left(sent, (counted, 0.0))
    (below, since), (above, until) = sent[n - 1], sent[n]
    return at - (since + (until - since) * (counted - below) / (above - below))
