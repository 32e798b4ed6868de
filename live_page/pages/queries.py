"""Queries over the lake: examples that follow from the declaration, and a result as a chart and as CSV."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from contract.fields import ColumnType, FieldType
from contract.pipeline import Pipeline
from live_page.formatting import format_name
from live_page.sources.lake import QueryResult

_TIME: Final = re.compile(r"(?P<date>\d{4}-\d\d-\d\d) (?P<time>\d\d:\d\d:\d\d(\.\d+)?)\+00")
MAX_BARS: Final = 40
MAX_HISTORY: Final = 20
_MAX_LENGTH: Final = 10_000
"""Characters of a query of the history."""
_SQL_TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.KEYWORD: "text",
    ColumnType.LONG: "bigint",
    ColumnType.DOUBLE: "double",
    ColumnType.DECIMAL: "decimal",
    ColumnType.FLAG: "boolean",
    ColumnType.DATE: "timestamp",
}
_SPECIAL: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def columns_of_tables(pipeline: Pipeline) -> dict[str, dict[str, str]]:
    """Return the type of each column of each table of the lake."""
    event = pipeline.event
    tables = {event.name: {field.name: _SQL_TYPES[field.column_type] for field in event.fields}}
    for table in pipeline.tables:
        tables[table.name] = {column.name: _SQL_TYPES[column.type] for column in table.columns}
    return tables


def example_queries(pipeline: Pipeline) -> dict[str, str]:
    """Return six queries by title that a pipeline with this declaration can answer."""
    # Names in quotes, since they can be words of SQL.
    event, total = pipeline.event, pipeline.overview.total
    events, source, time = format_name(event.name).capitalize(), f'FROM "{event.name}"', f'"{event.time}"'
    names = [field.name for field in event.fields if field.type in (FieldType.TEXT, FieldType.CHOICE)]
    groups, numbers = names[-2:], [field.name for field in event.fields if field.column_type.is_number]
    totals = [
        "count(*) AS n",
        *(f'count(DISTINCT "{name}") AS "different {name}"' for name in names),
        *(f'avg("{name}") AS "mean {name}"' for name in numbers),
        f"min({time}) AS earliest, max({time}) AS latest",
    ]
    keys = "".join(f'"{name}", ' for name in total.table.key)
    return {
        f"{events} by {' and '.join(map(format_name, groups))}": (
            f"SELECT {_quoted(groups)}, count(*) AS n, max({time}) AS latest\n{source}\n"
            "GROUP BY ALL ORDER BY n DESC LIMIT 20"
        ),
        f"{events} per minute": (
            f"SELECT date_trunc('minute', {time}) AS minute, count(*) AS n\n{source}\n"
            "GROUP BY ALL ORDER BY minute DESC LIMIT 30"
        ),
        f"{events} by hour of the day": (
            f"SELECT strftime({time}, '%H:00') AS hour, count(*) AS n\n{source}\nGROUP BY ALL ORDER BY hour"
        ),
        f"Latest {events.lower()}": f"SELECT *\n{source}\nORDER BY {time} DESC LIMIT 20",
        f"Top {total.table.plural.lower()}": (
            f'SELECT {keys}"{total.name}"\nFROM "{total.table.name}"\nORDER BY "{total.name}" DESC LIMIT 10'
        ),
        f"All {events.lower()} in one row": f"SELECT {', '.join(totals)}\n{source}",
    }


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def format_number(text: str) -> str:
    """Format a number as DuckDB does, but for values that are no numbers.

    >>> [format_number(text) for text in ("9007199254740993", "nan", "-inf")]
    ['9007199254740993', 'NaN', '-Infinity']
    """
    return _SPECIAL.get(text, text)


def bars_of(result: QueryResult) -> tuple[str, list[str], list[float]] | None:
    """Return the name of a result's first column of numbers, and a label and a number for each of its first rows.

    The labels are the columns before it. None if there is no such column, or no number.
    """
    number = result.numeric.index(True) if True in result.numeric else 0
    if number == 0:
        return None
    rows = [(row[:number], _number(row[number])) for row in result.rows[:MAX_BARS]]
    bars = [(" · ".join(_label(cell) for cell in cells), value) for cells, value in rows if value is not None]
    if not bars:
        return None
    return result.columns[number], _without_date([name for name, _ in bars]), [value for _, value in bars]


def _without_date(names: list[str]) -> list[str]:
    """Leave out the date of times (UTC) that have it in common, which would take the place of what differs.

    >>> _without_date(["2026-01-31 14:59:00+00", "2026-01-31 15:00:00+00"])
    ['14:59:00', '15:00:00']
    >>> _without_date(["2026-01-31 23:59:00+00", "2026-02-01 00:00:00+00"])
    ['2026-01-31 23:59:00+00', '2026-02-01 00:00:00+00']
    """
    times = [_TIME.fullmatch(name) for name in names]
    if len({time and time["date"] for time in times}) > 1:
        return names
    return [time["time"] if time else name for name, time in zip(names, times, strict=True)]


def _label(cell: str | None) -> str:
    return "NULL" if cell is None else cell


def _number(text: str | None) -> float | None:
    """Return the number of a cell; None if it has none that can be drawn."""
    try:
        # An integer of any size stays exact.
        return int(text or "")
    except ValueError:
        pass
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def as_csv(result: QueryResult) -> str:
    """Return a result as CSV, in which NULL is nothing and an empty text is in quotes."""
    lines: list[Sequence[str | None]] = [result.columns, *result.rows]
    return "".join(f"{','.join(map(_csv_cell, line))}\r\n" for line in lines)


def _csv_cell(cell: str | None) -> str:
    return "" if cell is None else '"' + cell.replace('"', '""') + '"'


def history_of(stored: object) -> list[str]:
    """Return the queries that a browser has stored, the latest first; whatever else it has stored is left out."""
    try:
        found = json.loads(stored) if isinstance(stored, str) else []
    except ValueError:
        return []
    queries = [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
    return with_latest([each for each in queries if each.strip() and len(each) <= _MAX_LENGTH])


def with_latest(history: list[str], *latest: str) -> list[str]:
    """Return a history with a query first, and each query once.

    >>> with_latest(["a", "b"], "b")
    ['b', 'a']
    """
    return list(dict.fromkeys([*latest, *history]))[:MAX_HISTORY]
