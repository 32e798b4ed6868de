"""Is it alive, how fast, how far behind, and what is wrong?"""

from collections.abc import Callable, Iterator
from typing import Any

from nicegui import ui

from contract.interaction import INTERACTION_TYPES
from live_page.components import Column, Panel, bars, lines, show_bars, show_line, table
from live_page.pages.alerts import ALERT_COLUMNS, alert_row
from live_page.sources import Sources
from live_page.text import count, decimal, visible
from observer.reading_history import Board, Reading
from observer.snapshot import OK

_STAGES = (
    Column("stage", "stage"),
    Column("rows", "rows", is_number=True),
    Column("rate", "a second", is_number=True),
    Column("lag", "behind", is_number=True),
)


def show(sources: Sources) -> None:
    """The overview."""
    board = sources.board
    renewals: list[Callable[[Reading], None]] = [_tiles()]
    with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-3 w-full items-start"):
        with Panel("Interactions a second (times are UTC)"):
            rates = lines("interactions a second, in Kafka")
        with Panel("Seconds from Kafka to the indices (times are UTC)"):
            latencies = lines("seconds from an interaction's arrival in Kafka until the indices count it", " s")
        with Panel("Interactions by type") as by_type:
            totals = bars(INTERACTION_TYPES, "interactions by type")
        with Panel("Stages") as staged:
            stages = table(_STAGES, "nothing is known yet", row_key="stage", height="min-h-56")
        with Panel("Services and servers"):
            renewals.append(_health())
        with Panel("Latest alerts") as alerted:
            alerts = table(ALERT_COLUMNS, "No alerts yet: the rules are in data_mapper.yml", height="min-h-56")

    def renew() -> None:
        now, readings = board.latest, board.readings()
        for renewal in renewals:
            renewal(now)
        show_line(rates, [(r.at, None if r.rate is None else round(r.rate, 1)) for r in readings])
        show_line(latencies, [(r.at, None if r.latency is None else round(r.latency, 2)) for r in readings])
        stages.rows = list(_stages(board))
        staged.known()
        if now.snapshot.indexed is None:
            for panel in (by_type, alerted):
                panel.unknown("Elasticsearch does not answer" if now.at else "Elasticsearch was not asked yet")
            return
        show_bars(totals, INTERACTION_TYPES, [now.snapshot.totals.get(kind, 0) for kind in INTERACTION_TYPES])
        alerts.rows = [alert_row(alert) for alert in now.snapshot.alerts]
        for panel in (by_type, alerted):
            panel.known()

    renew()
    ui.timer(1.0, renew)


def _tiles() -> Callable[[Reading], None]:
    values: dict[str, ui.label] = {}
    shown: dict[str, Callable[[Reading], str]] = {
        "interactions a second": lambda r: decimal(r.rate),
        "interactions counted": lambda r: count(r.snapshot.indexed),
        "a user's average": lambda r: decimal(r.snapshot.users_average, 2),
        "alerts firing": lambda r: count(r.snapshot.firing),
        "from Kafka to the indices": lambda r: decimal(r.latency, 1, " s"),
        "dead letters": lambda r: count(r.snapshot.dead_letters),
    }
    with ui.element("div").classes("grid grid-cols-2 sm:grid-cols-3 lg:grid-cols-6 gap-3 w-full"):
        for name in shown:
            with ui.card().classes("p-3 gap-0 min-w-0").props("flat bordered"):
                values[name] = ui.label("–").classes("text-2xl font-semibold tabular-nums")
                values[name].props(f'data-tile="{name}"')
                ui.label(name).classes("text-sm opacity-75")

    def renew(reading: Reading) -> None:
        for name, text in shown.items():
            values[name].set_text(text(reading))

    return renew


def _health() -> Callable[[Reading], None]:
    """One line for each; told by sign and word, not by colour alone."""
    box = ui.column().classes("w-full gap-1 min-h-36")
    lines: dict[str, tuple[ui.icon, ui.label]] = {}

    def renew(reading: Reading) -> None:
        for name, state in reading.snapshot.health.items():
            if name not in lines:
                with box, ui.row().classes("items-center gap-2 w-full no-wrap"):
                    icon = ui.icon("help")
                    ui.label(name).classes("w-48 shrink-0 max-sm:w-40 truncate")
                    lines[name] = icon, ui.label().classes("text-sm min-w-0 break-words").props(f'data-health="{name}"')
            icon, label = lines[name]
            icon.set_name("check_circle" if state == OK else "error")
            icon.classes(replace="text-emerald-600" if state == OK else "text-red-600")
            label.set_text(visible(state, 1_000))

    return renew


def _stages(board: Board) -> Iterator[dict[str, Any]]:
    for n, stage in enumerate(board.stages()):
        lag = count(stage.behind) if n else ""  # Nothing is before the first.
        yield {"stage": stage.name, "rows": count(stage.rows), "rate": decimal(stage.rate), "lag": lag}
    for index, documents in board.latest.snapshot.documents.items():
        yield {"stage": f"index {index}", "rows": count(documents), "rate": "", "lag": ""}
