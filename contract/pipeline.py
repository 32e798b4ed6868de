"""The pipeline: the event, its tables, and what the overview shows."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from contract.event import Event
from contract.fields import Field
from contract.measures import Operation, StateColumn
from contract.source_lines import declared_at
from contract.tables import ColumnReference, Key, Table
from contract.windows import Window


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

    def column_of(self, value: str) -> str | None:
        """Return the column of the table of `total` that counts the events with this value of `by`."""
        if self.by is None:
            return None
        table = self.total.table
        counted = (StateColumn(Operation.COUNT, None, ((self.by, value),)),)
        simple = (n for n, each in table.measures.items() if each.state(table.event) == counted)
        return next(simple, None)


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
        if overview.by is not None:
            for value in overview.by.choices:
                if overview.column_of(value) is None:
                    table, name = overview.total.table.name, overview.by.name
                    yield overview.line, f"overview: table {table} has no count(where={{{name}: {value!r}}})"
