"""The lake page: Delta tables, their history and sample rows, and a box for SQL."""

import threading
from contextlib import suppress

from nicegui import run, ui

from contract.declared import EVENT
from contract.fields import FieldType
from live_page.components import Column, Panel, RecordTable, button, toggle, two_columns
from live_page.formatting import UNKNOWN, format_bytes, format_count, format_text, format_time
from live_page.sources import Sources
from live_page.sources.errors import EmptyError, UnavailableError
from live_page.sources.lake import TABLES, LakeReader, QueryError, QueryResult, TableState

_TABLES = (
    Column("name", "Table", wraps=True),
    Column("rows", "Rows", is_number=True),
    Column("files", "Files", is_number=True),
    Column("bytes", "Size", is_number=True),
    Column("version", "Version", is_number=True, is_minor=True),
)
_HISTORY = (
    Column("version", "Version"),
    Column("at", "Time (UTC)"),
    Column("operation", "Operation"),
    Column("rows", "Rows written", is_number=True),
)
_GROUPS = [field.name for field in EVENT.fields if field.type in (FieldType.TEXT, FieldType.CHOICE)][-2:]
# Names in quotes, since they can be words of SQL.
_EXAMPLE_QUERY = f"""SELECT {", ".join(f'"{name}"' for name in _GROUPS)}, count(*) AS n, max("{EVENT.time}") AS latest
FROM "{EVENT.name}"
GROUP BY ALL ORDER BY n DESC LIMIT 20"""
_STATUS = "text-sm min-w-0 break-words whitespace-pre-wrap"
_EMPTY = "No tables yet: the stream job creates them with its first batch"


def show(sources: Sources) -> None:
    """Build the page."""
    lake = sources.lake
    _show_tables(lake)
    with Panel("SQL query"):
        _QueryBox(lake)
    table = toggle(TABLES)
    with two_columns():
        history, sample = _show_history(lake, table), _show_sample(lake, table)

    async def refresh() -> None:
        await history.refresh()
        await sample.refresh()

    table.on_value_change(refresh)


def _show_tables(lake: LakeReader) -> None:
    with Panel("Delta tables") as panel:
        summary = RecordTable(_TABLES, _EMPTY, row_key="name", height="min-h-44")

    def show_tables(states: list[TableState]) -> None:
        summary.rows = [
            {
                "name": each.name,
                "rows": format_count(each.rows),
                "files": format_count(each.files),
                "bytes": format_bytes(each.bytes),
                "version": each.version,
            }
            for each in states
        ]

    panel.refresh_from(lambda: _read_states(lake), show_tables, interval=2.0)


def _show_history(lake: LakeReader, table: ui.toggle) -> Panel:
    with Panel("History") as panel:
        history = RecordTable(_HISTORY, _EMPTY, row_key="version", height="min-h-96")

    def show_history(state: TableState) -> None:
        history.rows = [
            {
                "version": each.version,
                "at": format_time(each.at),
                "operation": format_text(each.operation),
                "rows": format_count(each.rows),
            }
            for each in state.history
        ]

    panel.refresh_from(lambda: lake.state(table.value), show_history, interval=2.0)
    return panel


def _show_sample(lake: LakeReader, table: ui.toggle) -> Panel:
    with Panel("Sample rows") as panel:
        sample = RecordTable((), "The table has no rows yet", height="min-h-96")
    panel.refresh_from(lambda: lake.sample(table.value), lambda result: _show_result(sample, result), interval=5.0)
    return panel


class _QueryBox:
    """A box for SQL with its result."""

    def __init__(self, lake: LakeReader) -> None:
        self._lake = lake
        self._cancelled = threading.Event()
        self._query = ui.textarea(label="SQL (DuckDB), one SELECT", value=_EXAMPLE_QUERY).classes("w-full font-mono")
        self._query.props('outlined autogrow spellcheck="false" input-class="text-sm" maxlength=10000')
        with ui.row().classes("items-center gap-3 w-full"):
            self._run = button("Run", self._run_query)
            self._cancel = button("Cancel", self._cancelled.set)
            self._status = ui.label("").classes(_STATUS).props('role="status"')
        self._cancel.disable()
        self._result = RecordTable((), "No rows")
        self._result.clear_rows("Run a query to see its rows (Ctrl+Enter)")
        self._result.props(remove="hide-pagination")
        self._result.pagination = {"rowsPerPage": 10}
        self._query.on("keydown.ctrl.enter", self._run_query)
        ui.context.client.on_disconnect(self._cancelled.set)

    async def _run_query(self) -> None:
        if not self._run.enabled:
            return
        self._begin()
        try:
            result = await run.io_bound(self._lake.query, self._query.value or "", cancelled=self._cancelled)
        except (QueryError, EmptyError, UnavailableError) as error:
            self._status.classes(replace=f"{_STATUS} text-red-700 dark:text-red-400")
            self._status.set_text(format_text(error, 1_000))
            return
        finally:
            self._run.enable()
            self._cancel.disable()
        if result is None:
            return
        rows = f"{format_count(len(result.rows))} row{'' if len(result.rows) == 1 else 's'}"
        self._status.set_text(", ".join([rows, *result.truncations, f"{result.seconds:.2f} s"]))
        _show_result(self._result, result)
        self._result.set_loaded()

    def _begin(self) -> None:
        self._cancelled.clear()
        self._run.disable()
        self._cancel.enable()
        self._status.classes(replace=f"{_STATUS} opacity-75")
        self._status.set_text("running …")
        # The previous result is never shown below the new query.
        self._result.clear_rows("")


def _read_states(lake: LakeReader) -> list[TableState]:
    """Read the state of the tables that exist; raises `EmptyError` if none does, `UnavailableError`."""
    states = []
    for name in TABLES:
        with suppress(EmptyError):
            states.append(lake.state(name))
    if not states:
        raise EmptyError(_EMPTY)
    return states


def _show_result(table: RecordTable, result: QueryResult) -> None:
    columns = [
        Column(f"c{n}", format_text(name), is_number=is_number, wraps=not is_number).props
        for n, (name, is_number) in enumerate(zip(result.columns, result.numeric, strict=True))
    ]
    if table.columns != columns:
        table.columns = columns
    table.rows = [
        {"key": n, **{f"c{m}": UNKNOWN if cell is None else format_text(cell) for m, cell in enumerate(row)}}
        for n, row in enumerate(result.rows)
    ]
