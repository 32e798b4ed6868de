"""History of the last minutes: snapshots with the rates and the latency derived from them."""

import logging
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from observer.reconciliation import NO_VERDICT, Reconciliation, Verdict
from observer.snapshot import Observer, Snapshot

logger = logging.getLogger(__name__)

_INTERVAL: Final = 1.0
_RETENTION: Final = 300.0
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
    """The readings of the last 5 minutes."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()
        self._reconciliation = Reconciliation()

    @property
    def latest(self) -> Reading:
        """The latest reading; before the first one, a reading at time 0 of which nothing is known."""
        return self._readings[-1] if self._readings else Reading(0, Snapshot())

    def readings(self) -> list[Reading]:
        """Return all readings, the latest last."""
        return list(self._readings)

    def add(self, snapshot: Snapshot, at: float) -> None:
        """Add a snapshot taken `at` (seconds of any clock that never goes back)."""
        earlier = self.readings()
        rate = _rate(earlier, snapshot, at, "sent", _RATE_WINDOW)
        verdict = self._reconciliation.add(snapshot, at)
        self._readings.append(Reading(at, snapshot, rate, _latency(earlier, snapshot, at), verdict))
        while at - self._readings[0].at > _RETENTION:
            self._readings.popleft()

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
            Stage(name, getattr(now, field), _rate(earlier, now, last.at, field, _STAGE_RATE_WINDOW), lag)
            for field, (name, lag) in lags.items()
        ]


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


def _rate(earlier: Sequence[Reading], now: Snapshot, at: float, field: str, window: float) -> float | None:
    """Compute by how much a snapshot field grew per second within the last `window` seconds."""
    known = (r for r in earlier if at - r.at <= window and getattr(r.snapshot, field) is not None)
    first, value = next(known, None), getattr(now, field)
    if first is None or value is None or at <= first.at:
        return None
    return float(max(0, value - getattr(first.snapshot, field)) / (at - first.at))


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
