"""The page of a table's rows, such as users or items."""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import events, ui

from contract.declared import PIPELINE
from contract.fields import ColumnType
from contract.tables import Table
from live_page.address import current_query, one_of, remember, set_query, whole
from live_page.charts import bar_chart, stacked_chart, update_bars, update_stacked
from live_page.components import Column, Panel, RecordTable, hint, two_columns
from live_page.formatting import format_name
from live_page.histogram import Bucket, has_growing_steps
from live_page.pages.cells import EMPTY, format_cell, is_total
from live_page.pages.links import plural, row_href, row_label
from live_page.sources import Sources
from live_page.sources.documents import MAX_RESULT_WINDOW, Documents, Hits, Points, is_text_key

_PAGE_SIZE = 15
_MAX_SEARCH = 512
"""Characters."""
_TOP = 10
_ALWAYS_SHOWN = 3
"""First and last columns that narrow screens show too."""


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
    measure.on_value_change(panel.choose)


def _show_over_time(documents: Documents, of: Table, measure: ui.select) -> None:
    with Panel("Over time (UTC)") as panel:
        chart = stacked_chart(f"latest {plural(of)} by measure, UTC")

    def show_points(values: Mapping[str, Points]) -> None:
        update_stacked(chart, values)

    panel.refresh_from(lambda: documents.over_time(of.name, measure.value), show_points)
    measure.on_value_change(panel.choose)


def _show_distribution(documents: Documents, of: Table, measure: ui.select) -> None:
    with Panel("Distribution") as panel:
        chart = bar_chart([], f"number of {plural(of)} by value of the measure")
        about = hint("")

    def show_distribution(buckets: Sequence[Bucket]) -> None:
        update_bars(chart, [each.label for each in buckets], [each.rows for each in buckets], has_labels=True)
        growing = ", in growing steps" if has_growing_steps(buckets) else ""
        about.set_text(f"{plural(of).capitalize()} by {format_name(measure.value)}{growing}")

    panel.refresh_from(
        lambda: documents.distribution(of.name, measure.value),
        show_distribution,
        interval=2.0,
        clear=lambda: about.set_text(""),
    )
    measure.on_value_change(panel.choose)


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
        await panel.choose()

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
    table = RecordTable(columns, EMPTY, row_key="href", links=of.key[0], height="min-h-96")
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


def _default_measure(of: Table, numeric: list[str]) -> str:
    total = PIPELINE.overview.total
    counts = [column for column in of.columns if column.type is ColumnType.LONG and column.measure is not None]
    totals = [column.name for column in counts if is_total(column)]
    last = [*numeric, *(column.name for column in counts), *totals][-1]
    return total.name if total.table.name == of.name else last


def _table_row(of: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    cells = {column.name: format_cell(of, column, row) for column in of.columns}
    return cells | {"href": row_href(of, of.row_id(row) or "")}
