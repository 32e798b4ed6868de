"""Reconciles what was sent with what is in the lake and in the index, by counts, while data flows.

A count of one store cannot be compared with that of another at the same moment, since both change meanwhile; and a
later count of the second store can hide a loss behind what has arrived since. So everything is compared at a cut: a
version of the lake, which names the offsets that it was made of.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from observer.lake_cuts import Cut
from observer.services import OK
from observer.snapshot import Snapshot

_GRACE: Final = 5.0
"""Seconds after which what was sent and is not proven to be everywhere counts as behind: a batch, the two snapshots
that enclose it, and one that was taken while the sink wrote."""
_SHOWN: Final = 30.0
"""Seconds for which a recovery is reported."""
_STALLED: Final = 60.0
"""Seconds without progress, while a service reports a problem, after which that is certainly wrong."""
_MAX_READINGS: Final = 600
_MOVERS: Final = ("stream_processing", "elasticsearch_sink_alert")
"""The services without which nothing arrives."""


class State(StrEnum):
    """What the counts prove."""

    UNKNOWN = "unknown"
    BEHIND = "behind"
    EQUAL = "equal"
    WRONG = "wrong"


@dataclass(frozen=True)
class Verdict:
    """The state, and the line that says why."""

    state: State
    text: str


NO_VERDICT: Final = Verdict(State.UNKNOWN, "waiting for the first figures")


class Reconciliation:
    """Follows the snapshots, and says of each what is proven by then."""

    def __init__(self) -> None:
        self._unproven: deque[tuple[float, Mapping[int, int]]] = deque(maxlen=_MAX_READINGS)
        """When snapshots were started whose offsets are not proven to be everywhere, and those offsets."""
        self._proven: Cut | None = None
        """The latest cut that was equal everywhere."""
        self._proven_until: float | None = None
        """Everything sent until then was proven to be everywhere."""
        self._began: float | None = None
        """When the first snapshot was started."""
        self._was_equal = False
        self._behind_since: float | None = None
        """Until when everything was proven, if that is too long ago."""
        self._recovery = (0.0, 0.0)
        """When it ended, and how long it took."""
        self._progress = (-1, 0.0)
        """Records that are everywhere as far as counted, and since when it is this number."""
        self._surplus: dict[str, int] = {}
        """The surplus in the lake when a topic, by its id, was first seen."""
        self._drained: tuple[object, ...] | None = None
        """What the last snapshot was of, if it was of a drained pipeline."""

    def add(self, snapshot: Snapshot, at: float) -> Verdict:
        """Return the verdict after a snapshot that was started `at` (seconds of a clock that never goes back)."""
        if self._began is None:
            self._began = at
        if snapshot.ends is not None:
            if self._unproven and not _covers(snapshot.ends, self._unproven[-1][1]):
                # The topic was recreated.
                self._unproven.clear()
            self._unproven.append((at, snapshot.ends))
        missing = _missing(snapshot)
        if missing:
            self._drained = None
            return self._behind(Verdict(State.UNKNOWN, f"unknown: {missing}"))
        self._prove(snapshot)
        self._follow(snapshot, at)
        if wrong := self._contradiction(snapshot):
            return self._behind(Verdict(State.WRONG, wrong))
        if self._proven is not None and self._proven_until is not None and at - self._proven_until <= _GRACE:
            return self._equal(self._proven, at)
        if deficit := _deficit(snapshot):
            text = f"unknown: {deficit:,} offsets of the topic are neither in the lake nor malformed: see `make verify`"
            return self._behind(Verdict(State.UNKNOWN, text))
        if self._proven_until is None and at - self._began <= _GRACE:
            return NO_VERDICT
        return self._behind(self._catching_up(snapshot, at, self._proven_until or self._began))

    def _prove(self, snapshot: Snapshot) -> None:
        """Find the latest cut that is equal everywhere, and up to when it has everything that was sent."""
        equal = (cut for cut in reversed(snapshot.cuts) if cut.surplus == 0 and cut.rows == snapshot.indexed)
        cut = next(equal, None)
        if cut is None:
            return
        self._proven = cut
        while self._unproven and _covers(cut.offsets, self._unproven[0][1]):
            self._proven_until = self._unproven.popleft()[0]

    def _contradiction(self, snapshot: Snapshot) -> str:
        """Return what is wrong for sure, or nothing."""
        cut, indexed = snapshot.cuts[-1], snapshot.indexed or 0
        surplus = max(0, *(cut.surplus or 0 for cut in snapshot.cuts))
        # What was there at first can come from an earlier topic of this name.
        surplus -= self._surplus.setdefault(cut.topic_id, surplus)
        if surplus > 0:
            return f"{surplus:,} more in the lake than were sent"
        # The lake was read after the index.
        if indexed > cut.rows:
            return f"the index counts {indexed - cut.rows:,} more than the lake has"
        before, self._drained = self._drained, None
        if snapshot.is_drained:
            self._drained = (snapshot.ends, snapshot.published, cut.rows, indexed)
            if indexed < cut.rows and self._drained == before:
                return f"the index counts {cut.rows - indexed:,} fewer than the lake has, and nothing is on its way"
        return ""

    def _equal(self, cut: Cut, at: float) -> Verdict:
        malformed = f" {cut.rows:,} + {cut.malformed:,} malformed" if cut.malformed else ""
        text = f"sent {cut.sent:,} = lake = indexed{malformed}: nothing lost, nothing twice"
        if self._behind_since is not None:
            self._recovery, self._behind_since = (at, at - self._behind_since), None
        self._was_equal = True
        ended, seconds = self._recovery
        if seconds and at - ended <= _SHOWN:
            text += f" (recovered in {seconds:.0f} s)"
        return Verdict(State.EQUAL, text)

    def _behind(self, verdict: Verdict) -> Verdict:
        """Note since when nothing is proven, unless nothing ever was."""
        if self._was_equal and self._behind_since is None:
            self._behind_since = self._proven_until
        return verdict

    def _follow(self, snapshot: Snapshot, at: float) -> None:
        """Note whether there is progress."""
        cut = snapshot.cuts[-1]
        everywhere = min(cut.sent, (snapshot.indexed or 0) + (cut.malformed or 0))
        if everywhere != self._progress[0]:
            self._progress = (everywhere, at)

    def _catching_up(self, snapshot: Snapshot, at: float, proven_until: float) -> Verdict:
        everywhere, since = self._progress
        to_go = f"{max(0, sum((snapshot.ends or {}).values()) - everywhere):,} to go"
        stalled = at - max(since, proven_until)
        problem = next((f"{name}: {snapshot.health[name]}" for name in _MOVERS if _has_problem(snapshot, name)), None)
        if problem is not None and stalled >= _STALLED:
            return Verdict(State.WRONG, f"stopped for {stalled:.0f} s, {to_go}: {problem}")
        return Verdict(State.BEHIND, f"catching up: {to_go}, for {at - proven_until:.0f} s")


def _has_problem(snapshot: Snapshot, service: str) -> bool:
    return snapshot.health.get(service, OK) != OK


def _missing(snapshot: Snapshot) -> str:
    """Return which figure is missing, and why."""
    if snapshot.ends is None:
        return "Kafka does not answer"
    if snapshot.indexed is None:
        return "Elasticsearch does not answer"
    if not snapshot.cuts:
        return "the lake cannot be read"
    if snapshot.cuts[-1].malformed is None:
        return "not all dead letters are known"
    return ""


def _covers(offsets: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    """Whether everything before `ends` is before `offsets`."""
    return all(end <= offsets.get(partition, 0) for partition, end in ends.items())


def _deficit(snapshot: Snapshot) -> int:
    """Return how many offsets of a finished batch are missing in the lake and in the dead letters."""
    # The dead letters of the latest batch may be on their way until it is finished.
    finished = snapshot.cuts if snapshot.unread is not None else snapshot.cuts[:-1]
    return max(0, *(-(cut.surplus or 0) for cut in finished[-1:]), 0)
