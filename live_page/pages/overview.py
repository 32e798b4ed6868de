"""The overview page: the pipeline as a diagram, rate, latency, health and the latest alerts."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import Any, Final, TypeVar

from nicegui import ui

from contract.declared import PIPELINE
from live_page.address import current_query, one_of, remember
from live_page.charts import (
    Marks,
    TimePoints,
    bar_chart,
    in_buckets,
    line_chart,
    stacked_chart,
    update_bars,
    update_line,
    update_stacked,
)
from live_page.components import Column, Panel, RecordTable, hint, toggle
from live_page.diagram import PipelineDiagram
from live_page.formatting import UNKNOWN, format_name, format_text, format_time
from live_page.pages.alerts import ALERT_COLUMNS, alert_row
from live_page.pages.kill_button import KillButton
from live_page.pages.tiles import show_tiles
from live_page.pipeline_model import pipeline_model
from live_page.sources import Sources
from live_page.sources.consumers import KAFKA
from live_page.sources.documents import ELASTICSEARCH, Documents, Points
from live_page.sources.processes import Processes
from observer.latency import HISTORY_SECONDS
from observer.processes import Death, ProcessList
from observer.reading_history import Point, Reading, ReadingHistory, percentile
from observer.services import OK

_DEATHS = (
    Column("at", "Death (UTC)"),
    Column("name", "Process", wraps=True),
    Column("ready", "Ready again after"),
    Column("reason", "Reason", is_minor=True, wraps=True),
)
_LISTED_DEATHS = 8
_PAGE = "live_page"
_SPANS: Final = {"1 min": (60.0, 1.0), "5 min": (300.0, 2.0), "30 min": (HISTORY_SECONDS, 12.0)}
"""Seconds that the charts over time show, and those that a point of them stands for."""
_DEFAULT_SPAN: Final = "5 min"
_SHORTEST_SPAN: Final = 60.0
_GROUP = "overview"
"""The charts that have a crosshair in common."""
_EVENTS = format_name(PIPELINE.event.name).capitalize()

T = TypeVar("T", Reading, Point)
Update = Callable[[Reading, ProcessList], None]
"""Shows the latest reading, and the processes of the local stack."""


def show(sources: Sources) -> None:
    """Build the page."""
    history, processes = sources.history, sources.processes
    span = _Span(history)
    with ui.element("div").classes("overview"):
        updates = [_show_pipeline(history, sources.settings.kafka_topic), _show_tiles(history)]
        with ui.element("div").classes("panels"):
            updates += [_show_rate(span), _show_latency(span), _show_activity(sources.documents)]
        with ui.element("div").classes("panels"):
            updates += [_show_totals(), _show_health(processes), _show_alerts()]

    def refresh() -> None:
        latest, listed = history.latest, processes.read()
        for update in updates:
            update(latest, listed)

    refresh()
    span.on_change(refresh)
    ui.timer(1.0, refresh)


def _show_pipeline(history: ReadingHistory, topic: str) -> Update:
    with Panel("Pipeline") as panel:
        diagram = PipelineDiagram()
    with panel.header:
        hint("an edge is wider with a higher rate; red and dashed: records wait").classes("max-sm:hidden")
    return lambda *_: diagram.update(pipeline_model(history, topic))


def _show_tiles(history: ReadingHistory) -> Update:
    update = show_tiles(history)
    return lambda *_: update()


class _Span:
    """The time that the charts over time show, chosen by buttons."""

    def __init__(self, history: ReadingHistory) -> None:
        self._history = history

    def add_buttons(self) -> None:
        """Add the buttons, before anything else of this is used."""
        self._toggle = toggle(list(_SPANS), one_of(current_query().get("span"), _SPANS, _DEFAULT_SPAN))
        self._toggle.props('dense size="sm" aria-label="Time that rate and latency show"')
        remember(self._toggle, "span", lambda: _DEFAULT_SPAN)

    def on_change(self, refresh: Callable[[], None]) -> None:
        """Call a function when another time is chosen."""
        self._toggle.on_value_change(refresh)

    def points(self) -> Sequence[Point]:
        """Return the figures of that time."""
        return self._history.points(_SPANS[self._toggle.value][0])

    @property
    def seconds_of_a_point(self) -> float:
        """The seconds that a point of a chart stands for."""
        return _SPANS[self._toggle.value][1]

    def bounds(self, points: Sequence[Point]) -> tuple[float, float] | None:
        """Return the times of the axis: of the whole span, or from the first figure if there are less."""
        if not points:
            return None
        last = points[-1].at
        return min(points[0].at, last - _SHORTEST_SPAN), last


def _show_rate(span: _Span) -> Update:
    with Panel(f"{_EVENTS} per second (UTC)", "lg:[flex:9_1_0]") as panel:
        chart = line_chart(f"{_EVENTS.lower()} per second, in Kafka", name="per second", group=_GROUP)
    with panel.header:
        span.add_buttons()

    def update(reading: Reading, listed: ProcessList) -> None:
        points = span.points()
        rates = in_buckets(_points(points, lambda r: r.rate, 1), span.seconds_of_a_point, _mean)
        update_line(chart, rates, _marks(listed), span=span.bounds(points))
        _mark_panel(panel, reading, reading.snapshot.sent, KAFKA)

    return update


def _show_latency(span: _Span) -> Update:
    with Panel("Latency from Kafka to Elasticsearch (UTC)", "lg:[flex:8_1_0]") as panel:
        label = "seconds from a record's arrival in Kafka until the indices count it"
        chart = line_chart(label, " s", name="latency in s", group=_GROUP)

    def update(reading: Reading, listed: ProcessList) -> None:
        points = span.points()
        latencies = _points(points, lambda r: r.latency, 2)
        known = [seconds for _, seconds in latencies if seconds is not None]
        levels = {"p50": percentile(known, 0.5), "p95": percentile(known, 0.95)}
        highest = in_buckets(latencies, span.seconds_of_a_point, max)
        update_line(chart, highest, _marks(listed), levels=levels, span=span.bounds(points))
        _mark_panel(panel, reading, reading.snapshot.indexed, ELASTICSEARCH)

    return update


def _mean(values: Sequence[float]) -> float:
    return round(fmean(values), 1)


def _marks(listed: ProcessList) -> Marks:
    """Return the moments at which processes died, each with how long it took until they were ready again."""
    return [(death.at, f"{death.name}\n{_recovery(death)}") for death in listed.deaths]


def _recovery(death: Death) -> str:
    return "not ready yet" if death.seconds is None else f"ready again after {death.seconds:.1f} s"


def _points(readings: Sequence[T], value_of: Callable[[T], float | None], places: int) -> TimePoints:
    values = [(reading.at, value_of(reading)) for reading in readings]
    return [(at, None if value is None else round(value, places)) for at, value in values]


def _show_activity(documents: Documents) -> Update:
    """Show the events over time, if a table has a row per window; read from the index, not from the readings."""
    activity = PIPELINE.activity
    if activity is None:
        return lambda *_: None
    with Panel(f"{activity.title} (UTC)", "lg:[flex:7_1_0]") as panel:
        chart = stacked_chart(f"{activity.title.lower()}, UTC")
    marks: Marks = ()

    def show_activity(values: Mapping[str, Points]) -> None:
        update_stacked(chart, {name: values[column] for name, column in activity.columns.items()}, marks)

    def update(_: Reading, listed: ProcessList) -> None:
        nonlocal marks
        # Without their texts, which the charts of rate and latency have: here they would be over the bars.
        marks = [(death.at, "") for death in listed.deaths]

    panel.refresh_from(lambda: documents.over_time(activity.table.name, *activity.columns.values()), show_activity)
    return update


def _show_totals() -> Update:
    by = PIPELINE.overview.by
    if by is None:
        return lambda *_: None
    title = f"{_EVENTS} by {format_name(by.name.split('_')[-1])}"
    with Panel(title, "lg:[flex:7_1_0]") as panel:
        chart = bar_chart(by.choices, title.lower())

    def update(reading: Reading, _: ProcessList) -> None:
        if _is_indexed(reading, panel):
            totals = reading.snapshot.totals
            update_bars(chart, by.choices, [totals.get(value, 0) for value in by.choices])

    return update


def _show_health(processes: Processes) -> Update:
    """Show one line per service and server: by icon and text, not by colour alone.

    On a local stack each can be killed, and the latest deaths are listed.
    """
    lines: dict[str, _HealthLine] = {}
    with Panel("Health", "health lg:[flex:8_1_0]"):
        box = ui.column().classes("w-full gap-1 min-h-36 lg:gap-0.5")
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
            ui.label(name).classes("w-48 shrink-0 max-sm:w-40 lg:w-40 truncate")
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
    with Panel("Latest alerts", "alerts lg:[flex:11_1_0]") as panel:
        table = RecordTable(ALERT_COLUMNS, "No alerts yet: the rules are in data_mapper.yml", height="min-h-56")

    def update(reading: Reading, _: ProcessList) -> None:
        if _is_indexed(reading, panel):
            table.rows = [alert_row(alert) for alert in reading.snapshot.alerts]

    return update


def _is_indexed(reading: Reading, panel: Panel) -> bool:
    """Whether the reading has Elasticsearch's figures; marks the panel as current or unavailable."""
    return _mark_panel(panel, reading, reading.snapshot.indexed, ELASTICSEARCH)


def _mark_panel(panel: Panel, reading: Reading, figure: int | None, server: str) -> bool:
    """Mark a panel as current if the reading has a figure of a server, or as unavailable; return whether it has."""
    if figure is not None:
        panel.set_loaded(datetime.fromtimestamp(reading.at, UTC))
    elif reading.at:
        panel.set_unavailable(f"{server} does not answer", is_in_banner=True)
    else:
        panel.set_status(f"waiting for {server}")
    return figure is not None
