"""Measures by counts how long records take from Kafka to the indices, and for how long the oldest one has waited."""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from observer.snapshot import Snapshot

HISTORY_SECONDS: Final = 1800.0
"""For which it is known when records arrived, and figures are kept."""


@dataclass(frozen=True)
class Latency:
    """Seconds from a record's arrival in Kafka until the indices count it. None: unknown."""

    seconds: float | None = None
    is_lower_bound: bool = False
    """Whether it is the age of a record that is not counted yet: its latency will be at least this."""


class LatencyTracker:
    """Follows the snapshots, and measures the latency at each.

    The n-th valid record of the topic is the n-th one that the indices count, and dead letters are done too. The
    latency is the age of the latest counted record when it was counted, or, while it is greater, the present age of
    the oldest record that is not counted yet.
    """

    def __init__(self) -> None:
        self._arrivals: deque[tuple[int, float]] = deque()
        """How many records had arrived, and when."""
        self._offsets_match = True
        self._indexed: int | None = None
        self._counted: tuple[int, float] | None = None
        """How many records were done, and when, if it is not known yet when the latest of them arrived."""
        self._counted_after: float | None = None
        """The age of the latest counted record when it was counted."""
        self._done: int | None = None
        self._waiting_since: float | None = None
        """When the first record that is not done arrived, or a later time if that is unknown."""

    def add(self, snapshot: Snapshot, at: float) -> Latency:
        """Return the latency after a snapshot taken `at` (seconds of any clock that never goes back)."""
        sent, indexed, dead_letters = snapshot.sent, snapshot.indexed, snapshot.dead_letters
        if sent is not None:
            self._add_arrival(sent, at)
        if snapshot.unread is not None:
            # Nobody knows otherwise, such as in the middle of a batch.
            self._offsets_match = snapshot.offsets_match_records
        if sent is None or indexed is None or dead_letters is None or not self._offsets_match:
            return Latency()
        done = indexed + dead_letters
        self._set_age(sent)
        if indexed != self._indexed:
            self._indexed, self._counted = indexed, (done, at + snapshot.indexed_after)
            self._set_age(sent)
        waited = self._waited(sent, done, at)
        if waited > (self._counted_after or 0):
            return Latency(waited, is_lower_bound=True)
        return Latency(self._counted_after)

    def _add_arrival(self, sent: int, at: float) -> None:
        if self._arrivals and sent < self._arrivals[-1][0]:
            # The topic was recreated.
            self._arrivals.clear()
        self._arrivals.append((sent, at))
        while at - self._arrivals[0][1] > HISTORY_SECONDS:
            self._arrivals.popleft()

    def _set_age(self, sent: int) -> None:
        """Set the age of the latest counted record, once `sent` has reached it: the indices may be read after Kafka."""
        if self._counted is not None and self._counted[0] <= sent:
            done, at = self._counted
            arrived = _arrival_time(self._arrivals, done)
            self._counted_after = None if arrived is None else max(0.0, at - arrived)
            self._counted = None

    def _waited(self, sent: int, done: int, at: float) -> float:
        """Return for how long, at least, the oldest record that is not done has waited; 0 if all are done."""
        if done != self._done or sent <= done:
            self._done, self._waiting_since = done, None
        if sent <= done:
            return 0.0
        if self._waiting_since is None:
            arrived = _arrival_time(self._arrivals, done + 1)
            # Otherwise it arrived earlier than is known.
            self._waiting_since = self._arrivals[0][1] if arrived is None else arrived
        return at - self._waiting_since


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
