"""Keeps the counts of all values of one key in memory, merges new interactions, and returns what has changed."""

from typing import Final

import polars as pl

from contract.interaction import MAX_ID_BYTES
from stream_processing.engines import POLARS
from stream_processing.measures import COUNTS, LAST, STATE, state_columns

_TIMESTAMP: Final = pl.Datetime("us", "UTC")


class KeyedState:
    """The state of one key column: a row per value, with the columns of `STATE`."""

    def __init__(self, key: str, rows: pl.DataFrame | None = None) -> None:
        self.key = key
        self.rows = empty_state(key) if rows is None else rows.select(key, *STATE)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, interactions: pl.LazyFrame) -> pl.DataFrame:
        """Count interactions (the key, interaction_type, timestamp); returns the new state of the changed values.

        The cost grows with the interactions, and by some 20 ns with each value of the key.
        """
        columns: list[pl.Expr] = state_columns(POLARS)
        added = interactions.group_by(self.key).agg(columns).collect(engine="streaming")
        return self.merge(added)

    def merge(self, added: pl.DataFrame) -> pl.DataFrame:
        """Merge another state of the same key; returns the new state of the values that it has."""
        before = self.rows.join(added.select(self.key), on=self.key, how="semi")
        changed = (
            pl.concat([before, added.select(self.key, *STATE)])
            .group_by(self.key)
            .agg(*(pl.col(name).sum() for name in COUNTS), pl.col(LAST).max())
        )
        unchanged = self.rows.join(changed.select(self.key), on=self.key, how="anti")
        self.rows = pl.concat([unchanged, changed])
        return changed

    def overall(self) -> pl.DataFrame:
        """Return the state over all values of the key, in one row."""
        return self.rows.select(*(pl.col(name).sum() for name in COUNTS), pl.col(LAST).max())


def publishable(key: str, states: pl.DataFrame) -> pl.DataFrame:
    """Drop keys that are longer than a record may have; ingest rejects them, and an older lake can have some."""
    return states.filter(pl.col(key).str.len_bytes() <= MAX_ID_BYTES)


def empty_state(key: str) -> pl.DataFrame:
    """Return the state of a key without any value."""
    return pl.DataFrame(schema={key: pl.String, **dict.fromkeys(COUNTS, pl.Int64), LAST: _TIMESTAMP})
