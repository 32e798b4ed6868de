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

from observer.latency import HISTORY_SECONDS, LatencyTracker
from observer.reconciliation import NO_VERDICT, Reconciliation, Verdict
from observer.snapshot import Observer, Snapshot

logger = logging.getLogger(__name__)

_INTERVAL: Final = 1.0
_RETENTION: Final = 300.0
"""Shorter than that of the figures: a whole snapshot takes some hundred times as much memory."""
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
    is_latency_lower_bound: bool = False
    """Whether it is the age of an interaction that is not counted yet: its latency will be at least this."""
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
    is_latency_lower_bound: bool = False


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
        self._latency = LatencyTracker()
        self._reconciliation = Reconciliation()
        self._last_points: dict[float, Sequence[Point]] = {}
        """What `points` has returned last, by its seconds."""

    @property
    def latest(self) -> Reading:
        """The latest reading; before the first one, a reading at time 0 of which nothing is known."""
        return self._readings[-1] if self._readings else Reading(0, Snapshot())

    def readings(self) -> list[Reading]:
        """Return all readings, the latest last."""
        return list(self._readings)

    def points(self, seconds: float) -> Sequence[Point]:
        """Return the figures up to `seconds` before the latest reading, the latest last.

        All browsers that ask for the same seconds share the result.
        """
        if not self._points:
            return []
        last = self._last_points.get(seconds, ())
        if not last or last[-1] is not self._points[-1]:
            # A copy, since the poller adds to it meanwhile.
            points = list(self._points)
            last = points[bisect_left(points, points[-1].at - seconds, key=attrgetter("at")) :]
            self._last_points[seconds] = last
        return last

    def add(self, snapshot: Snapshot, at: float) -> None:
        """Add a snapshot taken `at` (seconds of any clock that never goes back)."""
        earlier = self.readings()
        rate = _rate(earlier, snapshot, at, attrgetter("sent"), _RATE_WINDOW)
        latency = self._latency.add(snapshot, at)
        verdict = self._reconciliation.add(snapshot, at)
        self._readings.append(Reading(at, snapshot, rate, latency.seconds, latency.is_lower_bound, verdict))
        self._points.append(
            Point(
                at,
                rate,
                latency.seconds,
                snapshot.indexed,
                snapshot.firing,
                snapshot.dead_letters,
                snapshot.mean,
                latency.is_lower_bound,
            )
        )
        while at - self._readings[0].at > _RETENTION:
            self._readings.popleft()
        while at - self._points[0].at > HISTORY_SECONDS:
            self._points.popleft()

    def stages(self) -> list[Stage]:
        """Return the stages from the topic of interactions to the published rows."""
        readings = self.readings() or [self.latest]
        now = readings[-1].snapshot
        lags = {
            "sent": ("sent to Kafka", None),
            "in_the_lake": ("in the lake", _lake_lag(now)),
            "aggregated": ("aggregated", _difference(now.in_the_lake, now.aggregated)),
            "published": ("rows published", now.waiting_rows),
        }
        return [
            Stage(name, getattr(now, field), stage_rate(readings, attrgetter(field)), lag)
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
