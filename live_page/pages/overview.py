"""The overview page: the pipeline as a diagram, rate, latency, health and the latest alerts."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from nicegui import ui

from contract.declared import PIPELINE
from live_page.address import current_query, one_of, remember
from live_page.charts import Chart, Marks, bar_chart, stacked_chart, update_stacked
from live_page.components import Column, Panel, RecordTable, hint, toggle
from live_page.diagram import PipelineDiagram
from live_page.formatting import format_text
from live_page.overview_model import EVENTS, LATENCY_LABEL, RATE_LABEL, SPANS, Overview, totals_title
from live_page.pages.alerts import ALERT_COLUMNS, NO_ALERTS
from live_page.pages.kill_button import KillButton
from live_page.pages.tiles import show_tiles
from live_page.sources import Sources
from live_page.sources.consumers import KAFKA
from live_page.sources.documents import ELASTICSEARCH, Documents, Points
from live_page.sources.processes import Processes
from observer.processes import ProcessList
from observer.reading_history import Reading
from observer.services import OK

_DEATHS = (
    Column("at", "Death (UTC)"),
    Column("name", "Process", wraps=True),
    Column("ready", "Ready again after"),
    Column("reason", "Reason", wraps=True),
)
_PAGE = "live_page"
_DEFAULT_SPAN: Final = "5 min"
_GROUP = "overview"
"""The charts that have a crosshair in common."""

Update = Callable[[Overview], None]
"""Shows the latest overview."""


def show(sources: Sources) -> None:
    """Build the page."""
    span = _Span()
    with ui.element("div").classes("overview"):
        updates = [_show_pipeline(), _show_tiles()]
        with ui.element("div").classes("panels"):
            updates += [_show_rate(span), _show_latency(span), _show_activity(sources.documents)]
        with ui.element("div").classes("panels"):
            updates += [_show_totals(), _show_health(sources.processes), _show_alerts()]

    def refresh() -> None:
        latest = sources.overview.get()
        for update in updates:
            update(latest)

    refresh()
    span.on_change(refresh)
    ui.timer(1.0, refresh)


def _show_pipeline() -> Update:
    with Panel("Pipeline") as panel:
        diagram = PipelineDiagram()
    with panel.header:
        hint("an edge is wider with a higher rate; red and dashed: records wait").classes("max-sm:hidden")
    return lambda latest: diagram.update(latest.pipeline)


def _show_tiles() -> Update:
    update = show_tiles()
    return lambda latest: update(latest.tiles)


class _Span:
    """The time that the charts over time show, chosen by buttons."""

    def add_buttons(self) -> None:
        """Add the buttons, before anything else of this is used."""
        self._toggle = toggle(list(SPANS), one_of(current_query().get("span"), SPANS, _DEFAULT_SPAN))
        self._toggle.props('dense size="sm" aria-label="Time that rate and latency show"')
        remember(self._toggle, "span", lambda: _DEFAULT_SPAN)

    def on_change(self, refresh: Callable[[], None]) -> None:
        """Call a function when another time is chosen."""
        self._toggle.on_value_change(refresh)

    @property
    def chosen(self) -> str:
        """Its name in `SPANS`."""
        return str(self._toggle.value)


def _show_rate(span: _Span) -> Update:
    with Panel(f"{EVENTS} per second (UTC)", "lg:[flex:9_1_0]") as panel:
        chart = Chart({}, RATE_LABEL, group=_GROUP)
    with panel.header:
        span.add_buttons()

    def update(latest: Overview) -> None:
        chart.draw(latest.rate(span.chosen))
        _mark_panel(panel, latest.reading, latest.reading.snapshot.sent, KAFKA)

    return update


def _show_latency(span: _Span) -> Update:
    with Panel("Latency from Kafka to Elasticsearch (UTC)", "lg:[flex:8_1_0]") as panel:
        chart = Chart({}, LATENCY_LABEL, group=_GROUP)

    def update(latest: Overview) -> None:
        chart.draw(latest.latency(span.chosen))
        _is_indexed(latest.reading, panel)

    return update


def _show_activity(documents: Documents) -> Update:
    """Show the events over time, if a table has a row per window; read from the index, not from the readings."""
    activity = PIPELINE.activity
    if activity is None:
        return lambda _: None
    with Panel(f"{activity.title} (UTC)", "lg:[flex:7_1_0]") as panel:
        chart = stacked_chart(f"{activity.title.lower()}, UTC")
    marks: Marks = ()

    def show_activity(values: Mapping[str, Points]) -> None:
        update_stacked(chart, {name: values[column] for name, column in activity.columns.items()}, marks)

    def update(latest: Overview) -> None:
        nonlocal marks
        # Without their texts, which the charts of rate and latency have: here they would be over the bars.
        marks = [(death.at, "") for death in latest.listed.deaths]

    panel.refresh_from(lambda: documents.over_time(activity.table.name, *activity.columns.values()), show_activity)
    return update


def _show_totals() -> Update:
    by = PIPELINE.overview.by
    if by is None:
        return lambda _: None
    title = totals_title()
    with Panel(title, "lg:[flex:7_1_0]") as panel:
        chart = bar_chart(by.choices, title.lower())

    def update(latest: Overview) -> None:
        if _is_indexed(latest.reading, panel):
            chart.draw(latest.totals)

    return update


def _show_health(processes: Processes) -> Update:
    """Show one line per service and server: by icon and text, not by colour alone.

    On a local stack each can be killed, and the latest deaths are listed.
    """
    lines: dict[str, _HealthLine] = {}
    with Panel("Health", "health lg:[flex:8_1_0]"):
        box = ui.column().classes("w-full gap-1 min-h-36 lg:gap-0.5")
        deaths = RecordTable(_DEATHS, "").classes("deaths")
        deaths.set_loaded()

    def update(latest: Overview) -> None:
        # The page itself answers.
        own = {_PAGE: OK} if _PAGE in latest.listed.processes else {}
        for name, state in {**latest.reading.snapshot.health, **own}.items():
            if name not in lines:
                with box:
                    lines[name] = _HealthLine(name, processes)
            lines[name].show(state, latest.listed)
        if deaths.rows != latest.deaths:
            deaths.rows = list(latest.deaths)
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


def _show_alerts() -> Update:
    with Panel("Latest alerts", "alerts lg:[flex:11_1_0]") as panel:
        table = RecordTable(ALERT_COLUMNS, NO_ALERTS, height="min-h-56")

    def update(latest: Overview) -> None:
        if _is_indexed(latest.reading, panel) and table.rows != latest.alerts:
            table.rows = list(latest.alerts)

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
