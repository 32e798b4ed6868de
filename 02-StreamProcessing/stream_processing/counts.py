"""The counts of all keys, as a function of the lake's version."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from contract.tables import AGGREGATE_TABLES
from stream_processing.keyed_state import KeyedState, select_rows
from stream_processing.measures import USERS

USER: Final = "user_id"
"""The key whose distinct values are counted."""
KEYS: Final = tuple(dict.fromkeys([USER, *(table.key for table in AGGREGATE_TABLES if table.key is not None)]))
"""The key columns of the tables. All tables with the same key share one state."""


@dataclass(frozen=True)
class CountedVersion:
    """The counts as of a version of the lake, and the rows of each key that have changed since the last one.

    Frames are immutable: it takes no copy, and counting goes on meanwhile.
    """

    version: int
    rows: Mapping[str, pl.DataFrame]
    changed: Mapping[str, pl.Series]
    """The numbers of the changed rows."""
    overall: pl.DataFrame | None


class Counts:
    """The states of all keys, and which of their rows have changed: since they were published, and written to tables.

    `restore` and `add` mark rows as changed for both.
    """

    def __init__(self) -> None:
        self._states = {key: KeyedState(key) for key in KEYS}
        self._unpublished = {key: _Numbers() for key in KEYS}
        self._unwritten = {key: _Numbers() for key in KEYS}
        self.version = -1
        """The lake's version that the counts cover."""

    @property
    def users(self) -> int:
        """The number of distinct users."""
        return len(self._states[USER])

    @property
    def has_unpublished(self) -> bool:
        """Whether rows have changed since the last `take_unpublished`."""
        return any(self._unpublished.values())

    def estimated_bytes(self) -> int:
        """Return the memory that the states take while they do not change."""
        return sum(state.estimated_bytes for state in self._states.values())

    def restore(self, key: str, rows: pl.DataFrame, later: pl.LazyFrame) -> None:
        """Set the state of a key to that of a snapshot, and count the interactions that came later."""
        self._states[key] = KeyedState(key, rows)
        self._add(key, later)

    def add(self, version: int, interactions: pl.LazyFrame) -> None:
        """Count an append."""
        for key in KEYS:
            self._add(key, interactions)
        self.version = version

    def publish_all(self) -> None:
        """Mark all rows as not published yet."""
        for key, state in self._states.items():
            self._unpublished[key].add(pl.int_range(len(state), dtype=pl.UInt32, eager=True))

    def take_unpublished(self) -> dict[str, pl.DataFrame]:
        """Return the rows of each key that have changed since the last call."""
        return {key: select_rows(state.rows, key, self._unpublished[key].take()) for key, state in self._states.items()}

    def take_unwritten(self) -> CountedVersion:
        """Return the counts, with the changes since the last call."""
        changed = {key: self._unwritten[key].take() for key in KEYS}
        return CountedVersion(
            self.version, {key: state.rows for key, state in self._states.items()}, changed, self.overall()
        )

    def overall(self) -> pl.DataFrame | None:
        """Return the state over all users in one row, with their number; None if there is no user."""
        state = self._states[USER]
        return state.overall().with_columns(pl.lit(len(state), pl.Int64).alias(USERS)) if len(state) else None

    def _add(self, key: str, interactions: pl.LazyFrame) -> None:
        changed = self._states[key].add(interactions)
        self._unpublished[key].add(changed)
        self._unwritten[key].add(changed)


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
