"""The page of a table's rows, such as users or items, and the page of one row."""

from collections.abc import Mapping
from typing import Any

from nicegui import events, ui

from contract.declared import EVENT, PIPELINE
from contract.fields import ColumnType
from contract.measures import Operation, StateColumn
from contract.tables import Column as TableColumn
from contract.tables import Table
from contract.windows import DAY
from live_page.address import current_query, one_of, remember, set_query, whole
from live_page.charts import bar_chart, stacked_chart, update_bars, update_stacked
from live_page.components import LINK, Column, Panel, RecordTable, two_columns
from live_page.formatting import (
    format_compact,
    format_count,
    format_decimal,
    format_name,
    format_text,
    format_time,
    format_value,
)
from live_page.pages.alerts import ALERT_COLUMNS, alert_row
from live_page.pages.links import noun, plural, row_href, row_label, table_href
from live_page.sources import Sources
from live_page.sources.documents import MAX_RESULT_WINDOW, Documents, Hits, Points, is_text_key
from live_page.sources.errors import EmptyError, UnknownRowError
from live_page.sources.lake import LakeReader, QueryResult

EVENTS = StateColumn(Operation.COUNT)
_PAGE_SIZE = 15
_MAX_SEARCH = 512
"""Characters."""
_EXAMPLES = 3
"""Rows that are named if one is unknown."""
_TOP = 10
_ALWAYS_SHOWN = 3
"""First and last columns that narrow screens show too."""
_EMPTY = f"No rows yet: they appear with the first {format_name(EVENT.name)}"


def show(sources: Sources, of: Table) -> None:
    """Build the page of a table's rows."""
    documents = sources.documents
    numeric = [column.name for column in of.columns if column.type.is_number]
    if not numeric:
        _show_rows(documents, of, None)
        return
    default = _default_measure(of, numeric)
    measure = ui.select(numeric, value=one_of(current_query().get("measure"), numeric, default), label="Measure")
    measure.classes("w-full max-w-xs").props("dense outlined")
    remember(measure, "measure", lambda: default)
    has_row_per_window = of.key.window is not None and len(of.key) == 1
    with two_columns():
        (_show_over_time if has_row_per_window else _show_top)(documents, of, measure)
        _show_distribution(documents, of, measure)
    _show_rows(documents, of, measure)


def _show_top(documents: Documents, of: Table, measure: ui.select) -> None:
    with Panel(f"Top {_TOP}") as panel:
        chart = bar_chart([], f"top {plural(of)} by measure", horizontal=True)

    def show_top(page: Hits) -> None:
        names = [row_label(of, of.row_id(row) or of.name) for row in page.rows]
        update_bars(chart, names, [row.get(measure.value) or 0 for row in page.rows])

    panel.refresh_from(lambda: documents.rows(of.name, "", measure.value, True, 0, _TOP), show_top)
    measure.on_value_change(panel.refresh)


def _show_over_time(documents: Documents, of: Table, measure: ui.select) -> None:
    with Panel("Over time (UTC)") as panel:
        chart = stacked_chart(f"latest {plural(of)} by measure, UTC")

    def show_points(values: Mapping[str, Points]) -> None:
        update_stacked(chart, values)

    panel.refresh_from(lambda: documents.over_time(of.name, measure.value), show_points)
    measure.on_value_change(panel.refresh)


def _show_distribution(documents: Documents, of: Table, measure: ui.select) -> None:
    with Panel("Distribution") as panel:
        chart = bar_chart([], f"number of {plural(of)} by value of the measure")

    def show_distribution(buckets: list[tuple[float, float, int]]) -> None:
        update_bars(chart, [format_compact(lower) for lower, _, _ in buckets], [count for _, _, count in buckets])

    panel.refresh_from(lambda: documents.distribution(of.name, measure.value), show_distribution, interval=2.0)
    measure.on_value_change(panel.refresh)


def _show_rows(documents: Documents, of: Table, measure: ui.select | None) -> None:
    query = current_query()
    with Panel(plural(of).capitalize()) as panel:
        search = ui.input(label=f"Search by {_searched(of)}", value=query.get("search", "")[:_MAX_SEARCH])
        search.classes("w-full max-w-xs").props(f'dense outlined clearable debounce="300" maxlength="{_MAX_SEARCH}"')
        search.set_visibility(bool(_searched(of)))
        table = _paged_table(of, pagination_of(of, query, _first_sort(of, measure)))

    def read() -> Hits:
        page = table.pagination
        size = page["rowsPerPage"]
        first = (page["page"] - 1) * size
        return documents.rows(of.name, search.value or "", page["sortBy"], page["descending"], first, size)

    def show_rows(page: Hits) -> None:
        table.rows = [_table_row(of, row) for row in page.rows]
        # A page of the address may be after the last one.
        last = max(1, -(-page.total // table.pagination["rowsPerPage"]))
        current = {"rowsNumber": page.total, "page": min(table.pagination["page"], last)}
        if table.pagination != {**table.pagination, **current}:
            table.pagination = {**table.pagination, **current}

    async def go_to(**pagination: Any) -> None:
        table.pagination = {**table.pagination, **pagination}
        set_query(query_of_pagination(table.pagination, _first_sort(of, measure)) | {"search": search.value or ""})
        await panel.refresh()

    async def on_request(event: events.GenericEventArguments) -> None:
        await go_to(**event.args["pagination"])

    async def on_search() -> None:
        await go_to(page=1)

    async def on_measure(event: events.ValueChangeEventArguments[Any]) -> None:
        # Sorts by keyboard too: the table's headers cannot be focused.
        await go_to(sortBy=event.value, descending=True, page=1)

    table.on("request", on_request)
    search.on_value_change(on_search)
    if measure is not None:
        measure.on_value_change(on_measure)
    panel.refresh_from(read, show_rows)


def show_one(sources: Sources, of: Table, row_id: str) -> None:
    """Build the page of one row."""
    ui.link(f"← All {plural(of)}", table_href(of)).classes(LINK)
    unknown = ui.row().classes("gap-x-1 gap-y-0 w-full")
    _show_measures(sources.documents, of, row_id, unknown)
    _show_alerts(sources.documents, of, row_id)
    _show_interactions(sources.lake, of, row_id)


def _show_measures(documents: Documents, of: Table, row_id: str, unknown: ui.row) -> None:
    """Show the measures of a row, or in `unknown` which rows there are."""
    counts = [c.name for c in of.columns if c.type is ColumnType.LONG and c.measure is not None and not _is_total(c)]
    with two_columns():
        with Panel("Measures") as panel:
            table = RecordTable((Column("name", "Measure"), Column("value", "Value", is_number=True)), _EMPTY)
        if len(counts) > 1:
            with Panel("Counts"):
                chart = bar_chart(counts, f"counts of {format_text(row_label(of, row_id))}")

    def read() -> Mapping[str, Any]:
        row = documents.row(of.name, row_id)
        if row is None:
            found = documents.rows(of.name, "", of.key[0], False, 0, _EXAMPLES)
            raise UnknownRowError(_no_row(of), found.total, [of.row_id(each) or "" for each in found.rows])
        return row

    def show_empty(reason: EmptyError) -> None:
        if isinstance(reason, UnknownRowError) and not unknown.default_slot.children:
            with unknown:
                _show_known_rows(of, reason)

    def show_row(row: Mapping[str, Any]) -> None:
        unknown.clear()
        table.rows = [
            {"key": c.name, "name": c.name, "value": _format_cell(of, c, row)} for c in of.columns if c.measure
        ]
        if len(counts) > 1:
            update_bars(chart, counts, [row.get(name, 0) for name in counts])

    panel.refresh_from(read, show_row, show_empty=show_empty)


def _show_known_rows(of: Table, reason: UnknownRowError) -> None:
    ui.label(f"{reason}. There are {format_count(reason.total)} {plural(of)}{', such as' if reason.examples else ''}")
    for row_id in reason.examples:
        link = ui.link(format_text(row_label(of, row_id)), row_href(of, row_id))
        link.classes(f"{LINK} max-w-full truncate")


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
        condition, parameters = events_of(of, row_id)
        return lake.sample(event.name, condition, *parameters, order=time, size=15)

    def show_interactions(result: QueryResult) -> None:
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        table.rows = [
            {
                "key": n,
                **{name: None if value is None else format_text(value) for name, value in row.items()},
                **{name: format_time(row[name]) for name in names if event.field(name).type.is_time},
            }
            for n, row in enumerate(rows)
        ]

    panel.refresh_from(read, show_interactions, interval=4.0)


def events_of(of: Table, row_id: str) -> tuple[str, list[str]]:
    """Return the condition for the events of a row, with its parameters; raises `EmptyError` if no row has this id."""
    window, time = of.key.window, of.event.time
    try:
        values = dict(zip(of.key, of.key_values(row_id), strict=True))
        bounds = [] if window is None else [values[window.name], values[window.name] + window.size]
    except (ValueError, KeyError, OverflowError):
        raise EmptyError(_no_row(of)) from None
    conditions = [f'CAST("{name}" AS VARCHAR) = ?' for name in of.key.fields]
    if bounds:
        conditions.append(f'"{time}" >= CAST(? AS TIMESTAMPTZ) AND "{time}" < CAST(? AS TIMESTAMPTZ)')
    fields = [values[name] for name in of.key.fields]
    texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in fields]
    return " AND ".join(conditions), [*texts, *(bound.isoformat() for bound in bounds)]


def _no_row(of: Table) -> str:
    return f"No {noun(of)} has this id"


def pagination_of(of: Table, query: Mapping[str, str], default_sort: str) -> dict[str, Any]:
    """Return how an address says that a table is sorted, and which page of it is shown."""
    page = whole(query.get("page"), 1, MAX_RESULT_WINDOW // _PAGE_SIZE, 1)
    return {
        "sortBy": one_of(query.get("sort"), [column.name for column in of.columns], default_sort),
        "descending": query.get("order") != "asc",
        "page": page,
        "rowsPerPage": _PAGE_SIZE,
        # Until it is known: with fewer rows than the page needs, the browser would ask for the first page.
        "rowsNumber": 0 if page == 1 else (page - 1) * _PAGE_SIZE + 1,
    }


def query_of_pagination(pagination: Mapping[str, Any], default_sort: str) -> dict[str, str]:
    """Return the values of an address for how a table is sorted, and which page is shown; defaults are empty."""
    return {
        "sort": "" if pagination["sortBy"] in (default_sort, None) else pagination["sortBy"],
        "order": "" if pagination["descending"] else "asc",
        "page": "" if pagination["page"] == 1 else f"{pagination['page']}",
    }


def _paged_table(of: Table, pagination: dict[str, Any]) -> RecordTable:
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
    table.pagination = pagination
    return table


def _first_sort(of: Table, measure: ui.select | None) -> str:
    """Return the column by which rows are sorted at first: the latest windows or the greatest values come first."""
    if of.key.window is not None:
        return of.key.window.name
    return of.key[0] if measure is None else f"{measure.value}"


def _searched(of: Table) -> str:
    """Return the column by which rows can be searched, or an empty text."""
    return next((column.name for column in of.columns if is_text_key(column)), "")


def _is_total(column: TableColumn) -> bool:
    return column.measure is not None and column.measure.state(EVENT) == (EVENTS,)


def _default_measure(of: Table, numeric: list[str]) -> str:
    total = PIPELINE.overview.total
    counts = [column for column in of.columns if column.type is ColumnType.LONG and column.measure is not None]
    totals = [column.name for column in counts if _is_total(column)]
    last = [*numeric, *(column.name for column in counts), *totals][-1]
    return total.name if total.table.name == of.name else last


def _table_row(of: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    cells = {column.name: _format_cell(of, column, row) for column in of.columns}
    return cells | {"href": row_href(of, of.row_id(row) or "")}


def _format_cell(of: Table, column: TableColumn, row: Mapping[str, Any]) -> str:
    value = row.get(column.name)
    match column.type:
        case ColumnType.LONG:
            return format_count(value)
        case ColumnType.DOUBLE | ColumnType.DECIMAL:
            return format_decimal(value, 2)
        case ColumnType.DATE:
            window = of.key.window
            return format_time(value, is_day=window is not None and window.name == column.name and window.size == DAY)
        case _:
            return format_value(value)
