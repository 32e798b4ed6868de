"""Cuts of the lake: its latest versions, each with its rows and the offsets of the topic that it was made of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from deltalake import DeltaTable

_COMMITS: Final = 20
"""Those of some ten seconds: the index is not further behind, unless the pipeline is catching up."""

_LOOKS: Final = 5


@dataclass(frozen=True)
class Cut:
    """A version of the table of events."""

    rows: int
    offsets: Mapping[int, int]
    """The next offset of each partition: the rows are the valid records before these."""
    topic_id: str = ""
    batch: int = -1
    malformed: int | None = None
    """Records before the offsets that are in the dead letters; None: unknown."""
    at: float | None = field(default=None, compare=False)
    """When it was appended, in seconds since the epoch; None: nothing was."""

    @property
    def sent(self) -> int:
        """Number of the offsets."""
        return sum(self.offsets.values())

    @property
    def surplus(self) -> int | None:
        """Rows and malformed records that exceed the offsets; negative if they are fewer, None if unknown."""
        return None if self.malformed is None else self.rows + self.malformed - self.sent


def read_cuts(table: DeltaTable, topic: str) -> list[Cut]:
    """Bring a table to its current version, and return the latest cuts, the latest last.

    The rows are those of Delta's own statistics. A table without rows has an empty cut. Returns none if the history
    does not reach back to an append, or changes with every look. Raises `DeltaError`.
    """
    for _ in range(_LOOKS):
        version, commits = table.version(), table.history(_COMMITS)
        # The history has all commits, also those that are newer than the table's version; their numbers are wrong then.
        table.update_incremental()
        if table.version() == version:
            return _cuts(int(table.count()), commits, topic)
    return []


def _cuts(rows: int, commits: Sequence[Mapping[str, Any]], topic: str) -> list[Cut]:
    """Return the cuts of a version with `rows`, the last commit of which is first."""
    cuts: list[Cut] = []
    total = rows
    for commit in commits:
        added = _added_rows(commit)
        if append := _append(commit, topic):
            # Rows that another writer has added since are in the current version, too.
            at = commit["timestamp"] / 1000
            cuts.append(Cut(rows if cuts else total, append.offsets, append.topic_id, append.batch, at=at))
            if added is None:
                break
        rows -= added or 0
    return cuts[::-1] if cuts or total else [Cut(0, {})]


class _Append(NamedTuple):
    topic_id: str
    batch: int
    offsets: dict[int, int]


def _append(commit: Mapping[str, Any], topic: str) -> _Append | None:
    """Return what the stream job has written about an append; None of another commit."""
    try:
        written = json.loads(commit["userMetadata"])
        offsets = {int(partition): int(offset) for partition, offset in written["offsets"][topic].items()}
        return _Append(str(written["topic_id"]), int(written["batch"]), offsets)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _added_rows(commit: Mapping[str, Any]) -> int | None:
    """Return the number of rows that a commit has added, as Spark or delta-rs calls it; None if it does not say."""
    metrics = commit.get("operationMetrics") or {}
    rows = metrics.get("numOutputRows", metrics.get("num_added_rows"))
    return None if rows is None else int(rows)
