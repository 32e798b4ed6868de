"""The Delta tables: what they hold, how they came to be, and questions of your own."""

import threading
from contextlib import suppress

from nicegui import run, ui

from live_page.components import Column, Panel, RecordTable, choice, table
from live_page.lake import TABLES, Answer, LakeReader, QueryError, TableState
from live_page.sources import Sources
from live_page.text import UNKNOWN, clock, count, size, visible
from live_page.unavailable import EmptyError, UnavailableError

_TABLES = (
    Column("name", "table", wraps=True),
    Column("rows", "rows", is_number=True),
    Column("files", "files", is_number=True),
    Column("bytes", "size", is_number=True),
    Column("version", "version", is_number=True, is_minor=True),
)
_HISTORY = (
    Column("version", "version"),
    Column("at", "at (UTC)"),
    Column("operation", "operation"),
    Column("rows", "rows written", is_number=True),
)
_QUESTION = """SELECT item_id, interaction_type, count(*) AS n, max(timestamp) AS latest
FROM interactions
GROUP BY ALL ORDER BY n DESC LIMIT 20"""
_SAID = "text-sm min-w-0 break-words whitespace-pre-wrap"
_EMPTY = "No tables yet: the stream job makes them with its first batch"


def show(sources: Sources) -> None:
    """The lake."""
    lake = sources.lake
    with Panel("Delta tables") as listed:
        summary = table(_TABLES, _EMPTY, row_key="name", height="min-h-44")
    with Panel("Ask the tables"):
        _sql_box(lake)
    chosen = choice(TABLES)
    with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-3 w-full"):
        with Panel("Versions") as versioned:
            history = table(_HISTORY, _EMPTY, row_key="version", height="min-h-96")
        with Panel("A sample") as sampled:
            sample = table((), "The table has no rows yet", height="min-h-96")

    def show_tables(states: list[TableState]) -> None:
        summary.rows = [
            {
                "name": each.name,
                "rows": count(each.rows),
                "files": count(each.files),
                "bytes": size(each.bytes),
                "version": each.version,
            }
            for each in states
        ]

    def show_history(state: TableState) -> None:
        history.rows = [
            {
                "version": each.version,
                "at": clock(each.at),
                "operation": visible(each.operation),
                "rows": count(each.rows),
            }
            for each in state.history
        ]

    async def another() -> None:
        await versioned.renew()
        await sampled.renew()

    listed.keep(lambda: _states(lake), show_tables, every=2.0)
    versioned.keep(lambda: lake.state(chosen.value), show_history, every=2.0)
    sampled.keep(lambda: lake.sample(chosen.value), lambda answer: _show_answer(sample, answer), every=5.0)
    chosen.on_value_change(another)


def _sql_box(lake: LakeReader) -> None:
    question = ui.textarea(label="SQL (DuckDB's), one SELECT", value=_QUESTION).classes("w-full font-mono")
    question.props('outlined autogrow spellcheck="false" input-class="text-sm" maxlength=10000')
    with ui.row().classes("items-center gap-3 w-full"):
        ask = ui.button("Run").props("no-caps unelevated")
        cancel = ui.button("Cancel").props("no-caps unelevated")
        said = ui.label("").classes(_SAID).props('role="status"')
    cancel.disable()
    answered = table((), "It has no rows")
    answered.set_empty("Run a query to see its rows (Ctrl+Enter in the box)")
    answered.props(remove="hide-pagination")
    answered.pagination = {"rowsPerPage": 10}
    cancelled = threading.Event()

    async def run_query() -> None:
        if not ask.enabled:
            return
        cancelled.clear()
        ask.disable()
        cancel.enable()
        said.classes(replace=f"{_SAID} opacity-75")
        said.set_text("running …")
        # An answer never stands under another question.
        answered.set_empty("")
        try:
            answer = await run.io_bound(lake.query, question.value or "", cancelled=cancelled)
        except (QueryError, EmptyError, UnavailableError) as error:
            said.classes(replace=f"{_SAID} text-red-700 dark:text-red-400")
            said.set_text(visible(error, 1_000))
            return
        finally:
            ask.enable()
            cancel.disable()
        if answer is None:
            return
        rows = f"{count(len(answer.rows))} row{'' if len(answer.rows) == 1 else 's'}"
        said.set_text(", ".join([rows, *answer.cut, f"{answer.seconds:.2f} s"]))
        _show_answer(answered, answer)
        answered.set_known()

    ask.on_click(run_query)
    cancel.on_click(cancelled.set)
    ui.context.client.on_disconnect(cancelled.set)
    question.on("keydown.ctrl.enter", run_query)


def _states(lake: LakeReader) -> list[TableState]:
    """Of the tables that are there; raises `EmptyError` where none is, `UnavailableError`."""
    found = []
    for name in TABLES:
        with suppress(EmptyError):
            found.append(lake.state(name))
    if not found:
        raise EmptyError(_EMPTY)
    return found


def _show_answer(shown: RecordTable, answer: Answer) -> None:
    columns = [
        Column(f"c{n}", visible(name), is_number=is_number, wraps=not is_number).props
        for n, (name, is_number) in enumerate(zip(answer.columns, answer.numeric, strict=True))
    ]
    if shown.columns != columns:
        shown.columns = columns
    shown.rows = [
        {"key": n, **{f"c{m}": UNKNOWN if cell is None else visible(cell) for m, cell in enumerate(row)}}
        for n, row in enumerate(answer.rows)
    ]
