"""The overview page: rate, latency, stages, health and the latest alerts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from contract.declared import PIPELINE
from live_page.charts import Marks, bar_chart, line_chart, stacked_chart, update_bars, update_line, update_stacked
from live_page.components import Column, Panel, RecordTable, two_columns
from live_page.formatting import UNKNOWN, format_count, format_decimal, format_name, format_text, format_time
from live_page.pages.alerts import ALERT_COLUMNS, alert_row
from live_page.pages.kill_button import KillButton
from live_page.sources import Sources
from live_page.sources.documents import Documents, Points
from live_page.sources.processes import Processes
from observer.processes import Death, ProcessList
from observer.reading_history import Reading, ReadingHistory
from observer.services import OK

_STAGES = (
    Column("stage", "Stage", wraps=True),
    Column("rows", "Rows", is_number=True),
    Column("rate", "Rows/s", is_number=True),
    Column("lag", "Lag", is_number=True),
)
_DEATHS = (
    Column("at", "Death (UTC)"),
    Column("name", "Process", wraps=True),
    Column("ready", "Ready again after"),
    Column("reason", "Reason", is_minor=True, wraps=True),
)
_LISTED_DEATHS = 8
_PAGE = "live_page"

_EVENTS = format_name(PIPELINE.event.name).capitalize()

Update = Callable[[Reading, ProcessList], None]
"""Shows the latest reading, and the processes of the local stack."""


def show(sources: Sources) -> None:
    """Build the page."""
    history, processes = sources.history, sources.processes
    updates = [_show_tiles()]
    with two_columns("items-start"):
        updates += [
            _show_rate(history),
            _show_latency(history),
            _show_activity(sources.documents),
            _show_totals(),
            _show_stages(history),
            _show_health(processes),
            _show_alerts(),
        ]

    def refresh() -> None:
        latest, listed = history.latest, processes.read()
        for update in updates:
            update(latest, listed)

    refresh()
    ui.timer(1.0, refresh)


def _show_tiles() -> Update:
    values: dict[str, ui.label] = {}
    tiles: dict[str, Callable[[Reading], str]] = {
        f"{_EVENTS} per second": lambda r: format_decimal(r.rate),
        f"{_EVENTS} counted": lambda r: format_count(r.snapshot.indexed),
        "Alerts firing": lambda r: format_count(r.snapshot.firing),
        "Latency": lambda r: format_decimal(r.latency, 1, " s"),
        "Dead letters": lambda r: format_count(r.snapshot.dead_letters),
    }
    if PIPELINE.overview.mean is not None:
        title = PIPELINE.overview.mean_title or format_name(PIPELINE.overview.mean.name).capitalize()
        tiles[title] = lambda r: format_decimal(r.snapshot.mean, 2)
    with ui.element("div").classes("grid grid-cols-2 sm:grid-cols-3 lg:grid-cols-6 gap-3 w-full"):
        for name in tiles:
            with ui.card().classes("p-3 gap-0 min-w-0").props("flat bordered"):
                values[name] = ui.label(UNKNOWN).classes("text-2xl font-semibold tabular-nums")
                values[name].props(f'data-tile="{name}"')
                ui.label(name).classes("text-sm opacity-75")

    def update(reading: Reading, _: ProcessList) -> None:
        for name, text in tiles.items():
            values[name].set_text(text(reading))

    return update


def _show_rate(history: ReadingHistory) -> Update:
    with Panel(f"{_EVENTS} per second (UTC)"):
        chart = line_chart(f"{_EVENTS.lower()} per second, in Kafka")
    return lambda _, listed: update_line(chart, _points(history.readings(), lambda r: r.rate, 1), _marks(listed))


def _show_latency(history: ReadingHistory) -> Update:
    with Panel("Latency from Kafka to Elasticsearch (UTC)"):
        chart = line_chart("seconds from a record's arrival in Kafka until the indices count it", " s")
    return lambda _, listed: update_line(chart, _points(history.readings(), lambda r: r.latency, 2), _marks(listed))


def _marks(listed: ProcessList) -> Marks:
    """Return the moments at which processes died, each with how long it took until they were ready again."""
    return [(death.at, f"{death.name}\n{_recovery(death)}") for death in listed.deaths]


def _recovery(death: Death) -> str:
    return "not ready yet" if death.seconds is None else f"ready again after {death.seconds:.1f} s"


def _points(
    readings: Sequence[Reading], value_of: Callable[[Reading], float | None], places: int
) -> list[tuple[float, float | None]]:
    values = [(reading.at, value_of(reading)) for reading in readings]
    return [(at, None if value is None else round(value, places)) for at, value in values]


def _show_activity(documents: Documents) -> Update:
    """Show the events over time, if a table has a row per window; read from the index, not from the readings."""
    activity = PIPELINE.activity
    if activity is None:
        return lambda *_: None
    with Panel(f"{activity.title} (UTC)") as panel:
        chart = stacked_chart(f"{activity.title.lower()}, UTC")
    marks: Marks = ()

    def show_activity(values: Mapping[str, Points]) -> None:
        update_stacked(chart, {name: values[column] for name, column in activity.columns.items()}, marks)

    def update(_: Reading, listed: ProcessList) -> None:
        nonlocal marks
        marks = _marks(listed)

    panel.refresh_from(lambda: documents.over_time(activity.table.name, *activity.columns.values()), show_activity)
    return update


def _show_totals() -> Update:
    by = PIPELINE.overview.by
    if by is None:
        return lambda *_: None
    title = f"{_EVENTS} by {format_name(by.name.split('_')[-1])}"
    with Panel(title) as panel:
        chart = bar_chart(by.choices, title.lower())

    def update(reading: Reading, _: ProcessList) -> None:
        if _is_indexed(reading, panel):
            totals = reading.snapshot.totals
            update_bars(chart, by.choices, [totals.get(value, 0) for value in by.choices])

    return update


def _show_stages(history: ReadingHistory) -> Update:
    with Panel("Stages") as panel:
        table = RecordTable(_STAGES, "No data yet", row_key="stage", height="min-h-56")

    def update(reading: Reading, _: ProcessList) -> None:
        table.rows = list(_stage_rows(history, reading))
        panel.set_loaded()

    return update


def _show_health(processes: Processes) -> Update:
    """Show one line per service and server: by icon and text, not by colour alone.

    On a local stack each can be killed, and the latest deaths are listed.
    """
    lines: dict[str, _HealthLine] = {}
    with Panel("Health"):
        box = ui.column().classes("w-full gap-1 min-h-36")
        deaths = RecordTable(_DEATHS, "")
        deaths.set_loaded()

    def update(reading: Reading, listed: ProcessList) -> None:
        # The page itself answers.
        own = {_PAGE: OK} if _PAGE in listed.processes else {}
        for name, state in {**reading.snapshot.health, **own}.items():
            if name not in lines:
                with box:
                    lines[name] = _HealthLine(name, processes)
            lines[name].show(state, listed)
        deaths.rows = [_death_row(death) for death in listed.deaths[: -_LISTED_DEATHS - 1 : -1]]
        deaths.set_visibility(bool(deaths.rows))

    return update


class _HealthLine:
    """The state of a process, with a button that kills it if a local stack runs it."""

    def __init__(self, name: str, processes: Processes) -> None:
        with ui.row().classes("items-center gap-x-2 gap-y-0 w-full"):
            self._icon = ui.icon("help")
            ui.label(name).classes("w-48 shrink-0 max-sm:w-40 truncate")
            self._state = ui.label().classes("text-sm min-w-0 grow basis-0 break-words").props(f'data-health="{name}"')
            self._button = KillButton(processes, name) if processes.is_local else None

    def show(self, state: str, listed: ProcessList) -> None:
        self._icon.set_name("check_circle" if state == OK else "error")
        self._icon.classes(replace="text-emerald-600" if state == OK else "text-red-600")
        self._state.set_text(format_text(state, 1_000))
        if self._button is not None:
            self._button.update(listed)


def _death_row(death: Death) -> dict[str, Any]:
    return {
        "key": f"{death.at} {death.name}",
        "at": format_time(datetime.fromtimestamp(death.at, UTC)),
        "name": death.name,
        "ready": UNKNOWN if death.seconds is None else f"{death.seconds:.1f} s",
        "reason": format_text(death.reason, 1_000),
    }


def _show_alerts() -> Update:
    with Panel("Latest alerts") as panel:
        table = RecordTable(ALERT_COLUMNS, "No alerts yet: the rules are in data_mapper.yml", height="min-h-56")

    def update(reading: Reading, _: ProcessList) -> None:
        if _is_indexed(reading, panel):
            table.rows = [alert_row(alert) for alert in reading.snapshot.alerts]

    return update


def _is_indexed(reading: Reading, panel: Panel) -> bool:
    """Whether the reading has Elasticsearch's figures; marks the panel as current or unavailable."""
    if reading.snapshot.indexed is None:
        panel.set_unavailable("Elasticsearch does not answer" if reading.at else "Waiting for Elasticsearch")
        return False
    panel.set_loaded()
    return True


def _stage_rows(history: ReadingHistory, latest: Reading) -> Iterator[dict[str, Any]]:
    for n, stage in enumerate(history.stages()):
        # The first stage has none before it.
        lag = format_count(stage.lag) if n else ""
        yield {"stage": stage.name, "rows": format_count(stage.rows), "rate": format_decimal(stage.rate), "lag": lag}
    for index, documents in latest.snapshot.documents.items():
        yield {"stage": f"index {index}", "rows": format_count(documents), "rate": "", "lag": ""}
