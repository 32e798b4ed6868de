"""What the page of one row asks the lake: its events per minute, and how often each of its counterparts occurs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from contract.declared import PIPELINE
from contract.tables import Table, encode_row_id
from live_page.pages.links import KEYED, noun
from live_page.sources.errors import EmptyError
from live_page.sources.lake import QueryResult

MINUTES: Final = 60
"""Minutes of the trend, up to the row's latest event."""
_LEAST_MINUTES: Final = 10
MAX_COUNTERPARTS: Final = 20
_MAX_KINDS: Final = 8
"""More kinds of events are not told apart in a chart, and would exceed a result."""
_MINUTE: Final = 60_000
"""Milliseconds."""


@dataclass(frozen=True)
class Counterparts:
    """The rows of another table that have events in common with a row."""

    table: Table
    column: str
    """The field of the event that tells them apart."""

    def row_id(self, own: Mapping[str, str], value: str) -> str:
        """Return the id of one of them; `own` has the row's own key fields as text."""
        return encode_row_id([value if name == self.column else own[name] for name in self.table.key])


def no_row(of: Table) -> str:
    """Return what is said of an id that no row has."""
    return f"No {noun(of)} has this id"


def key_texts(of: Table, row_id: str) -> dict[str, str]:
    """Return the key fields of a row as DuckDB writes them; raises `EmptyError` if no row has this id."""
    values = _key_values(of, row_id)
    return {
        name: str(values[name]).lower() if isinstance(values[name], bool) else str(values[name])
        for name in of.key.fields
    }


def events_of(of: Table, row_id: str) -> tuple[str, list[str]]:
    """Return the condition for the events of a row, with its parameters; raises `EmptyError` if no row has this id."""
    window, time = of.key.window, of.event.time
    texts = key_texts(of, row_id)
    # Names in quotes, since they can be words of SQL.
    conditions = [f'CAST("{name}" AS VARCHAR) = ?' for name in texts]
    bounds: list[datetime] = []
    if window is not None:
        start = _key_values(of, row_id)[window.name]
        try:
            bounds = [start, start + window.size]
        except OverflowError:
            raise EmptyError(no_row(of)) from None
        conditions.append(f'"{time}" >= CAST(? AS TIMESTAMPTZ) AND "{time}" < CAST(? AS TIMESTAMPTZ)')
    return " AND ".join(conditions), [*texts.values(), *(bound.isoformat() for bound in bounds)]


def _key_values(of: Table, row_id: str) -> dict[str, Any]:
    try:
        return dict(zip(of.key, of.key_values(row_id), strict=True))
    except (ValueError, KeyError, OverflowError):
        raise EmptyError(no_row(of)) from None


def kind_of(of: Table) -> str:
    """Return the field by which the events of a row are told apart in its trend; empty if there is none."""
    by = PIPELINE.overview.by
    is_shown = by is not None and by.name not in of.key and len(by.choices) <= _MAX_KINDS
    return by.name if by is not None and is_shown else ""


def has_trend(of: Table) -> bool:
    """Whether the events of a row are of more than one minute."""
    return of.key.window is None or of.key.window.size.total_seconds() > MINUTES


def minutes_of(of: Table, row_id: str) -> tuple[str, list[str]]:
    """Return the query for the number of events in each minute of the last hour that has any, with its parameters.

    Its columns are the minute (milliseconds since the epoch), the kind, the number, and the first minute of all.
    """
    condition, parameters = events_of(of, row_id)
    time, kind = of.event.time, kind_of(of)
    shown_kind = f'CAST("{kind}" AS VARCHAR)' if kind else "''"
    # A single event of the far future would be the last hour.
    return (
        f"WITH minutes AS (SELECT date_trunc('minute', \"{time}\") AS minute, {shown_kind} AS kind, count(*) AS n"
        f' FROM "{of.event.name}" WHERE {condition} AND "{time}" <= now() + INTERVAL 1 DAY GROUP BY 1, 2)'
        " SELECT epoch_ms(minute), kind, n, (SELECT epoch_ms(min(minute)) FROM minutes) FROM minutes"
        f" WHERE minute > (SELECT max(minute) FROM minutes) - INTERVAL {MINUTES} MINUTE ORDER BY 1, 2",
        parameters,
    )


def kinds_of(of: Table) -> Sequence[str]:
    """Return the declared kinds of the events of a row, in the order that every chart has them."""
    by = PIPELINE.overview.by
    return by.choices if by is not None and kind_of(of) else ()


def trend(result: QueryResult, total: str, kinds: Sequence[str] = ()) -> dict[str, list[tuple[int, int]]]:
    """Return the number of events in each minute by kind, or as `total`; 0 where the answer has none.

    It is of the last hour, or begins with the first event of the row if that is later, and has ten minutes at least.
    The declared kinds are first, also those that do not occur: each has its own colour in all charts.
    """
    rows = [(int(minute or 0), kind or total, int(n or 0), int(first or 0)) for minute, kind, n, first in result.rows]
    if not rows:
        return {}
    last, first = max(rows)[0], rows[0][3]
    start = max(last - (MINUTES - 1) * _MINUTE, min(first, last - (_LEAST_MINUTES - 1) * _MINUTE))
    counts = {(minute, kind): n for minute, kind, n, _ in rows}
    return {
        kind: [(minute, counts.get((minute, kind), 0)) for minute in range(start, last + 1, _MINUTE)]
        for kind in (*kinds, *sorted({kind for _, kind, _, _ in rows} - {*kinds}))
    }


def counterparts_of(of: Table, tables: Sequence[Table] = KEYED) -> list[Counterparts]:
    """Return the tables whose rows have events in common with a row, told apart by one field that is not its own."""
    found = []
    for table in tables:
        others = [name for name in table.key.fields if name not in of.key.fields]
        if table.key.window is None and len(others) == 1:
            found.append(Counterparts(table, others[0]))
    return found


def count_counterparts(of: Table, row_id: str, column: str) -> tuple[str, list[str]]:
    """Return the query for the values of a column in the events of a row, with its parameters.

    Its columns are the value, the number of events, and how many values there are.
    """
    condition, parameters = events_of(of, row_id)
    return (
        f'SELECT CAST("{column}" AS VARCHAR), count(*) AS n, count(*) OVER () FROM "{of.event.name}"'
        f" WHERE {condition} GROUP BY 1 ORDER BY n DESC, 1 LIMIT {MAX_COUNTERPARTS}",
        parameters,
    )
