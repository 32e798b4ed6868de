"""Keeps the state of all rows of one key in memory, adds new events, and returns which rows have changed.

Rows of closed windows leave the memory. An event that comes later brings its row back: it is computed from the lake,
which has all events.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import polars as pl

from contract.declared import EVENT
from contract.fields import MAX_ID_BYTES, FieldType
from contract.measures import Operation, StateColumn
from contract.tables import Key
from stream_processing.engines import POLARS, SKETCH_SIZE, group_columns, polars_state_type, polars_type
from stream_processing.measures import EVENTS, state_columns, state_of

ROW_ID: Final = "_id"
"""The column with the ids of the rows."""
_MAX_CHUNKS: Final = 64
"""The arrays of a column: each append with new values adds one, and each lookup passes them."""
_MIN_CLOSED: Final = 0.1
"""The share of the rows that has to be of closed windows before these leave: all others are copied then."""

EventsOfWindows = Callable[[Sequence[datetime]], pl.LazyFrame]
"""Returns the events of the lake in the windows that start at these times, and maybe others."""


class KeyedState:
    """The state of one key: a row per value, with the columns of `state_of`.

    Rows are numbered in the order in which their ids first occurred. A categorical type of Polars finds the number of
    an id, so an append costs what its own rows cost, however many the state has.
    """

    def __init__(self, key: Key, rows: pl.DataFrame | None = None, left_until: datetime | None = None) -> None:
        self.key = key
        self.left_until = left_until
        """Rows of windows that start until then may have left."""
        self._state = state_of(key)
        self._set(empty_state(key) if rows is None else rows)

    def _set(self, rows: pl.DataFrame) -> None:
        self._type = pl.Categorical(pl.Categories.random())
        self._ids = rows[ROW_ID].cast(self._type)
        self._key_columns = {name: rows[name] for name in _stored_key(self.key)}
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

    def add(self, events: pl.LazyFrame, of_windows: EventsOfWindows | None = None) -> pl.Series:
        """Count events (all of their fields); returns the numbers of the changed rows.

        If rows may have left, `of_windows` has the events of their windows, those that are added now included.
        """
        added = _aggregated(self.key, self._state, events)
        if self.left_until is not None and of_windows is not None:
            added = self._with_rows_that_left(added, self.left_until, of_windows)
        numbers = self._numbers(added)
        for column in self._state:
            before = self._columns[column.name].gather(numbers)
            merged = _merged(column, before, added[column.name])
            self._columns[column.name] = _scattered(self._columns[column.name], numbers, merged)
        return numbers

    def remove_closed(self, at: datetime, changed: pl.Series) -> None:
        """Remove the rows of the windows that are closed at this time, but for `changed` ones; others get new numbers.

        Nothing happens while there are only a few.
        """
        if self.key.window is None:
            return
        until = at - self.key.window.lifetime
        is_closed = self._key_columns[self.key.window.name] <= until
        is_closed = is_closed.scatter(changed, False)
        if is_closed.sum() > _MIN_CLOSED * len(self):
            self.left_until = until if self.left_until is None else max(until, self.left_until)
            self._set(stored_rows(self.rows.filter(~is_closed)))

    def _with_rows_that_left(
        self, added: pl.DataFrame, left_until: datetime, of_windows: EventsOfWindows
    ) -> pl.DataFrame:
        """Replace the added rows that may have left by whole ones."""
        window = self.key.window
        assert window is not None
        old = added.filter(pl.col(window.name) <= left_until)
        if not len(old):
            return added
        left = old.filter(~old[ROW_ID].is_in(self._ids.cast(pl.String).implode()))
        if not len(left):
            return added
        starts = left[window.name].unique()
        events = of_windows(starts.to_list())
        start = POLARS.window_start(EVENT.time, window.size)
        whole = _aggregated(self.key, self._state, events.filter(start.is_in(starts.implode())))
        return pl.concat(
            [added.join(left, on=ROW_ID, how="anti"), whole.join(left.select(ROW_ID), on=ROW_ID, how="semi")]
        )

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
            empty = pl.Series(column.name, [_EMPTY.get(column.operation)], values.dtype)
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
    stored = {name: polars_type(key.type_of(name, EVENT)) for name in _stored_key(key)}
    state = {column.name: polars_state_type(column) for column in state_of(key)}
    return pl.DataFrame(schema={ROW_ID: pl.String(), **stored, **state})


def _stored_key(key: Key) -> tuple[str, ...]:
    """Return the columns of the key that the id does not equal."""
    is_text = len(key) == 1 and not key.window and EVENT.field(key[0]).type in (FieldType.TEXT, FieldType.CHOICE)
    return () if is_text else key.columns


def _aggregated(key: Key, state: tuple[StateColumn, ...], events: pl.LazyFrame) -> pl.DataFrame:
    """Return a row per key of the events, with its id."""
    columns = state_columns(POLARS, state)
    if not key:
        row = events.select(columns).collect(engine="streaming")
        return row.filter(pl.col(EVENTS.name) > 0).with_columns(pl.lit("").alias(ROW_ID))
    row_id = POLARS.row_id(EVENT, key).alias(ROW_ID)
    groups = [column.alias(name) for name, column in group_columns(POLARS, EVENT, key).items()]
    return events.group_by(groups).agg(columns).with_columns(row_id).collect(engine="streaming")


_EMPTY: Final[dict[Operation, object]] = {Operation.COUNT: 0, Operation.TOTAL: 0, Operation.DISTINCT: []}
"""The values of a row without events; of all other operations null."""


def _merged(column: StateColumn, before: pl.Series, added: pl.Series) -> pl.Series:
    match column.operation:
        case Operation.COUNT | Operation.TOTAL:
            return before + added
        case Operation.DISTINCT:
            united = pl.concat_list(before, added).list.unique().list.sort().list.head(SKETCH_SIZE)
            return pl.select(united.alias(column.name)).to_series()
        case Operation.LEAST:
            return pl.select(pl.min_horizontal(before, added)).to_series()
        case Operation.MOST:
            return pl.select(pl.max_horizontal(before, added)).to_series()


def _scattered(values: pl.Series, numbers: pl.Series, new: pl.Series) -> pl.Series:
    """Return the values with new ones at these numbers."""
    if not isinstance(values.dtype, pl.List):
        return values.scatter(numbers, new)
    # Polars has no scatter for lists.
    places = pl.int_range(len(values), eager=True)
    new_places = pl.int_range(len(values), len(values) + len(new), eager=True)
    return pl.concat([values, new]).gather(places.scatter(numbers, new_places))


def _text_bytes(texts: pl.Series) -> int:
    return int(texts.str.len_bytes().sum())
