"""Keeps the state of all rows of one key in memory, adds new events, and returns which rows have changed."""

from typing import Final

import polars as pl

from contract.declared import EVENT
from contract.fields import MAX_ID_BYTES, FieldType
from contract.measures import Operation, StateColumn
from contract.tables import Table
from stream_processing.engines import POLARS, polars_type
from stream_processing.measures import EVENTS, Key, state_columns, state_of

ROW_ID: Final = "_id"
"""The column with the ids of the rows."""
_MAX_CHUNKS: Final = 64
"""The arrays of a column: each append with new values adds one, and each lookup passes them."""


class KeyedState:
    """The state of one key: a row per value, with the columns of `state_of`.

    Rows are numbered in the order in which their ids first occurred. A categorical type of Polars finds the number of
    an id, so an append costs what its own rows cost, however many the state has.
    """

    def __init__(self, key: Key, rows: pl.DataFrame | None = None) -> None:
        rows = empty_state(key) if rows is None else rows
        self.key = key
        self._state = state_of(key)
        self._type = pl.Categorical(pl.Categories.random())
        self._ids = rows[ROW_ID].cast(self._type)
        self._key_columns = {name: rows[name] for name in _stored_key(key)}
        self._columns = {column.name: rows[column.name] for column in self._state}
        self._text_bytes = _text_bytes(rows[ROW_ID])

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def rows(self) -> pl.DataFrame:
        """All rows, which later events do not change; the id is categorical (`select_rows` returns texts)."""
        return pl.DataFrame([self._ids, *self._key_columns.values(), *self._columns.values()])

    @property
    def estimated_bytes(self) -> int:
        """The bytes of all rows and ids."""
        return int(self.rows.estimated_size()) + self._text_bytes

    def add(self, events: pl.LazyFrame) -> pl.Series:
        """Count events (all of their fields); returns the numbers of the changed rows."""
        added = _aggregated(self.key, self._state, events)
        numbers = self._numbers(added)
        for column in self._state:
            before = self._columns[column.name].gather(numbers)
            self._columns[column.name] = self._columns[column.name].scatter(
                numbers, _merged(column, before, added[column.name])
            )
        return numbers

    def _numbers(self, added: pl.DataFrame) -> pl.Series:
        """Return the numbers of rows with distinct ids; new ones get rows without events."""
        ids = added[ROW_ID].cast(self._type)
        numbers = ids.to_physical()
        is_new = numbers >= len(self)
        new = ids.filter(is_new)
        if not new.to_physical().equals(pl.int_range(len(self), len(self) + len(new), dtype=pl.UInt32, eager=True)):
            raise RuntimeError("Polars does not number the values of a categorical type in their order")
        if not len(new):
            return numbers
        self._text_bytes += _text_bytes(added[ROW_ID].filter(is_new))
        rechunk = self._ids.n_chunks() > _MAX_CHUNKS
        self._ids = pl.concat([self._ids, new], rechunk=rechunk)
        for name, values in self._key_columns.items():
            self._key_columns[name] = pl.concat([values, added[name].filter(is_new)], rechunk=rechunk)
        for column in self._state:
            values = self._columns[column.name]
            empty = pl.Series(column.name, [0 if _is_added(column) else None], values.dtype)
            self._columns[column.name] = pl.concat([values, empty.new_from_index(0, len(new))])
        return numbers


def select_rows(rows: pl.DataFrame, key: Key, numbers: pl.Series | None = None) -> pl.DataFrame:
    """Return rows of a state by number, or all, with the ids as texts and all columns of the key."""
    selected = rows if numbers is None else rows[numbers]
    selected = selected.with_columns(pl.col(ROW_ID).cast(pl.String))
    return selected.with_columns(pl.col(ROW_ID).alias(key[0])) if key and not _stored_key(key) else selected


def stored_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Return all rows of a state as they are stored."""
    return rows.with_columns(pl.col(ROW_ID).cast(pl.String))


def publishable(states: pl.DataFrame) -> pl.DataFrame:
    """Drop rows whose ids are longer than a record's may be; ingest rejects them, and an older lake can have some."""
    return states.filter(pl.col(ROW_ID).str.len_bytes() <= MAX_ID_BYTES)


def empty_state(key: Key) -> pl.DataFrame:
    """Return the state of a key without any row, as it is stored."""
    stored = {name: polars_type(EVENT.field(name).column_type) for name in _stored_key(key)}
    state = {column.name: polars_type(column.type, column.places) for column in state_of(key)}
    return pl.DataFrame(schema={ROW_ID: pl.String(), **stored, **state})


def _stored_key(key: Key) -> Key:
    """Return the columns of the key that the id does not equal."""
    is_text = len(key) == 1 and EVENT.field(key[0]).type in (FieldType.TEXT, FieldType.CHOICE)
    return () if is_text else key


def _aggregated(key: Key, state: tuple[StateColumn, ...], events: pl.LazyFrame) -> pl.DataFrame:
    """Return a row per key of the events, with its id."""
    columns = state_columns(POLARS, state)
    if not key:
        row = events.select(columns).collect(engine="streaming")
        return row.filter(pl.col(EVENTS.name) > 0).with_columns(pl.lit("").alias(ROW_ID))
    row_id = POLARS.row_id(Table("", EVENT, key, {})).alias(ROW_ID)
    return events.group_by(key).agg(columns).with_columns(row_id).collect(engine="streaming")


def _is_added(column: StateColumn) -> bool:
    return column.operation in (Operation.COUNT, Operation.TOTAL)


def _merged(column: StateColumn, before: pl.Series, added: pl.Series) -> pl.Series:
    if _is_added(column):
        return before + added
    compared = pl.min_horizontal if column.operation is Operation.LEAST else pl.max_horizontal
    return pl.select(compared(before, added)).to_series()


def _text_bytes(texts: pl.Series) -> int:
    return int(texts.str.len_bytes().sum())
