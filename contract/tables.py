"""A table: one row per key, with the measures of its events."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import Any, Final, overload

from contract.dead_letters import truncated
from contract.event import Event
from contract.fields import ColumnType, FieldType
from contract.measures import Measure, latest
from contract.source_lines import declared_at
from contract.windows import LONGEST, Window

RESERVED: Final = "alerts"
"""The index of the alerts; those whose names start with it and _ have the state of the rules."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,199}")
_COLUMN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
_KEYS: Final = (FieldType.TEXT, FieldType.CHOICE, FieldType.WHOLE, FieldType.FLAG)
_KEY_VALUES: Final[Mapping[ColumnType, tuple[type, str]]] = {
    ColumnType.KEYWORD: (str, "text"),
    ColumnType.LONG: (int, "a whole number"),
    ColumnType.FLAG: (bool, "true or false"),
    ColumnType.DATE: (str, "a time"),
}
"""The type of a key column's value as it is in JSON, and what it is called."""
_SEPARATOR: Final = "|"
_ESCAPE: Final = "\\"
_PART: Final = re.compile(r"(?:^|\|)((?:[^|\\]|\\.)*)(?=\||\Z)", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """A column of a table; a key column has no measure."""

    name: str
    type: ColumnType
    measure: Measure | None = None
    places: int = 0
    """The decimal places of a decimal."""


@dataclass(frozen=True)
class ColumnReference:
    """A column of a declared table."""

    table: "Table"
    name: str
    line: int = field(default_factory=declared_at, compare=False, repr=False)


@dataclass(frozen=True)
class Key(Sequence[str]):
    """The names of the columns that identify a row; none for a single row over all events."""

    columns: tuple[str, ...] = ()
    window: Window | None = None
    """The one among them that is no field of the event."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields of the event."""
        return tuple(name for name in self.columns if self.window is None or name != self.window.name)

    def type_of(self, column: str, event: Event) -> ColumnType:
        """Return the type of one of the columns."""
        is_window = self.window is not None and column == self.window.name
        return ColumnType.DATE if is_window else event.field(column).column_type

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.columns[index]

    def __len__(self) -> int:
        return len(self.columns)


@dataclass(frozen=True, init=False)
class Table:
    """A table with one row per key, or with a single row if it has no key."""

    name: str
    """The name of the Delta table and of the index, and the start of its keys in the topic."""
    event: Event
    key: Key
    measures: Mapping[str, Measure] = field(hash=False)
    """The measure of each column, by name."""
    title: str
    """What its rows are, in the plural, such as Users; as default the key, or the name."""
    keep: timedelta | None
    """The time, as events have it, after which the row of a window is deleted; None: never."""
    line: int = field(compare=False, repr=False)
    _windows: tuple[Window, ...] = field(compare=False, repr=False)

    def __init__(
        self,
        name: str,
        event: Event,
        key: Sequence[str | Window],
        measures: Mapping[str, Measure],
        title: str = "",
        keep: timedelta | None = None,
    ) -> None:
        """`key` has the fields that identify a row, and at most one window of the events' time; raises TypeError."""
        if isinstance(key, str):
            raise TypeError(f"key={key!r} is a text: expected a tuple such as ({key!r},)")
        windows = tuple(each for each in key if isinstance(each, Window))
        columns = tuple(each.name if isinstance(each, Window) else each for each in key)
        values = {
            "name": name,
            "event": event,
            "key": Key(columns, windows[0] if windows else None),
            "measures": measures,
            "title": title,
            "keep": keep,
            "line": declared_at(),
            "_windows": windows,
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    def __getitem__(self, column: str) -> ColumnReference:
        """Name one of its columns."""
        return ColumnReference(self, column)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, the key first."""
        key = (Column(name, self.key.type_of(name, self.event)) for name in self.key)
        measures = (
            Column(name, measure.type(self.event), measure, measure.places(self.event))
            for name, measure in self.measures.items()
        )
        return (*key, *measures)

    @property
    def latest_event(self) -> str | None:
        """The column with the time of a row's latest event; not every table has one."""
        time = latest(self.event.time)
        return next((name for name, measure in self.measures.items() if measure == time), None)

    def column(self, name: str) -> Column | None:
        """Return the column with this name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def plural(self) -> str:
        """What its rows are, such as Users."""
        if self.title:
            return self.title
        text = " and ".join(name.removesuffix("_id") for name in self.key) or self.name
        return f"{text.replace('_', ' ').capitalize()}s" if self.key else text.replace("_", " ").capitalize()

    def row_id(self, row: Mapping[str, Any]) -> str | None:
        """Return the id of a row as it is in JSON; None for a table without a key.

        It is the value of the only key column; values of several ones are joined so that each pair of rows has
        different ids. Raises KeyError if the row lacks a key column.
        """
        return encode_row_id([self._id_value(name, row[name]) for name in self.key]) if self.key else None

    def key_values(self, row_id: str) -> list[Any]:
        """Return the values of the key columns of a row; raises ValueError if no row of the table has this id."""
        texts = decode_row_id(row_id) if len(self.key) > 1 else [row_id]
        if len(texts) != len(self.key):
            raise ValueError(f"the id has {len(texts)} parts, the key {len(self.key)}")
        if len(texts) > 1 and encode_row_id(texts) != row_id:
            raise ValueError("the id has an escape that no id has")
        return [self._key_value(name, text) for name, text in zip(self.key, texts, strict=True)]

    def key_problem(self, row: Mapping[str, Any], row_id: str) -> str:
        """Return in one line why a row as it is in JSON is not the one with this id; empty if it is.

        Only of a table with a key.
        """
        for name, type_, expected in self._key_types:
            # A bool is an int.
            if type(row.get(name)) is not type_:
                return f"{name} is {shown_value(row.get(name))}: expected {expected}"
        window = self.key.window
        values = [row[name] for name in self.key]
        if window is not None:
            position = self.key.index(window.name)
            start = _start_text(window, values[position])
            if start is None:
                shown = shown_value(values[position])
                return f"{window.name} is {shown}, which is not the start of a window of {window.size}"
            values[position] = start
        if encode_row_id(values) != row_id:
            shown = ", ".join(f"{name} is {shown_value(row[name])}" for name in self.key)
            return f"{shown}, but the key says {truncated(row_id)!r}"
        return ""

    @cached_property
    def _key_types(self) -> list[tuple[str, type, str]]:
        return [(name, *_KEY_VALUES[self.key.type_of(name, self.event)]) for name in self.key]

    def _window(self, name: str) -> Window | None:
        window = self.key.window
        return window if window is not None and window.name == name else None

    def _id_value(self, name: str, value: Any) -> Any:
        window = self._window(name)
        return value if window is None else window.text(value)

    def _key_value(self, name: str, text: str) -> Any:
        window = self._window(name)
        return _key_value(self.event.field(name).type, text) if window is None else window.start(text)

    def problems(self) -> Iterator[tuple[int, str]]:
        """Yield what is wrong, each with its line."""
        here = f"table {self.name}"
        if not _NAME.fullmatch(self.name):
            yield (
                self.line,
                f"table {self.name!r}: expected small letters, digits and _, at most 200, a letter first",
            )
        if self.name == RESERVED or self.name.startswith(f"{RESERVED}_"):
            yield self.line, f"{here}: names that start with {RESERVED} are reserved for the indices of the alerts"
        if self.name == self.event.name:
            yield self.line, f"{here}: the table of events has this name"
        if len(self._windows) > 1:
            yield self.line, f"{here}: a key has at most one window"
        names = {window.name for window in self._windows}
        for name in (name for name in self.key if name not in names):
            if name not in self.event.names:
                yield (
                    self.line,
                    f"{here}: key {name!r} is none of the event's fields: {', '.join(self.event.names)}",
                )
            elif self.event.field(name).type not in _KEYS:
                kind = self.event.field(name).type.value
                window = "; for windows of time write every(...) instead" if self.event.field(name).type.is_time else ""
                yield self.line, f"{here}: key {name} is a {kind}, expected a text, choice, whole or flag{window}"
            elif self.event.field(name).optional and self.event.field(name).default is None:
                yield self.line, f"{here}: key {name} is optional and has no default: give it one"
        if len(set(self.key)) < len(self.key):
            yield self.line, f"{here}: a key field is named twice"
        yield from self._problems_of_window(here)
        if not self.measures:
            yield self.line, f"{here}: it has no measure"
        yield from self._problems_of_measures(here)

    def _problems_of_window(self, here: str) -> Iterator[tuple[int, str]]:
        for window in self._windows:
            yield from ((window.line, f"{here}: {problem}") for problem in window.problems())
            if not _COLUMN.fullmatch(window.name) or window.name.lower() in map(str.lower, self.event.names):
                yield window.line, f"{here}: window {window.name!r} needs the name of a column that is no field"
        if self.keep is None:
            return
        if not isinstance(self.keep, timedelta):
            yield self.line, f"{here}: keep is {self.keep!r}: expected such as days(7)"
        elif not self._windows:
            yield self.line, f"{here}: keep needs a window in the key"
        elif self.keep > LONGEST:
            yield self.line, f"{here}: keep is more than 100 years"
        elif not list(self._windows[0].problems()) and self.keep < (lifetime := self._windows[0].lifetime):
            yield self.line, f"{here}: keep is shorter than the time until a window is closed, {lifetime}"

    def _problems_of_measures(self, here: str) -> Iterator[tuple[int, str]]:
        seen = {name.lower() for name in self.key}
        for name, measure in self.measures.items():
            if not _COLUMN.fullmatch(name):
                yield (
                    measure.line,
                    f"{here}: column {name!r}: a name has letters, digits and _, and starts with a letter",
                )
            if name.lower() in seen:
                yield measure.line, f"{here}: column {name} occurs twice (case does not matter)"
            seen.add(name.lower())
            for problem in measure.problems(self.event):
                yield measure.line, f"{here}: column {name}: {problem}"
            if measure.tables() and self.key:
                yield measure.line, f"{here}: column {name}: rows_of needs a table without a key"
            if any(other.key.window for other in measure.tables()):
                yield (
                    measure.line,
                    f"{here}: column {name}: rows_of cannot count the rows of windows",
                )


@lru_cache(4_096)
def _start_text(window: Window, time: str) -> str | None:
    """Return the start of a window as in the id of a row; None if no window starts at this time."""
    text = window.text(time)
    try:
        window.start(text)
    except (ValueError, OverflowError):
        return None
    return text


def shown_value(value: Any) -> str:
    """Return a value of a row as a reason quotes it: on one line, and without control characters.

    >>> shown_value("a\\n"), shown_value(None), shown_value([1])
    ("'a\\\\n'", 'missing or null', 'an array')
    """
    match value:
        case None:
            return "missing or null"
        case list():
            return "an array"
        case dict():
            return "an object"
        case str():
            return repr(truncated(value))
        case _:
            return repr(value)


def encode_row_id(values: list[Any]) -> str:
    """Return the id of these key values.

    >>> encode_row_id(["a|b"]), encode_row_id(["a|b", 3, True])
    ('a|b', 'a\\\\|b|3|true')
    """
    texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
    if len(texts) == 1:
        return texts[0]
    return _SEPARATOR.join(
        text.replace(_ESCAPE, 2 * _ESCAPE).replace(_SEPARATOR, _ESCAPE + _SEPARATOR) for text in texts
    )


def decode_row_id(row_id: str) -> list[str]:
    """Return the texts that `encode_row_id` has joined.

    >>> decode_row_id(encode_row_id(["a|b", "\\\\", 3]))
    ['a|b', '\\\\', '3']
    """
    return [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in _PART.findall(row_id)]


def _key_value(type: FieldType, text: str) -> Any:
    match type:
        case FieldType.WHOLE:
            # Python reads +5, 05, 5_0 and digits of other scripts as numbers too.
            if _WHOLE.fullmatch(text) is None:
                raise ValueError(f"{truncated(text)!r} is not a whole number")
            return int(text)
        case FieldType.FLAG:
            if text not in ("true", "false"):
                raise ValueError(f"{truncated(text)!r} is neither true nor false")
            return text == "true"
        case _:
            return text
