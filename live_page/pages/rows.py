"""The rows of a table, users or items or whatever else is declared, and the page of one of them."""

from collections.abc import Mapping
from typing import Any

from nicegui import events, ui

from contract.tables import AggregateTable, ColumnType, Measure
from live_page.components import LINK, Column, Panel, RecordTable, bars, show_bars, table
from live_page.documents import Page
from live_page.lake import Answer
from live_page.pages.alerts import ALERT_COLUMNS, alert_row
from live_page.pages.links import noun, plural, row_href, table_href
from live_page.sources import Sources
from live_page.text import UNKNOWN, clock, count, decimal, short, visible
from live_page.unavailable import EmptyError

_ON_A_PAGE = 15
_TOP = 10
_MINOR_FROM = 3
_EMPTY = "None yet: they appear with the first interactions"


def show(sources: Sources, of: AggregateTable) -> None:
    """All rows: search, sort, leaf through; the greatest, and how they are spread."""
    key = of.key or of.name
    numeric = [column.name for column in of.columns if column.type.is_number]
    chosen = ui.select(numeric, value=_default_measure(numeric), label="by measure")
    chosen.classes("w-full max-w-xs").props("dense outlined")
    with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-3 w-full"):
        with Panel(f"The greatest {_TOP}") as greatest:
            top = bars([], f"the {plural(of)} with the most", horizontal=True)
        with Panel(f"How many {plural(of)} have how much") as spread:
            distribution = bars([], f"{plural(of)} by measure")
    with Panel(plural(of).capitalize()) as listed:
        search = ui.input(label=f"search by {key}").classes("w-full max-w-xs")
        search.props('dense outlined clearable debounce="300" maxlength="512"')
        rows = _browsed(of, chosen.value)

    def read_rows() -> Page:
        page = rows.pagination
        first = (page["page"] - 1) * page["rowsPerPage"]
        return sources.documents.rows(
            of.name, search.value or "", page["sortBy"], page["descending"], first, page["rowsPerPage"]
        )

    def show_rows(page: Page) -> None:
        rows.rows = [_shown(of, row) for row in page.rows]
        if rows.pagination["rowsNumber"] != page.total:
            rows.pagination = {**rows.pagination, "rowsNumber": page.total}

    async def turn(event: events.GenericEventArguments) -> None:
        rows.pagination = {**rows.pagination, **event.args["pagination"]}
        await listed.renew()

    async def look_for() -> None:
        rows.pagination = {**rows.pagination, "page": 1}
        await listed.renew()

    async def sort_by_it() -> None:
        # The table's own headings cannot be reached by the keyboard.
        rows.pagination = {**rows.pagination, "sortBy": chosen.value, "descending": True, "page": 1}
        await listed.renew()

    def show_top(page: Page) -> None:
        show_bars(top, [row[key] for row in page.rows], [row.get(chosen.value) or 0 for row in page.rows])

    def show_spread(found: list[tuple[float, float, int]]) -> None:
        show_bars(distribution, [short(least) for least, _, _ in found], [n for _, _, n in found])

    rows.on("request", turn)
    search.on_value_change(look_for)
    listed.keep(read_rows, show_rows)
    greatest.keep(lambda: sources.documents.rows(of.name, "", chosen.value, True, 0, _TOP), show_top)
    spread.keep(lambda: sources.documents.distribution(of.name, chosen.value), show_spread, every=2.0)
    chosen.on_value_change(sort_by_it)
    chosen.on_value_change(greatest.renew)
    chosen.on_value_change(spread.renew)


def show_one(sources: Sources, of: AggregateTable, row_id: str) -> None:
    """One row: its measures, its alerts, its latest interactions."""
    ui.link(f"← all {plural(of)}", table_href(of)).classes(LINK)
    counts = [c.name for c in of.columns if c.type is ColumnType.LONG and c.measure is not Measure.INTERACTIONS]
    with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-3 w-full"):
        with Panel("Measures") as measured:
            measures = table((Column("name", "measure"), Column("value", "value", is_number=True)), _EMPTY)
        with Panel("Counts"):
            chart = bars(counts, f"counts of {visible(row_id)}")
    with Panel("Alerts") as alerted:
        alerts = table(ALERT_COLUMNS, f"No alert has fired for this {noun(of)}")
    with Panel("Latest interactions, from the lake") as latest:
        columns = ("timestamp", "user_id", "item_id", "interaction_type")
        interactions = table(
            [Column(name, "timestamp (UTC)" if name == "timestamp" else name) for name in columns],
            "None in the lake yet",
            height="min-h-96",
        )

    def show_row(row: Mapping[str, Any]) -> None:
        measures.rows = [
            {"key": c.name, "name": c.name, "value": _cell(c.type, row.get(c.name))} for c in of.columns if c.measure
        ]
        show_bars(chart, counts, [row.get(name, 0) for name in counts])

    def read_row() -> Mapping[str, Any]:
        row = sources.documents.row(of.name, row_id)
        if row is None:
            raise EmptyError(f"There is no {noun(of)} of that id")
        return row

    def read_latest() -> Answer:
        return sources.lake.sample("interactions", f"{of.key} = ?", row_id, order="timestamp", size=15)

    def show_latest(answer: Answer) -> None:
        found = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        interactions.rows = [
            {"key": n, **{name: visible(value) for name, value in row.items()}, "timestamp": clock(row["timestamp"])}
            for n, row in enumerate(found)
        ]

    measured.keep(read_row, show_row)
    alerted.keep(
        lambda: sources.documents.alerts(index=of.name, row_id=row_id, size=10),
        lambda page: setattr(alerts, "rows", [alert_row(alert) for alert in page.rows]),
    )
    latest.keep(read_latest, show_latest, every=4.0)


def _browsed(of: AggregateTable, sort: str) -> RecordTable:
    """A table whose sorting and leafing is Elasticsearch's; sorted by a column to begin with."""
    columns = [
        Column(
            c.name,
            c.name.replace("_", " ") + (" (UTC)" if c.type is ColumnType.DATE else ""),
            is_number=c.type.is_number,
            is_sortable=True,
            is_minor=_MINOR_FROM <= n < len(of.columns) - _MINOR_FROM,
        )
        for n, c in enumerate(of.columns)
    ]
    assert of.key is not None
    made = table(columns, _EMPTY, row_key="href", links=of.key, height="min-h-96")
    made.props(remove="hide-pagination").props("binary-state-sort")
    made.pagination = {
        "sortBy": sort,
        "descending": True,
        "page": 1,
        "rowsPerPage": _ON_A_PAGE,
        "rowsNumber": 0,
    }
    return made


def _default_measure(names: list[str]) -> str:
    return next((name for name in names if name.startswith(("total_interactions", "max_"))), names[0])


def _shown(of: AggregateTable, row: Mapping[str, Any]) -> dict[str, Any]:
    assert of.key is not None
    return {c.name: _cell(c.type, row.get(c.name)) for c in of.columns} | {"href": row_href(of, row[of.key])}


def _cell(kind: ColumnType, value: Any) -> str:
    match kind:
        case ColumnType.LONG:
            return count(value)
        case ColumnType.DOUBLE:
            return decimal(value, 2)
        case ColumnType.DATE:
            return clock(value)
        case _:
            return UNKNOWN if value is None else visible(value)
