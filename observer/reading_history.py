"""History of the last minutes: snapshots with the rates and the latency derived from them."""

import logging
import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from observer.reconciliation import NO_VERDICT, Reconciliation, Verdict
from observer.snapshot import Observer, Snapshot

logger = logging.getLogger(__name__)

_INTERVAL: Final = 1.0
_RETENTION: Final = 300.0
_LONG_RETENTION: Final = 1800.0
"""Of the figures alone: a whole snapshot takes some hundred times as much memory."""
_RATE_WINDOW: Final = 5.0
_STAGE_RATE_WINDOW: Final = 10.0
"""Longer, because a stage advances in batches."""


@dataclass(frozen=True)
class Reading:
    """A snapshot, and the figures that follow from it and the earlier ones."""

    at: float
    """Seconds since the epoch."""
    snapshot: Snapshot
    rate: float | None = None
    """Interactions per second arriving in Kafka."""
    latency: float | None = None
    """Seconds from an interaction's arrival in Kafka until the indices count it."""
    verdict: Verdict = NO_VERDICT
    """Whether everything sent is in the lake and in the index."""


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of a reading that are shown over time. None: unknown."""

    at: float
    """Seconds since the epoch."""
    rate: float | None
    latency: float | None
    indexed: int | None
    firing: int | None
    dead_letters: int | None
    mean: float | None


@dataclass(frozen=True)
class Stage:
    """Progress of one stage of the pipeline. None: unknown."""

    name: str
    rows: int | None
    rate: float | None
    """Rows per second."""
    lag: int | None
    """Rows that the stage has not processed yet."""


class ReadingHistory:
    """The readings of the last 5 minutes, and the figures of the last 30."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()
        self._points: deque[Point] = deque()
        self._reconciliation = Reconciliation()

    @property
    def latest(self) -> Reading:
        """The latest reading; before the first one, a reading at time 0 of which nothing is known."""
        return self._readings[-1] if self._readings else Reading(0, Snapshot())

    def readings(self) -> list[Reading]:
        """Return all readings, the latest last."""
        return list(self._readings)

    def points(self, seconds: float) -> list[Point]:
        """Return the figures up to `seconds` before the latest reading, the latest last."""
        points = list(self._points)
        return [point for point in points if points[-1].at - point.at <= seconds]

    def add(self, snapshot: Snapshot, at: float) -> None:
        """Add a snapshot taken `at` (seconds of any clock that never goes back)."""
        earlier = self.readings()
        rate = _rate(earlier, snapshot, at, attrgetter("sent"), _RATE_WINDOW)
        latency = _latency(earlier, snapshot, at)
        verdict = self._reconciliation.add(snapshot, at)
        self._readings.append(Reading(at, snapshot, rate, latency, verdict))
        self._points.append(
            Point(at, rate, latency, snapshot.indexed, snapshot.firing, snapshot.dead_letters, snapshot.mean)
        )
        while at - self._readings[0].at > _RETENTION:
            self._readings.popleft()
        while at - self._points[0].at > _LONG_RETENTION:
            self._points.popleft()

    def stages(self) -> list[Stage]:
        """Return the stages from the topic of interactions to the published rows."""
        *earlier, last = self.readings() or [self.latest]
        now = last.snapshot
        lags = {
            "sent": ("sent to Kafka", None),
            "in_the_lake": ("in the lake", _lake_lag(now)),
            "aggregated": ("aggregated", _difference(now.in_the_lake, now.aggregated)),
            "published": ("rows published", now.sink_lag),
        }
        return [
            Stage(name, getattr(now, field), _rate(earlier, now, last.at, attrgetter(field), _STAGE_RATE_WINDOW), lag)
            for field, (name, lag) in lags.items()
        ]


def stage_rate(readings: Sequence[Reading], value_of: Callable[[Snapshot], int | None]) -> float | None:
    """Compute by how much a figure of the snapshots grew per second within the last 10 seconds."""
    if not readings:
        return None
    *earlier, last = readings
    return _rate(earlier, last.snapshot, last.at, value_of, _STAGE_RATE_WINDOW)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the least value that at least a share of the values does not exceed; None without values.

    >>> percentile([4, 1, 3, 2], 0.5), percentile([4, 1, 3, 2], 0.95)
    (2, 4)
    """
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


class Poller:
    """Adds a snapshot to the history every second, in a thread of its own."""

    def __init__(self, observer: Observer, history: ReadingHistory) -> None:
        self._observer = observer
        self._history = history
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and close the observer's connections."""
        self._stop.set()
        self._thread.join()
        self._observer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                # Before the snapshot, which may take seconds.
                at = time.time()
                self._history.add(self._observer.snapshot(), at)
            except Exception:
                logger.exception("snapshot failed, retrying in %g s", _INTERVAL)
            self._stop.wait(max(0.1, _INTERVAL - (time.monotonic() - began)))


def _lake_lag(now: Snapshot) -> int | None:
    if now.unread is not None:
        return now.unread
    if now.in_the_lake is None or now.dead_letters is None:
        return None
    return _difference(now.sent, now.in_the_lake + now.dead_letters)


def _difference(ahead: int | None, behind: int | None) -> int | None:
    return None if ahead is None or behind is None else max(0, ahead - behind)


def _rate(
    earlier: Sequence[Reading], now: Snapshot, at: float, value_of: Callable[[Snapshot], int | None], window: float
) -> float | None:
    """Compute by how much a figure of the snapshots grew per second within the last `window` seconds."""
    known = ((r.at, value_of(r.snapshot)) for r in earlier if at - r.at <= window)
    since, before = next(((then, value) for then, value in known if value is not None), (at, None))
    value = value_of(now)
    if before is None or value is None or at <= since:
        return None
    return max(0, value - before) / (at - since)


def _latency(earlier: Sequence[Reading], now: Snapshot, at: float) -> float | None:
    """Compute the time since Kafka received the latest interaction that the indices count.

    The n-th valid interaction of the topic is the n-th one counted. Returns None if the offsets do not allow this, such
    as after the topic was recreated, and the previous latency if the indices count nothing new.
    """
    known = [r for r in earlier if r.snapshot.sent is not None]
    if now.indexed is None or now.sent is None or now.dead_letters is None:
        return None
    if not known or not now.offsets_match_records:
        return None
    last = known[-1]
    if last.snapshot.indexed is not None and now.indexed == last.snapshot.indexed:
        return last.latency
    arrivals = [(r.snapshot.sent or 0, r.at) for r in known] + [(now.sent, at)]
    arrived = _arrival_time(arrivals, now.indexed + now.dead_letters)
    return None if arrived is None else at - arrived


def _arrival_time(arrivals: Sequence[tuple[int, float]], n: int) -> float | None:
    """Interpolate the time when a count reached `n`, from (count, time) in order; None if it is out of their range.

    >>> _arrival_time([(0, 10.0), (100, 11.0)], 50)
    10.5
    """
    if not arrivals[0][0] < n <= arrivals[-1][0]:
        return None
    above = bisect_left(arrivals, (n, 0.0))
    (count, time_), (next_count, next_time) = arrivals[above - 1], arrivals[above]
    return time_ + (next_time - time_) * (n - count) / (next_count - count)
