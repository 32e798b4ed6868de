"""Keeps the counts of all values of one key in memory, adds new interactions, and returns which values have changed."""

from typing import Final

import polars as pl

from contract.interaction import MAX_ID_BYTES
from stream_processing.engines import POLARS
from stream_processing.measures import COUNTS, LAST, STATE, state_columns

_MAX_CHUNKS: Final = 64
"""The arrays of a column: each append with new values adds one, and each lookup passes them."""
_TIMESTAMP: Final = pl.Datetime("us", "UTC")


class KeyedState:
    """The state of one key column: a row per value, with the columns of `STATE`.

    Rows are numbered in the order in which their values first occurred. A categorical type of Polars finds the number
    of a value, so an append costs what its own values cost, however many values the state has.
    """

    def __init__(self, key: str, rows: pl.DataFrame | None = None) -> None:
        rows = empty_state(key) if rows is None else rows
        self.key = key
        self._type = pl.Categorical(pl.Categories.random())
        self._values = rows[key].cast(self._type)
        self._columns = {name: rows[name] for name in STATE}
        self._text_bytes = _text_bytes(rows[key])

    def __len__(self) -> int:
        return len(self._values)

    @property
    def rows(self) -> pl.DataFrame:
        """All rows, which later interactions do not change; the key is categorical (`select_rows` returns texts)."""
        return pl.DataFrame([self._values, *self._columns.values()])

    @property
    def estimated_bytes(self) -> int:
        """The bytes of all rows and values."""
        return int(self.rows.estimated_size()) + self._text_bytes

    def add(self, interactions: pl.LazyFrame) -> pl.Series:
        """Count interactions (the key, interaction_type, timestamp); returns the numbers of the changed rows."""
        columns: list[pl.Expr] = state_columns(POLARS)
        added = interactions.group_by(self.key).agg(columns).collect(engine="streaming")
        numbers = self._numbers(added[self.key])
        for name, column in self._columns.items():
            before = column.gather(numbers)
            after = before + added[name] if name in COUNTS else _later(before, added[name])
            self._columns[name] = column.scatter(numbers, after)
        return numbers

    def overall(self) -> pl.DataFrame:
        """Return the state over all values of the key, in one row."""
        return self.rows.select(*(pl.col(name).sum() for name in COUNTS), pl.col(LAST).max())

    def _numbers(self, texts: pl.Series) -> pl.Series:
        """Return the numbers of distinct values; new ones get rows without interactions."""
        values = texts.cast(self._type)
        numbers = values.to_physical()
        is_new = numbers >= len(self)
        new = values.filter(is_new)
        if not new.to_physical().equals(pl.int_range(len(self), len(self) + len(new), dtype=pl.UInt32, eager=True)):
            raise RuntimeError("Polars does not number the values of a categorical type in their order")
        self._text_bytes += _text_bytes(texts.filter(is_new))
        self._values = pl.concat([self._values, new], rechunk=self._values.n_chunks() > _MAX_CHUNKS)
        for name, column in self._columns.items():
            empty = pl.Series(name, [0 if name in COUNTS else None], column.dtype)
            self._columns[name] = pl.concat([column, empty.new_from_index(0, len(new))])
        return numbers


def select_rows(rows: pl.DataFrame, key: str, numbers: pl.Series | None = None) -> pl.DataFrame:
    """Return rows of a state by number, or all, with the values of the key as texts."""
    selected = rows if numbers is None else rows[numbers]
    return selected.with_columns(pl.col(key).cast(pl.String))


def publishable(key: str, states: pl.DataFrame) -> pl.DataFrame:
    """Drop keys that are longer than a record may have; ingest rejects them, and an older lake can have some."""
    return states.filter(pl.col(key).str.len_bytes() <= MAX_ID_BYTES)


def empty_state(key: str) -> pl.DataFrame:
    """Return the state of a key without any value."""
    return pl.DataFrame(schema={key: pl.String, **dict.fromkeys(COUNTS, pl.Int64), LAST: _TIMESTAMP})


def _later(before: pl.Series, added: pl.Series) -> pl.Series:
    return pl.select(pl.max_horizontal(before, added)).to_series()


def _text_bytes(texts: pl.Series) -> int:
    return int(texts.str.len_bytes().sum())
