"""The page of a table's rows, such as users or items, and the page of one row."""

from collections.abc import Mapping
from typing import Any

from nicegui import events, ui

from contract.tables import AggregateTable, ColumnType, Measure
from live_page.charts import bar_chart, update_bars
from live_page.components import LINK, Column, Panel, RecordTable, two_columns
from live_page.formatting import UNKNOWN, format_compact, format_count, format_decimal, format_text, format_time
from live_page.pages.alerts import ALERT_COLUMNS, alert_row
from live_page.pages.links import noun, plural, row_href, table_href
from live_page.sources import Sources
from live_page.sources.documents import Documents, Hits
from live_page.sources.errors import EmptyError
from live_page.sources.lake import LakeReader, QueryResult

_PAGE_SIZE = 15
_TOP = 10
_ALWAYS_SHOWN = 3
"""First and last columns that narrow screens show too."""
_EMPTY = "No rows yet: they appear with the first interactions"


def show(sources: Sources, of: AggregateTable) -> None:
    """Build the page of a table's rows."""
    documents = sources.documents
    numeric = [column.name for column in of.columns if column.type.is_number]
    measure = ui.select(numeric, value=_default_measure(numeric), label="Measure")
    measure.classes("w-full max-w-xs").props("dense outlined")
    with two_columns():
        _show_top(documents, of, measure)
        _show_distribution(documents, of, measure)
    _show_rows(documents, of, measure)


def _show_top(documents: Documents, of: AggregateTable, measure: ui.select) -> None:
    key = of.key or of.name
    with Panel(f"Top {_TOP}") as panel:
        chart = bar_chart([], f"top {plural(of)} by measure", horizontal=True)

    def show_top(page: Hits) -> None:
        update_bars(chart, [row[key] for row in page.rows], [row.get(measure.value) or 0 for row in page.rows])

    panel.refresh_from(lambda: documents.rows(of.name, "", measure.value, True, 0, _TOP), show_top)
    measure.on_value_change(panel.refresh)


def _show_distribution(documents: Documents, of: AggregateTable, measure: ui.select) -> None:
    with Panel("Distribution") as panel:
        chart = bar_chart([], f"number of {plural(of)} by value of the measure")

    def show_distribution(buckets: list[tuple[float, float, int]]) -> None:
        update_bars(chart, [format_compact(lower) for lower, _, _ in buckets], [count for _, _, count in buckets])

    panel.refresh_from(lambda: documents.distribution(of.name, measure.value), show_distribution, interval=2.0)
    measure.on_value_change(panel.refresh)


def _show_rows(documents: Documents, of: AggregateTable, measure: ui.select) -> None:
    with Panel(plural(of).capitalize()) as panel:
        search = ui.input(label=f"Search by {of.key}").classes("w-full max-w-xs")
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


def show_one(sources: Sources, of: AggregateTable, row_id: str) -> None:
    """Build the page of one row."""
    ui.link(f"← All {plural(of)}", table_href(of)).classes(LINK)
    _show_measures(sources.documents, of, row_id)
    _show_alerts(sources.documents, of, row_id)
    _show_interactions(sources.lake, of, row_id)


def _show_measures(documents: Documents, of: AggregateTable, row_id: str) -> None:
    counts = [c.name for c in of.columns if c.type is ColumnType.LONG and c.measure is not Measure.INTERACTIONS]
    with two_columns():
        with Panel("Measures") as panel:
            table = RecordTable((Column("name", "Measure"), Column("value", "Value", is_number=True)), _EMPTY)
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
        update_bars(chart, counts, [row.get(name, 0) for name in counts])

    panel.refresh_from(read, show_row)


def _show_alerts(documents: Documents, of: AggregateTable, row_id: str) -> None:
    with Panel("Alerts") as panel:
        table = RecordTable(ALERT_COLUMNS, f"No alert has fired for this {noun(of)}")

    def show_alerts(page: Hits) -> None:
        table.rows = [alert_row(alert) for alert in page.rows]

    panel.refresh_from(lambda: documents.alerts(index=of.name, row_id=row_id, size=10), show_alerts)


def _show_interactions(lake: LakeReader, of: AggregateTable, row_id: str) -> None:
    names = ("timestamp", "user_id", "item_id", "interaction_type")
    columns = [Column(name, "timestamp (UTC)" if name == "timestamp" else name) for name in names]
    with Panel("Latest interactions in the lake") as panel:
        table = RecordTable(columns, "No interactions in the lake yet", height="min-h-96")

    def read() -> QueryResult:
        return lake.sample("interactions", f"{of.key} = ?", row_id, order="timestamp", size=15)

    def show_interactions(result: QueryResult) -> None:
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        table.rows = [
            {
                "key": n,
                **{name: format_text(value) for name, value in row.items()},
                "timestamp": format_time(row["timestamp"]),
            }
            for n, row in enumerate(rows)
        ]

    panel.refresh_from(read, show_interactions, interval=4.0)


def _paged_table(of: AggregateTable, sort_by: str) -> RecordTable:
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
    assert of.key is not None
    table = RecordTable(columns, _EMPTY, row_key="href", links=of.key, height="min-h-96")
    table.props(remove="hide-pagination").props("binary-state-sort")
    table.pagination = {
        "sortBy": sort_by,
        "descending": True,
        "page": 1,
        "rowsPerPage": _PAGE_SIZE,
        "rowsNumber": 0,
    }
    return table


def _default_measure(names: list[str]) -> str:
    return next((name for name in names if name.startswith(("total_interactions", "max_"))), names[0])


def _table_row(of: AggregateTable, row: Mapping[str, Any]) -> dict[str, Any]:
    assert of.key is not None
    return {c.name: _format_cell(c.type, row.get(c.name)) for c in of.columns} | {"href": row_href(of, row[of.key])}


def _format_cell(kind: ColumnType, value: Any) -> str:
    match kind:
        case ColumnType.LONG:
            return format_count(value)
        case ColumnType.DOUBLE:
            return format_decimal(value, 2)
        case ColumnType.DATE:
            return format_time(value)
        case _:
            return UNKNOWN if value is None else format_text(value)
