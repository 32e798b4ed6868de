"""The live view in the terminal: rows, rate and lag per stage, and the latest alerts."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from contract.alerts import ALERTS, FIRING
from observer.reading_history import ReadingHistory
from observer.reconciliation import State
from observer.services import OK
from observer.snapshot import Snapshot
from runtime.logs import escape_controls

_UNKNOWN = "–"
_STYLES = {State.UNKNOWN: "yellow", State.BEHIND: "yellow", State.EQUAL: "green", State.WRONG: "bold red"}


class View:
    """Renders snapshots; keeps earlier ones to compute the rates."""

    def __init__(self, addresses: str) -> None:
        self._addresses = addresses
        self._history = ReadingHistory()

    def render(self, snapshot: Snapshot, at: float) -> RenderableType:
        """Return the screen for a snapshot taken `at` (seconds of a monotonic clock)."""
        self._history.add(snapshot, at)
        return Panel(
            Group(self._stages(snapshot), self._verdict(), *_problems(snapshot), Text(), _alerts(snapshot)),
            title="streaming analytics",
            subtitle=f"{self._addresses}   Ctrl-C stops",
        )

    def _stages(self, now: Snapshot) -> Table:
        table = Table(expand=True, box=None, header_style="bold")
        for name, justify in (("stage", "left"), ("rows", "right"), ("per second", "right"), ("lag", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for n, stage in enumerate(self._history.stages()):
            # The first stage has no lag: no stage precedes it.
            table.add_row(stage.name, _count(stage.rows), _count(stage.rate), _count(stage.lag) if n else "")
        for index, count in now.documents.items():
            if index != ALERTS:
                table.add_row(_as_text(f"index {index}"), _count(count), "", "")
        table.add_row("dead letters", _count(now.dead_letters), "", "")
        return table

    def _verdict(self) -> Text:
        verdict = self._history.latest.verdict
        return Text(escape_controls(verdict.text), style=_STYLES[verdict.state])


def _problems(snapshot: Snapshot) -> list[Text]:
    return [
        Text.assemble((f"{name}: ", "red"), escape_controls(state))
        for name, state in snapshot.health.items()
        if state != OK
    ]


def _alerts(snapshot: Snapshot) -> Table:
    title = f"alerts: {_count(snapshot.firing)} firing, {_count(snapshot.documents.get(ALERTS))} in total"
    table = Table(title=title, title_justify="left", title_style="bold", expand=True, box=None)
    # In a narrow terminal, the names of rules and rows are truncated, and nothing else.
    for name, ratio in {"fired": None, "status": None, "rule": 1, "row": 1, "value": None}.items():
        table.add_column(name, no_wrap=True, ratio=ratio)
    for alert in snapshot.alerts:
        style = "red" if alert["status"] == FIRING else "green"
        fired = _as_text(str(alert["fired_at"])[11:19])
        status = Text(alert["status"], style=style)
        table.add_row(fired, status, *(_as_text(alert[name]) for name in ("alert_text", "id", "value")))
    if not snapshot.alerts:
        table.add_row(_UNKNOWN, "", "none yet", "", "")
    return table


def _as_text(value: object) -> Text:
    """Return text from records without markup and control characters."""
    return Text(escape_controls(str(value)))


def _count(number: float | None) -> str:
    return _UNKNOWN if number is None else f"{number:,.0f}"
