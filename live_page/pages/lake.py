"""The Delta tables: what they hold, how they came to be, and questions of your own."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from nicegui import run, ui

from live_page.lake import MOST_ROWS, TABLES, Answer, LakeReader, QueryError, TableState
from live_page.parts import Column, Panel, add_no_data, choice, clock, count, size, table
from live_page.sources import Sources
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
            sample = ui.table(columns=[], rows=[], row_key="key").classes("w-full min-w-0 min-h-96")
            sample.props(f'dense flat hide-pagination :rows-per-page-options="[0]" no-data-label="{_EMPTY}"')
            add_no_data(sample)

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
            {"version": each.version, "at": clock(each.at), "operation": each.operation, "rows": count(each.rows)}
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
    question.props('outlined autogrow spellcheck="false" input-class="text-sm"')
    with ui.row().classes("items-center gap-3 w-full"):
        ask = ui.button("Run").props("no-caps unelevated")
        said = ui.label("").classes(_SAID).props('role="status"')
    answered = ui.table(columns=[], rows=[], row_key="key", pagination=10).classes("w-full min-w-0")
    answered.props('dense flat no-data-label="Run a query to see its rows (Ctrl+Enter in the box)"')

    add_no_data(answered)

    async def run_query() -> None:
        said.set_text("running …")
        ask.disable()
        try:
            answer = await run.io_bound(lake.query, question.value or "")
        except (QueryError, EmptyError, UnavailableError) as error:
            said.set_text(str(error))
            said.classes(replace=f"{_SAID} text-red-700 dark:text-red-400")
            return
        finally:
            ask.enable()
        if answer is None:
            return
        cut = f", cut at {MOST_ROWS}" if answer.is_cut else ""
        said.classes(replace=f"{_SAID} opacity-75")
        said.set_text(f"{count(len(answer.rows))} rows{cut}, {answer.seconds:.2f} s")
        _show_answer(answered, answer)

    ask.on_click(run_query)
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


def _show_answer(shown: ui.table, answer: Answer) -> None:
    names = _distinct(answer.columns)
    first = answer.rows[0] if answer.rows else [None] * len(names)
    columns = [
        Column(name, label, is_number=isinstance(value, int | float)).props
        for name, label, value in zip(names, answer.columns, first, strict=True)
    ]
    if shown.columns != columns:
        shown.columns = columns
    shown.rows = [{"key": n, **dict(zip(names, map(_cell, row), strict=True))} for n, row in enumerate(answer.rows)]


def _distinct(names: Sequence[str]) -> list[str]:
    return [f"{n}_{name}" for n, name in enumerate(names)]


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    return value if isinstance(value, bool | int | float | str | None) else str(value)
