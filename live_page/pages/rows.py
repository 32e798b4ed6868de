"""The page of a table's rows, such as users or items, and the page of one row."""

from collections.abc import Mapping
from typing import Any

from nicegui import events, ui

from contract.declared import EVENT, PIPELINE
from contract.fields import ColumnType
from contract.measures import Operation, StateColumn
from contract.tables import Column as TableColumn
from contract.tables import Table
from live_page.charts import bar_chart, update_bars
from live_page.components import LINK, Column, Panel, RecordTable, two_columns
from live_page.formatting import (
    UNKNOWN,
    format_compact,
    format_count,
    format_decimal,
    format_name,
    format_text,
    format_time,
)
from live_page.pages.alerts import ALERT_COLUMNS, alert_row
from live_page.pages.links import noun, plural, row_href, table_href
from live_page.sources import Sources
from live_page.sources.documents import Documents, Hits, is_text_key
from live_page.sources.errors import EmptyError
from live_page.sources.lake import LakeReader, QueryResult

EVENTS = StateColumn(Operation.COUNT)
_PAGE_SIZE = 15
_TOP = 10
_ALWAYS_SHOWN = 3
"""First and last columns that narrow screens show too."""
_EMPTY = "No rows yet: they appear with the first interactions"


def show(sources: Sources, of: Table) -> None:
    """Build the page of a table's rows."""
    documents = sources.documents
    numeric = [column.name for column in of.columns if column.type.is_number]
    measure = ui.select(numeric, value=_default_measure(of, numeric), label="Measure")
    measure.classes("w-full max-w-xs").props("dense outlined")
    with two_columns():
        _show_top(documents, of, measure)
        _show_distribution(documents, of, measure)
    _show_rows(documents, of, measure)


def _show_top(documents: Documents, of: Table, measure: ui.select) -> None:
    with Panel(f"Top {_TOP}") as panel:
        chart = bar_chart([], f"top {plural(of)} by measure", horizontal=True)

    def show_top(page: Hits) -> None:
        update_bars(
            chart, [of.row_id(row) or of.name for row in page.rows], [row.get(measure.value) or 0 for row in page.rows]
        )

    panel.refresh_from(lambda: documents.rows(of.name, "", measure.value, True, 0, _TOP), show_top)
    measure.on_value_change(panel.refresh)


def _show_distribution(documents: Documents, of: Table, measure: ui.select) -> None:
    with Panel("Distribution") as panel:
        chart = bar_chart([], f"number of {plural(of)} by value of the measure")

    def show_distribution(buckets: list[tuple[float, float, int]]) -> None:
        update_bars(chart, [format_compact(lower) for lower, _, _ in buckets], [count for _, _, count in buckets])

    panel.refresh_from(lambda: documents.distribution(of.name, measure.value), show_distribution, interval=2.0)
    measure.on_value_change(panel.refresh)


def _show_rows(documents: Documents, of: Table, measure: ui.select) -> None:
    with Panel(plural(of).capitalize()) as panel:
        search = ui.input(label=f"Search by {_searched(of)}").classes("w-full max-w-xs")
        search.props('dense outlined clearable debounce="300" maxlength="512"')
        table = _paged_table(of, measure.value)

    def read() -> Hits:
        page = table.pagination
        size = page["rowsPerPage"]
        first = (page["page"] - 1) * size
        return documents.rows(of.name, search.value or "", page["sortBy"], page["descending"], first, size)

    def show_rows(page: Hits) -> None:
        table.rows = [_table_row(of, row) for row in page.rows]
        if table.pagination["rowsNumber"] != page.total:
            table.pagination = {**table.pagination, "rowsNumber": page.total}

    async def go_to(**pagination: Any) -> None:
        table.pagination = {**table.pagination, **pagination}
        await panel.refresh()

    async def on_request(event: events.GenericEventArguments) -> None:
        await go_to(**event.args["pagination"])

    async def on_search() -> None:
        await go_to(page=1)

    async def on_measure() -> None:
        # Sorts by keyboard too: the table's headers cannot be focused.
        await go_to(sortBy=measure.value, descending=True, page=1)

    table.on("request", on_request)
    search.on_value_change(on_search)
    measure.on_value_change(on_measure)
    panel.refresh_from(read, show_rows)


def show_one(sources: Sources, of: Table, row_id: str) -> None:
    """Build the page of one row."""
    ui.link(f"← All {plural(of)}", table_href(of)).classes(LINK)
    _show_measures(sources.documents, of, row_id)
    _show_alerts(sources.documents, of, row_id)
    _show_interactions(sources.lake, of, row_id)


def _show_measures(documents: Documents, of: Table, row_id: str) -> None:
    counts = [c.name for c in of.columns if c.type is ColumnType.LONG and c.measure is not None and not _is_total(c)]
    with two_columns():
        with Panel("Measures") as panel:
            table = RecordTable((Column("name", "Measure"), Column("value", "Value", is_number=True)), _EMPTY)
        if len(counts) > 1:
            with Panel("Counts"):
                chart = bar_chart(counts, f"counts of {format_text(row_id)}")

    def read() -> Mapping[str, Any]:
        row = documents.row(of.name, row_id)
        if row is None:
            raise EmptyError(f"No {noun(of)} has this id")
        return row

    def show_row(row: Mapping[str, Any]) -> None:
        table.rows = [
            {"key": c.name, "name": c.name, "value": _format_cell(c.type, row.get(c.name))}
            for c in of.columns
            if c.measure
        ]
        if len(counts) > 1:
            update_bars(chart, counts, [row.get(name, 0) for name in counts])

    panel.refresh_from(read, show_row)


def _show_alerts(documents: Documents, of: Table, row_id: str) -> None:
    with Panel("Alerts") as panel:
        table = RecordTable(ALERT_COLUMNS, f"No alert has fired for this {noun(of)}")

    def show_alerts(page: Hits) -> None:
        table.rows = [alert_row(alert) for alert in page.rows]

    panel.refresh_from(lambda: documents.alerts(index=of.name, row_id=row_id, size=10), show_alerts)


def _show_interactions(lake: LakeReader, of: Table, row_id: str) -> None:
    event, time = of.event, of.event.time
    names = sorted(event.names, key=lambda name: name != time)
    columns = [Column(name, f"{name} (UTC)" if event.field(name).type.is_time else name) for name in names]
    with Panel(f"Latest {format_name(event.name)} in the lake") as panel:
        table = RecordTable(columns, f"No {format_name(event.name)} in the lake yet", height="min-h-96")

    def read() -> QueryResult:
        condition = " AND ".join(f"CAST({name} AS VARCHAR) = ?" for name in of.key)
        values = [str(value).lower() if isinstance(value, bool) else str(value) for value in of.key_values(row_id)]
        return lake.sample(event.name, condition, *values, order=time, size=15)

    def show_interactions(result: QueryResult) -> None:
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        table.rows = [
            {
                "key": n,
                **{name: format_text(value) for name, value in row.items()},
                **{name: format_time(row[name]) for name in names if event.field(name).type.is_time},
            }
            for n, row in enumerate(rows)
        ]

    panel.refresh_from(read, show_interactions, interval=4.0)


def _paged_table(of: Table, sort_by: str) -> RecordTable:
    """Create a table that Elasticsearch sorts and pages."""
    columns = [
        Column(
            c.name,
            c.name.replace("_", " ").capitalize() + (" (UTC)" if c.type is ColumnType.DATE else ""),
            is_number=c.type.is_number,
            is_sortable=True,
            is_minor=_ALWAYS_SHOWN <= n < len(of.columns) - _ALWAYS_SHOWN,
        )
        for n, c in enumerate(of.columns)
    ]
    table = RecordTable(columns, _EMPTY, row_key="href", links=of.key[0], height="min-h-96")
    table.props(remove="hide-pagination").props("binary-state-sort")
    table.pagination = {
        "sortBy": sort_by,
        "descending": True,
        "page": 1,
        "rowsPerPage": _PAGE_SIZE,
        "rowsNumber": 0,
    }
    return table


def _searched(of: Table) -> str:
    return next((column.name for column in of.columns if is_text_key(column)), of.name)


def _is_total(column: TableColumn) -> bool:
    return column.measure is not None and column.measure.state(EVENT) == (EVENTS,)


def _default_measure(of: Table, numeric: list[str]) -> str:
    total = PIPELINE.overview.total
    counts = [column.name for column in of.columns if column.type is ColumnType.LONG and column.measure is not None]
    return total.name if total.table.name == of.name else (counts or numeric)[-1]


def _table_row(of: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    cells = {column.name: _format_cell(column.type, row.get(column.name)) for column in of.columns}
    return cells | {"href": row_href(of, of.row_id(row) or "")}


def _format_cell(kind: ColumnType, value: Any) -> str:
    match kind:
        case ColumnType.LONG:
            return format_count(value)
        case ColumnType.DOUBLE | ColumnType.DECIMAL:
            return format_decimal(value, 2)
        case ColumnType.DATE:
            return format_time(value)
        case _:
            return UNKNOWN if value is None else format_text(value)
