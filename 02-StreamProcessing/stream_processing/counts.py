"""The counts of all keys, as a function of the lake's version.

The clock, the time that the events have reached, closes windows. The counts do not depend on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import polars as pl

from contract.declared import EVENT
from contract.measures import rows_column
from contract.tables import Key
from stream_processing.event_time import event_time
from stream_processing.keyed_state import KeyedState, select_rows
from stream_processing.lake import Lake
from stream_processing.measures import ALL, EVENTS, KEYS

_HAS_WINDOWS: Final = any(key.window for key in KEYS)


@dataclass(frozen=True)
class CountedVersion:
    """The counts as of a version of the lake, and the rows of each key that have changed since the last one.

    Frames are immutable: it takes no copy, and counting goes on meanwhile.
    """

    version: int
    rows: Mapping[Key, pl.DataFrame]
    changed: Mapping[Key, pl.Series]
    """The numbers of the changed rows."""
    clock: datetime | None
    left_until: Mapping[Key, datetime | None]
    """`KeyedState.left_until` of each key."""

    def changed_rows(self, key: Key) -> pl.DataFrame:
        """Return the changed rows of a key."""
        return _with_sizes(key, select_rows(self.rows[key], key, self.changed[key]), self.rows)


class Counts:
    """The states of all keys, and which of their rows have changed: since they were published, and written to tables.

    `restore` and `add` mark rows as changed for both.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._states = {key: KeyedState(key) for key in KEYS}
        self._unpublished = {key: _Numbers() for key in KEYS}
        self._unwritten = {key: _Numbers() for key in KEYS}
        self.version = -1
        """The lake's version that the counts cover."""
        self.clock: datetime | None = None
        """None before the first event, and without any window."""

    @property
    def sizes(self) -> dict[Key, int]:
        """The number of rows of each key."""
        return {key: len(state) for key, state in self._states.items()}

    @property
    def events(self) -> int:
        """The number of events."""
        return int(self._states[ALL].rows[EVENTS.name].sum())

    @property
    def has_unpublished(self) -> bool:
        """Whether rows have changed since the last `take_unpublished`."""
        return any(self._unpublished.values())

    def estimated_bytes(self) -> int:
        """Return the memory that the states take while they do not change."""
        return sum(state.estimated_bytes for state in self._states.values())

    def restore(self, state: KeyedState, clock: datetime | None, later: pl.LazyFrame, version: int) -> None:
        """Set the state of a key to one of the past, and count the events that came later, up to a version."""
        self._states[state.key] = state
        self._add(state.key, later, version)
        self.clock = _advanced(_latest(self.clock, clock), later)

    def add(self, version: int, events: pl.LazyFrame) -> None:
        """Count an append."""
        for key in KEYS:
            self._add(key, events, version)
        self.clock = _advanced(self.clock, events)
        self.version = version

    def remove_closed(self, written: CountedVersion) -> None:
        """Remove closed windows from memory, but for those that have changed lately; after `take_unwritten`."""
        if self.clock is not None and not self.has_unpublished:
            for key, state in self._states.items():
                state.remove_closed(self.clock, written.changed[key])

    def publish_all(self) -> None:
        """Mark all rows as not published yet."""
        for key, state in self._states.items():
            self._unpublished[key].add(pl.int_range(len(state), dtype=pl.UInt32, eager=True))

    def take_unpublished(self) -> dict[Key, pl.DataFrame]:
        """Return the rows of each key that have changed since the last call."""
        rows = {key: state.rows for key, state in self._states.items()}
        return {key: _with_sizes(key, select_rows(rows[key], key, self._unpublished[key].take()), rows) for key in KEYS}

    def take_unwritten(self) -> CountedVersion:
        """Return the counts, with the changes since the last call."""
        changed = {key: self._unwritten[key].take() for key in KEYS}
        rows = {key: state.rows for key, state in self._states.items()}
        left_until = {key: state.left_until for key, state in self._states.items()}
        return CountedVersion(self.version, rows, changed, self.clock, left_until)

    def _add(self, key: Key, events: pl.LazyFrame, version: int) -> None:
        of_windows = partial(self._events_of_windows, key, version)
        changed = self._states[key].add(events, of_windows)
        self._unpublished[key].add(changed)
        self._unwritten[key].add(changed)

    def _events_of_windows(self, key: Key, version: int, starts: Sequence[datetime]) -> pl.LazyFrame:
        return self._lake.events_of_windows(starts, _size(key), version)


def _size(key: Key) -> timedelta:
    assert key.window is not None
    return key.window.size


def _advanced(clock: datetime | None, events: pl.LazyFrame) -> datetime | None:
    """Return the clock after these events."""
    return _latest(clock, event_time(events, EVENT.time)) if _HAS_WINDOWS else None


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _with_sizes(key: Key, selected: pl.DataFrame, rows: Mapping[Key, pl.DataFrame]) -> pl.DataFrame:
    """Add the numbers of rows of all keys to the row over all events."""
    if key:
        return selected
    return selected.with_columns(pl.lit(len(of), pl.Int64).alias(rows_column(other)) for other, of in rows.items())


class _Numbers:
    """A set of row numbers."""

    _MAX_PARTS: Final = 64
    """Series of numbers that are kept apart: they cost memory per number, and joined per distinct number."""

    def __init__(self) -> None:
        self._parts: list[pl.Series] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, numbers: pl.Series) -> None:
        if len(numbers):
            self._parts.append(numbers)
        if len(self._parts) > self._MAX_PARTS:
            self._parts = [self.take()]

    def take(self) -> pl.Series:
        """Return the distinct numbers, and forget them."""
        parts, self._parts = self._parts, []
        return pl.concat([pl.Series(dtype=pl.UInt32), *parts]).unique()
