"""The lake page: Delta tables, their history and sample rows, and a box for SQL."""

import json
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from nicegui import events, run, ui
from nicegui.elements.mixins.text_element import TextElement

from contract.declared import PIPELINE
from live_page.address import current_query, one_of, remember, set_query, whole
from live_page.charts import bar_chart, update_bars
from live_page.components import Column, Panel, RecordTable, button, height_of, hint, toggle, two_columns
from live_page.formatting import format_bytes, format_count, format_text, format_time
from live_page.pages.queries import (
    MAX_BARS,
    as_csv,
    bars_of,
    columns_of_tables,
    example_queries,
    format_number,
    history_of,
    with_latest,
)
from live_page.sources import Sources
from live_page.sources.errors import EmptyError, UnavailableError
from live_page.sources.lake import TABLES, LakeReader, QueryError, QueryResult, TableState, Versions

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
_EXAMPLES = example_queries(PIPELINE)
_FIRST_EXAMPLE = next(iter(_EXAMPLES.values()))
_STORED = f"queries of {PIPELINE.event.name}"
"""Where a browser stores the queries that it has run."""
_MAX_VERSION = 10**15
_DRAWN_SECONDS = 60.0
"""For a busy browser to draw the editor."""
_ANSWER_SECONDS = 10.0
"""For a browser to send the text of the editor."""
_STATUS = "text-sm w-full min-h-5 break-words whitespace-pre-wrap"
_EDITOR_LABEL = "SQL (DuckDB), one SELECT"
_EMPTY = "No tables yet: the stream job creates them with its first batch"


def show(sources: Sources) -> None:
    """Build the page."""
    lake = sources.lake
    _show_tables(lake)
    version = _ChosenVersion(lake)
    with Panel("SQL query"):
        _QueryBox(lake, version)
    with two_columns():
        history, sample = _show_history(lake, version.table), _show_sample(lake, version)

    async def refresh() -> None:
        await history.choose()
        await sample.choose()

    version.on_change(refresh)


def _show_tables(lake: LakeReader) -> None:
    with Panel("Delta tables") as panel:
        summary = RecordTable(_TABLES, _EMPTY, row_key="name", height=height_of(len(TABLES)))

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


def _show_sample(lake: LakeReader, version: "_ChosenVersion") -> Panel:
    with Panel("Sample rows") as panel:
        sample = RecordTable((), "The table has no rows yet", height="min-h-96")

    def chosen() -> tuple[str, int | None]:
        table: str = version.table.value
        return table, version.versions.get(table)

    def read() -> tuple[tuple[str, int | None], QueryResult]:
        table, number = of = chosen()
        return of, lake.sample(table, version=number)

    def show_sample(found: tuple[tuple[str, int | None], QueryResult]) -> None:
        # Another table or version may have been chosen meanwhile.
        if found[0] == chosen():
            _show_result(sample, found[1])

    panel.refresh_from(read, show_sample, interval=5.0)
    return panel


class _QueryBox:
    """A box for SQL with its result, also as a chart and as CSV, and the queries that this browser has run."""

    def __init__(self, lake: LakeReader, version: "_ChosenVersion") -> None:
        self._lake = lake
        self._version = version
        self._cancelled = threading.Event()
        self._queries: list[str] = []
        self._answer: QueryResult | None = None
        with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-[minmax(0,1fr)_16rem] gap-3 w-full"):
            with ui.column().classes("gap-2 min-w-0"):
                self._add_editor()
            self._chart = ui.element("div").classes("w-full min-w-0 lg:col-span-2 empty:hidden")
            self._result = RecordTable((), "No rows").classes("lg:col-span-2")
            # Beside the editor where there is room, and elsewhere below the result.
            _show_columns("lg:col-start-2 lg:row-start-1")
        self._result.clear_rows("Run a query to see its rows (Ctrl+Enter)")
        self._result.props(remove="hide-pagination")
        self._result.pagination = {"rowsPerPage": 10}
        ui.timer(0, self._open_editor, once=True)
        ui.timer(0, self._read_history, once=True)
        # Not at each key: a browser limits how often its address changes.
        ui.timer(1.0, self._remember)

    def _add_editor(self) -> None:
        with ui.row().classes("items-center gap-2"):
            hint("Examples")
            for title, sql in _EXAMPLES.items():
                example = ui.button(title, on_click=partial(self._set_query, sql), color=None)
                example.props("outline dense no-caps").classes("px-2 font-normal text-sky-800 dark:text-sky-300")
        self._query = ui.codemirror(
            _in_lines(current_query().get("sql", _FIRST_EXAMPLE)),
            language="SQL",
            theme="vscodeLight",
            line_wrapping=True,
            keymap={"Mod-Enter": self._run_query},
        )
        self._query.classes("w-full border")
        hint(f"{_EDITOR_LABEL}. Ctrl+Enter runs it; the Tab key leaves the box after Esc")
        with ui.row().classes("items-center gap-x-3 gap-y-2 w-full"):
            self._run = button("Run", self._run_query)
            self._cancel = button("Cancel", self._cancelled.set)
            self._csv = button("CSV", self._download).props('aria-label="Download the rows shown as CSV"')
            self._history = ui.select({}, label="History of this browser").props("dense outlined")
        self._history.classes("grow min-w-48 max-w-md ml-auto")
        self._status = ui.label("").classes(_STATUS).props('role="status"')
        self._history.on_value_change(self._choose)
        # Until the browser is connected: what is typed before would not arrive.
        self._query.disable()
        self._run.disable()
        self._cancel.disable()
        self._csv.disable()

    async def _open_editor(self) -> None:
        """Let the editor take input, once the browser is connected and has drawn it."""
        # Its own text box cannot get a name from the element around it.
        name = f"contentDOM.setAttribute('aria-label', {json.dumps(_EDITOR_LABEL)})"
        with suppress(TimeoutError):
            await ui.run_javascript(f"{self._editor}?.editorPromise.then(view => view.{name})", timeout=_DRAWN_SECONDS)
        if self._query.is_deleted:
            return
        self._query.enable()
        self._run.enable()

    @property
    def _editor(self) -> str:
        """The editor in the browser, as an expression of JavaScript: null once the reader has left the page."""
        return f"getElement({self._query.id})"

    async def _shown_text(self) -> str:
        """Return the text that the editor shows, which becomes the value here too; raises TimeoutError."""
        shown = f"{self._editor}?.editor.state.doc.toString()"
        # None of a browser that has gone.
        text: str = await ui.run_javascript(f"return {shown}", timeout=_ANSWER_SECONDS) or ""
        if text != self._query.value:
            self._query.set_value(text)
        return text

    async def _run_query(self) -> None:
        if not self._run.enabled:
            return
        self._begin()
        versions, result, problem = self._version.versions, None, None
        try:
            sql = await self._shown_text()
            self._remember()
            await self._read_history()
            self._keep(sql)
            query = partial(self._lake.query, sql, is_cancelled=self._is_cancelled, versions=versions)
            result = await run.io_bound(query)
        except (QueryError, EmptyError, UnavailableError, TimeoutError) as error:
            problem = format_text(error, 1_000)
        finally:
            # Unless the reader has left the page.
            if not self._query.is_deleted:
                self._run.enable()
                self._cancel.disable()
        if self._query.is_deleted:
            return
        if problem is not None:
            self._status.classes(replace=f"{_STATUS} text-red-700 dark:text-red-400")
            self._status.set_text(problem)
        if result is None:
            return
        rows = f"{format_count(len(result.rows))} row{'' if len(result.rows) == 1 else 's'}"
        as_of = [f"{name} as of version {version}" for name, version in versions.items()]
        self._status.set_text(", ".join([rows, *result.truncations, *as_of, f"{result.seconds:.2f} s"]))
        self._show(result)

    def _is_cancelled(self) -> bool:
        """Whether the answer is not wanted any more: by the button, or as the reader has left the page."""
        return self._cancelled.is_set() or self._query.is_deleted

    def _begin(self) -> None:
        self._cancelled.clear()
        self._run.disable()
        self._cancel.enable()
        self._csv.disable()
        self._status.classes(replace=f"{_STATUS} opacity-75")
        self._status.set_text("running …")
        # The previous result is never shown below the new query.
        self._answer = None
        self._chart.clear()
        # Without a text the table has one of its own.
        self._result.columns = []
        self._result.clear_rows(" ")

    def _show(self, result: QueryResult) -> None:
        self._answer = result
        self._csv.enable()
        _show_result(self._result, result)
        self._result.set_loaded()
        bars = bars_of(result)
        if bars is not None:
            name, labels, values = bars
            with self._chart:
                update_bars(bar_chart([], format_text(name)), labels, values)
                if len(result.rows) > MAX_BARS:
                    hint(f"The first {MAX_BARS} rows")

    def _download(self) -> None:
        if self._answer is not None:
            ui.download.content(as_csv(self._answer), "query.csv", "text/csv")

    def _set_query(self, sql: str) -> None:
        self._query.set_value(_in_lines(sql))

    def _remember(self) -> None:
        sql = self._query.value or ""
        set_query({"sql": "" if sql == _FIRST_EXAMPLE else sql})

    async def _read_history(self) -> None:
        with suppress(TimeoutError):
            self._set_history(history_of(await ui.run_javascript(f"localStorage.getItem({json.dumps(_STORED)})")))

    def _keep(self, sql: str) -> None:
        self._set_history(with_latest(self._queries, sql))
        stored = f"{json.dumps(_STORED)}, {json.dumps(json.dumps(self._queries))}"
        # A browser can refuse to store anything.
        ui.run_javascript(f"try {{ localStorage.setItem({stored}) }} catch {{}}")

    def _set_history(self, queries: list[str]) -> None:
        self._queries = queries
        self._history.set_options({n: format_text(" ".join(sql.split()), 80) for n, sql in enumerate(queries)})

    def _choose(self, event: events.ValueChangeEventArguments[int | None]) -> None:
        if event.value is not None:
            self._set_query(self._queries[event.value])
            self._history.set_value(None)


def _in_lines(sql: str) -> str:
    """Return a query as the editor has it: with another end of lines, its changes would be at other positions."""
    return sql.replace("\r\n", "\n").replace("\r", "\n")


def _show_columns(classes: str) -> None:
    """Show the columns of each table of the lake."""
    with ui.column().classes(f"gap-1 min-w-0 text-sm {classes}").props("data-columns"):
        hint("Tables and columns")
        for n, (name, columns) in enumerate(columns_of_tables(PIPELINE).items()):
            with ui.element("details").classes("w-full") as details:
                summary = TextElement(tag="summary", text=name)
                summary.classes("list-item cursor-pointer font-mono [overflow-wrap:anywhere]")
                for column, type_ in columns.items():
                    with ui.row().classes("gap-2 no-wrap justify-between pl-4"):
                        ui.label(column).classes("font-mono min-w-0 [overflow-wrap:anywhere]")
                        ui.label(type_).classes("opacity-75")
            if n == 0:
                details.props("open")


class _ChosenVersion:
    """The table of which more is shown, and its version that samples and queries read: by default the current one."""

    def __init__(self, lake: LakeReader) -> None:
        self._lake = lake
        query = current_query()
        self._chosen = whole(query.get("version"), 0, _MAX_VERSION, -1)
        self._is_dragged = False
        with Panel("Table and version") as self._panel:
            self.table = toggle(TABLES, one_of(query.get("table"), TABLES, TABLES[0]))
            with ui.row().classes("w-full items-center gap-4 no-wrap max-sm:flex-wrap"):
                self._slider = ui.slider(min=0, max=0, value=0).classes("grow px-2").props('aria-label="Version"')
                self._text = ui.label().classes("text-sm tabular-nums w-64 shrink-0 min-h-5").props("data-version")
        remember(self.table, "table", lambda: TABLES[0])
        self._panel.refresh_from(
            lambda: (self.table.value, lake.versions(self.table.value)),
            self._show,
            interval=2.0,
            clear=lambda: self._text.set_text(""),
        )

    @property
    def versions(self) -> dict[str, int]:
        """The version to read by table, if it is not the current one."""
        return {} if self._chosen < 0 else {self.table.value: self._chosen}

    def on_change(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """Call a function when another table or version is chosen."""

        async def on_table() -> None:
            self._set(-1)
            await self._panel.choose()
            await refresh()

        async def on_version(event: events.GenericEventArguments) -> None:
            self._set(-1 if event.args == self._slider.props["max"] else int(event.args))
            await self._panel.refresh()
            await refresh()

        self.table.on_value_change(on_table)
        self._slider.on("change", on_version)
        self._slider.on("pan", self._on_drag)

    def _on_drag(self, event: events.GenericEventArguments) -> None:
        self._is_dragged = event.args == "start"

    def _set(self, version: int) -> None:
        self._chosen = version
        set_query({"version": "" if version < 0 else f"{version}"})

    def _show(self, found: tuple[str, Versions]) -> None:
        table, versions = found
        if table != self.table.value:
            return
        if self._chosen >= versions.last:
            self._set(-1)
        elif 0 <= self._chosen < versions.first:
            # Maintenance has removed it meanwhile.
            self._set(versions.first)
        # A new version does not move the slider away from the pointer.
        if not self._is_dragged:
            self._slider.props["min"], self._slider.props["max"] = versions.first, versions.last
            self._slider.set_value(versions.last if self._chosen < 0 else self._chosen)
        shown = "latest version" if self._chosen < 0 else f"version {self._chosen:,}"
        self._text.set_text(f"{shown}, kept are {versions.first:,} to {versions.last:,}")


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
        {"key": n, **{f"c{m}": _cell(cell, result.numeric[m]) for m, cell in enumerate(row)}}
        for n, row in enumerate(result.rows)
    ]


def _cell(cell: str | None, is_number: bool) -> str | None:
    """Return a cell to be read; None is shown as NULL, unlike the text."""
    return cell if cell is None else format_number(cell) if is_number else format_text(cell)
