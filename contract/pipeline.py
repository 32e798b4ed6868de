"""The pipeline: the event, its tables, and what the overview shows."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from contract.event import Event
from contract.fields import ColumnType, Field
from contract.measures import Operation, StateColumn
from contract.source_lines import declared_at
from contract.tables import ColumnReference, Key, Table
from contract.windows import Window, in_units


@dataclass(frozen=True)
class Overview:
    """What the overview counts."""

    total: ColumnReference
    """A column whose sum over all rows is the number of events."""
    by: Field | None = None
    """A choice by which that number is divided; the table of `total` has to count each of its values."""
    mean: ColumnReference | None = None
    """A column of a table without a key."""
    mean_title: str = ""
    """What the mean is called; as default the column's name."""
    line: int = field(default_factory=declared_at, compare=False, repr=False)

    def column_of(self, value: str, table: Table | None = None) -> str | None:
        """Return the column of a table, as default that of `total`, that counts the events with this value of `by`."""
        if self.by is None:
            return None
        table = table or self.total.table
        counted = StateColumn(Operation.COUNT, None, ((self.by, value),))
        return next((name for name, column in _counts(table) if column == counted), None)

    def columns_of(self, table: Table) -> dict[str, str]:
        """Return the column that counts each value of `by`; empty if the table does not count all of them."""
        columns = {value: self.column_of(value, table) for value in (self.by.choices if self.by else ())}
        found = {value: column for value, column in columns.items() if column is not None}
        return found if len(found) == len(columns) else {}


@dataclass(frozen=True)
class Activity:
    """The events over time: counts in the rows of a table whose only key column is a window."""

    table: Table
    window: Window
    columns: Mapping[str, str]
    """The columns that count events: by the value of the overview's choice, or a single one by its own name."""
    by: Field | None = None
    """The overview's choice, if the events are divided by it."""

    @property
    def title(self) -> str:
        """What the counts show, such as `Interactions per minute, by type`."""
        events = self.table.event.name.replace("_", " ").capitalize()
        return f"{events} per {self.period}" + (f", by {self.by.name.split('_')[-1]}" if self.by else "")

    @property
    def period(self) -> str:
        """The size of a window in words, such as `minute` or `15 minutes`."""
        number, unit = in_units(self.window.size)
        return unit if number == 1 else f"{number} {unit}s"


@dataclass(frozen=True)
class Pipeline:
    """The event, its tables, and what the overview shows."""

    event: Event
    tables: tuple[Table, ...]
    overview: Overview
    line: int = field(default_factory=declared_at, compare=False, repr=False)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of the tables, each once. Tables with the same key share the numbers of that key."""
        return tuple(dict.fromkeys(table.key for table in self.tables))

    @property
    def activity(self) -> Activity | None:
        """The events over time, in the first table that has a row per window and counts events; None without one."""
        for table in self.tables:
            if table.key.window is None or len(table.key) > 1:
                continue
            columns = self.overview.columns_of(table)
            if columns:
                return Activity(table, table.key.window, columns, self.overview.by)
            counts = dict(_counts(table))
            if counts:
                # All events rather than some of them.
                name = next((name for name, column in counts.items() if column == _ALL_EVENTS), next(iter(counts)))
                return Activity(table, table.key.window, {name: name})
        return None

    def problems(self) -> Iterator[tuple[int, str]]:
        """Yield what is wrong, each with its line."""
        yield from self.event.problems()
        if not self.tables:
            yield self.line, "the pipeline has no table"
        for table in self.tables:
            if table.event is not self.event:
                yield table.line, f"table {table.name} is of another event than the pipeline's {self.event.name}"
                return
            yield from table.problems()
        for name, number in Counter(table.name for table in self.tables).items():
            if number > 1:
                yield self.line, f"{number} tables have the name {name}"
        for table in self.tables:
            for column, measure in table.measures.items():
                for other in measure.tables():
                    if other not in self.tables:
                        yield measure.line, f"table {table.name}: column {column}: {other.name} is not in the pipeline"
        yield from self._problems_of_windows()
        yield from self._problems_of_overview()

    def _problems_of_windows(self) -> Iterator[tuple[int, str]]:
        seen: dict[str, Window] = {}
        for window in (table.key.window for table in self.tables):
            if window is not None and seen.setdefault(window.name, window) != window:
                yield (
                    window.line,
                    f"window {window.name} differs from that on line {seen[window.name].line}: rename one",
                )

    def _problems_of_overview(self) -> Iterator[tuple[int, str]]:
        overview = self.overview
        for reference in filter(None, (overview.total, overview.mean)):
            if reference.table not in self.tables:
                yield reference.line, f"overview: table {reference.table.name} is not in the pipeline"
            elif reference.name not in reference.table.measures:
                known = ", ".join(reference.table.measures)
                yield reference.line, f"overview: table {reference.table.name} has no {reference.name!r}: {known}"
        if overview.total.table.keep is not None:
            yield overview.total.line, f"overview: total: rows of {overview.total.table.name} are deleted: see its keep"
        if overview.mean is not None and overview.mean.table.key:
            yield overview.mean.line, f"overview: mean: table {overview.mean.table.name} has a key: name one without"
        # The columns of a table that is wrong may not exist.
        if overview.by is not None and not list(overview.total.table.problems()):
            for value in overview.by.choices:
                if overview.column_of(value) is None:
                    table, name = overview.total.table.name, overview.by.name
                    yield overview.line, f"overview: table {table} has no count(where={{{name}: {value!r}}})"


_ALL_EVENTS: Final = StateColumn(Operation.COUNT)


def _counts(table: Table) -> Iterator[tuple[str, StateColumn]]:
    """Yield the columns that count events, with what they count."""
    for column in table.columns:
        state = () if column.measure is None else column.measure.state(table.event)
        if column.type is ColumnType.LONG and len(state) == 1 and state[0].operation is Operation.COUNT:
            yield column.name, state[0]
