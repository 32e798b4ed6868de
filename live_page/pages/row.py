"""The page of one row, such as a user or an item."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from nicegui import ui

from contract.alerts import FIRED_AT, ROW, RULE
from contract.fields import ColumnType
from contract.tables import Table
from live_page.charts import Marks, bar_chart, stacked_chart, update_bars, update_stacked
from live_page.components import LINK, Column, Panel, RecordTable, height_of, hint, two_columns
from live_page.formatting import UNKNOWN, format_count, format_name, format_text, format_time
from live_page.pages.alert_rows import alert_row, short_rule
from live_page.pages.alerts import ALERT_COLUMNS
from live_page.pages.cells import EMPTY, format_cell, is_total
from live_page.pages.links import noun, plural, row_href, row_label, table_href
from live_page.pages.row_queries import (
    MINUTES,
    Counterparts,
    count_counterparts,
    counterparts_of,
    events_of,
    has_trend,
    key_texts,
    kinds_of,
    minutes_of,
    no_row,
    trend,
)
from live_page.sources import Sources
from live_page.sources.documents import Documents, Hits, Ranks
from live_page.sources.errors import EmptyError, UnavailableError, UnknownRowError
from live_page.sources.lake import LakeReader, QueryResult

_EXAMPLES = 3
"""Rows that are named if one is unknown."""
_ALERTS = 10
_MAX_MARK = 40
"""Characters."""
_MEASURES = (
    Column("name", "Measure"),
    Column("value", "Value", is_number=True),
    Column("rank", "Rank", is_number=True),
)
_LAKE_SECONDS: Final = 8.0
"""Between two requests for answers of the lake, each of which is kept for as long at least."""


def show(sources: Sources, of: Table, row_id: str) -> None:
    """Build the page."""
    ui.link(f"← All {plural(of)}", table_href(of)).classes(LINK)
    unknown = ui.row().classes("gap-x-1 gap-y-0 w-full")
    _show_measures(sources.documents, of, row_id, unknown)
    if has_trend(of):
        _show_trend(sources, of, row_id)
    with two_columns():
        for each in counterparts_of(of):
            _show_counterparts(sources.lake, of, row_id, each)
    _show_alerts(sources.documents, of, row_id)
    _show_events(sources.lake, of, row_id)


def _show_measures(documents: Documents, of: Table, row_id: str, unknown: ui.row) -> None:
    """Show the measures of a row and their ranks, or in `unknown` which rows there are."""
    counts = [c.name for c in of.columns if c.type is ColumnType.LONG and c.measure is not None and not is_total(c)]
    with two_columns():
        with Panel("Measures") as panel:
            table = RecordTable(
                _MEASURES, EMPTY, height=height_of(sum(column.measure is not None for column in of.columns))
            )
        if len(counts) > 1:
            with Panel("Counts") as counts_panel:
                chart = bar_chart(counts, f"counts of {format_text(row_label(of, row_id))}")
            panel.add_follower(counts_panel)

    def read() -> tuple[Mapping[str, Any], Ranks]:
        row = documents.row(of.name, row_id)
        if row is None:
            found = documents.rows(of.name, "", of.key[0], False, 0, _EXAMPLES)
            raise UnknownRowError(no_row(of), found.total, [of.row_id(each) or "" for each in found.rows])
        return row, documents.ranks(of.name, row)

    def show_empty(reason: EmptyError) -> None:
        if isinstance(reason, UnknownRowError) and not unknown.default_slot.children:
            with unknown:
                _show_known_rows(of, reason)

    def show_row(found: tuple[Mapping[str, Any], Ranks]) -> None:
        row, ranks = found
        unknown.clear()
        table.rows = [
            {"key": c.name, "name": c.name, "value": format_cell(of, c, row), "rank": format_rank(ranks, c.name)}
            for c in of.columns
            if c.measure
        ]
        if len(counts) > 1:
            update_bars(chart, counts, [row.get(name, 0) for name in counts])

    panel.refresh_from(read, show_row, interval=2.0, show_empty=show_empty)


def format_rank(ranks: Ranks, column: str) -> str:
    """Return the rank of a row's value among those of all rows.

    >>> format_rank(Ranks(1_000, {"likes": 3}), "likes"), format_rank(Ranks(1_000, {}), "likes")
    ('3 of 1,000', '–')
    """
    rank = ranks.of.get(column)
    # Between the two, the index may have got a row.
    return UNKNOWN if rank is None else f"{format_count(rank)} of {format_count(max(rank, ranks.rows))}"


def _show_known_rows(of: Table, reason: UnknownRowError) -> None:
    ui.label(f"{reason}. There are {format_count(reason.total)} {plural(of)}{', such as' if reason.examples else ''}")
    for row_id in reason.examples:
        link = ui.link(format_text(row_label(of, row_id)), row_href(of, row_id))
        link.classes(f"{LINK} max-w-full truncate")


# --- The trend ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trend:
    counts: Mapping[str, Sequence[tuple[int, int]]]
    alerts: Sequence[Mapping[str, Any]] | None
    """None: unknown."""


def _show_trend(sources: Sources, of: Table, row_id: str) -> None:
    events = format_name(of.event.name)
    with Panel(f"{events.capitalize()} per minute (UTC)") as panel:
        chart = stacked_chart(f"{events} of {format_text(row_label(of, row_id))} per minute, with its alerts, UTC")
        about = hint("")

    def read() -> _Trend:
        query, parameters = minutes_of(of, row_id)
        counts = trend(sources.lake.answer(query, *parameters), events, kinds_of(of))
        alerts: Sequence[Mapping[str, Any]] | None = None
        with suppress(UnavailableError, EmptyError):
            alerts = sources.documents.alerts(index=of.name, row_id=row_id, size=_ALERTS).rows
        return _Trend(counts, alerts)

    def show_trend(found: _Trend) -> None:
        times = [at for points in found.counts.values() for at, _ in points]
        marks = [] if found.alerts is None else marks_of(of, found.alerts)
        # At the bar of its minute: the axis ends with that.
        shown = [
            (at // 60 * 60, text) for at, text in marks if times and min(times) <= at * 1_000 < max(times) + 60_000
        ]
        update_stacked(chart, found.counts, shown, has_texts_above=True)
        about.set_text(_describe_trend(found, len(shown), len(marks)))

    panel.refresh_from(read, show_trend, interval=_LAKE_SECONDS)


def marks_of(of: Table, alerts: Sequence[Mapping[str, Any]]) -> Marks:
    """Return when alerts of a row fired, each with its rule: at the time of the event that the row had then.

    Of a table that does not have the time of its latest event, at the time of the clock.
    """
    found = []
    for alert in alerts:
        at = (alert.get(ROW) or {}).get(of.latest_event) or alert[FIRED_AT]
        with suppress(ValueError, TypeError, OverflowError):
            rule = format_text(short_rule(alert[RULE]), _MAX_MARK)
            found.append((datetime.fromisoformat(at).timestamp(), f"▲ {rule}"))
    return found


def _describe_trend(found: _Trend, shown: int, fired: int) -> str:
    if not found.counts:
        return ""
    shown_minutes = max(map(len, found.counts.values()))
    hour = f"The {MINUTES} minutes up to its latest event" if shown_minutes == MINUTES else "All up to its latest event"
    if found.alerts is None:
        return f"{hour}; its alerts are unknown"
    if not fired:
        return f"{hour}; none of its alerts has fired"
    if fired == shown:
        return f"{hour}, with the alert that fired" if fired == 1 else f"{hour}, with the {fired} latest alerts"
    return f"{hour}, with {shown} of its {fired} latest alerts: the others fired before"


# --- Counterparts ------------------------------------------------------------------------------------


def _show_counterparts(lake: LakeReader, of: Table, row_id: str, counterparts: Counterparts) -> None:
    other = counterparts.table
    columns = (
        Column("name", noun(other).capitalize()),
        Column("n", format_name(of.event.name).capitalize(), is_number=True),
    )
    with Panel(f"{other.plural} of this {noun(of)}") as panel:
        table = RecordTable(
            columns, f"No {plural(other)} of this {noun(of)} in the lake yet", links="name", height="min-h-56"
        )
        about = hint("")
    # Those of a window are its own.
    in_lake = ", in the whole lake" if of.key.window is None else ""

    def read() -> QueryResult:
        query, parameters = count_counterparts(of, row_id, counterparts.column)
        return lake.answer(query, *parameters)

    def show_counts(result: QueryResult) -> None:
        own = key_texts(of, row_id)
        table.rows = [_counterpart_row(counterparts, own, value or "", n or "0") for value, n, _ in result.rows]
        total = int(result.rows[0][2] or 0) if result.rows else 0
        shown = f"the {len(result.rows)} with most of {format_count(total)}" if total > len(result.rows) else "all"
        about.set_text(f"{shown.capitalize()} {plural(other)}{in_lake}" if total else "")

    panel.refresh_from(read, show_counts, interval=_LAKE_SECONDS)


def _counterpart_row(of: Counterparts, own: Mapping[str, str], value: str, n: str) -> dict[str, Any]:
    id_ = of.row_id(own, value)
    return {"key": id_, "name": format_text(value), "n": format_count(int(n)), "href": row_href(of.table, id_)}


# --- Alerts and events -------------------------------------------------------------------------------


def _show_alerts(documents: Documents, of: Table, row_id: str) -> None:
    with Panel("Alerts") as panel:
        table = RecordTable(ALERT_COLUMNS, f"No alert has fired for this {noun(of)}")

    def show_alerts(page: Hits) -> None:
        table.rows = [alert_row(alert) for alert in page.rows]

    panel.refresh_from(lambda: documents.alerts(index=of.name, row_id=row_id, size=_ALERTS), show_alerts)


def _show_events(lake: LakeReader, of: Table, row_id: str) -> None:
    event, time = of.event, of.event.time
    names = sorted(event.names, key=lambda name: name != time)
    columns = [Column(name, f"{name} (UTC)" if event.field(name).type.is_time else name) for name in names]
    with Panel(f"Latest {format_name(event.name)} in the lake") as panel:
        table = RecordTable(
            columns, f"No {format_name(event.name)} of this {noun(of)} in the lake yet", height="min-h-96"
        )

    def read() -> QueryResult:
        condition, parameters = events_of(of, row_id)
        return lake.sample(event.name, condition, *parameters, order=time, size=15)

    def show_events(result: QueryResult) -> None:
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        table.rows = [
            {
                "key": n,
                **{name: None if value is None else format_text(value) for name, value in row.items()},
                **{name: format_time(row[name]) for name in names if event.field(name).type.is_time},
            }
            for n, row in enumerate(rows)
        ]

    panel.refresh_from(read, show_events, interval=_LAKE_SECONDS)
