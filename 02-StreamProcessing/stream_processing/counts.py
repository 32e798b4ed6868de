"""The counts of all keys, as a function of the lake's version."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from contract.tables import AGGREGATE_TABLES
from stream_processing.keyed_state import KeyedState
from stream_processing.measures import USERS

USER: Final = "user_id"
"""The key whose distinct values are counted."""
KEYS: Final = tuple(dict.fromkeys([USER, *(table.key for table in AGGREGATE_TABLES if table.key is not None)]))
"""The key columns of the tables. All tables with the same key share one state."""
_MAX_PARTS: Final = 64
"""Batches whose changed values are kept apart: they cost memory per change, and joined per value."""


@dataclass(frozen=True)
class CountsCheckpoint:
    """The counts as of a version of the lake, and the values of each key that have changed since the last checkpoint.

    Frames are immutable: a checkpoint takes no copy, and counting goes on meanwhile.
    """

    version: int
    states: Mapping[str, pl.DataFrame]
    changed: Mapping[str, pl.Series]
    overall: pl.DataFrame | None


class Counts:
    """The states of all keys."""

    def __init__(self) -> None:
        self._states = {key: KeyedState(key) for key in KEYS}
        self._changed: dict[str, list[pl.Series]] = {key: [] for key in KEYS}
        self.version = -1
        """The lake's version that the counts cover."""

    @property
    def users(self) -> int:
        """The number of distinct users."""
        return len(self._states[USER])

    def estimated_bytes(self) -> int:
        """Return the memory that the states take while they do not change."""
        return sum(int(state.rows.estimated_size()) for state in self._states.values())

    def restore(self, key: str, state: KeyedState, changed: pl.DataFrame) -> None:
        """Set the state of a key; `changed` are its rows that the aggregate tables do not have yet."""
        self._states[key] = state
        self._changed[key] = [changed[key]]

    def add(self, version: int, interactions: pl.LazyFrame) -> dict[str, pl.DataFrame]:
        """Count an append; returns the changed rows of each key."""
        changed = {key: state.add(interactions) for key, state in self._states.items()}
        for key, rows in changed.items():
            self._mark_changed(key, rows[key])
        self.version = version
        return changed

    def overall(self) -> pl.DataFrame | None:
        """Return the state over all users in one row, with their number; None if there is no user."""
        state = self._states[USER]
        return state.overall().with_columns(pl.lit(len(state), pl.Int64).alias(USERS)) if len(state) else None

    def checkpoint(self) -> CountsCheckpoint:
        """Return the counts; the next checkpoint has the changes after this one."""
        changed = {key: pl.concat(parts).unique() for key, parts in self._changed.items() if parts}
        self._changed = {key: [] for key in KEYS}
        states = {key: state.rows for key, state in self._states.items()}
        return CountsCheckpoint(self.version, states, changed, self.overall())

    def _mark_changed(self, key: str, changed: pl.Series) -> None:
        parts = self._changed[key]
        parts.append(changed)
        if len(parts) > _MAX_PARTS:
            self._changed[key] = [pl.concat(parts).unique()]
