"""The live view in the terminal: events a second, rows and lag per stage, the latest alerts."""

from collections import deque
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from live_page.snapshot import ALERTS, Snapshot

_RATE_WINDOW = 10.0
_UNKNOWN = "–"


@dataclass(frozen=True)
class _Sample:
    at: float
    snapshot: Snapshot


class View:
    """Renders snapshots; remembers the last seconds of them for the rates."""

    def __init__(self, addresses: str) -> None:
        self._addresses = addresses
        self._samples: deque[_Sample] = deque()

    def render(self, snapshot: Snapshot, at: float) -> RenderableType:
        """The screen for a snapshot taken `at` (seconds on any clock that only goes forward)."""
        self._samples.append(_Sample(at, snapshot))
        while at - self._samples[0].at > _RATE_WINDOW:
            self._samples.popleft()
        return Panel(
            Group(self._stages(snapshot), Text(), _alerts(snapshot)),
            title="streaming analytics",
            subtitle=f"{self._addresses}   Ctrl-C stops",
        )

    def _stages(self, now: Snapshot) -> Table:
        table = Table(expand=True, box=None, header_style="bold")
        for name, justify in (("stage", "left"), ("rows", "right"), ("a second", "right"), ("lag", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        gone = None if now.in_the_lake is None else now.in_the_lake + (now.dead_letters or 0)
        table.add_row("sent to Kafka", _count(now.sent), self._rate("sent"), "")
        table.add_row("in the lake", _count(now.in_the_lake), self._rate("in_the_lake"), _behind(now.sent, gone))
        behind = _behind(now.in_the_lake, now.aggregated)
        table.add_row("aggregated", _count(now.aggregated), self._rate("aggregated"), behind)
        table.add_row("rows published", _count(now.published), self._rate("published"), _count(now.sink_lag))
        for index, count in now.documents.items():
            if index != ALERTS:
                table.add_row(f"index {index}", _count(count), "", "")
        table.add_row("dead letters", _count(now.dead_letters), "", "")
        return table

    def _rate(self, name: str) -> str:
        first, last = self._samples[0], self._samples[-1]
        before, after = getattr(first.snapshot, name), getattr(last.snapshot, name)
        if before is None or after is None or last.at <= first.at:
            return _UNKNOWN
        return f"{max(0, after - before) / (last.at - first.at):,.0f}"


def _alerts(snapshot: Snapshot) -> Table:
    title = f"alerts: {_count(snapshot.firing)} firing, {_count(snapshot.documents.get(ALERTS))} in all"
    table = Table(title=title, title_justify="left", title_style="bold", expand=True, box=None)
    for name in ("fired", "status", "rule", "row", "value"):
        table.add_column(name, no_wrap=True)
    for alert in snapshot.alerts:
        style = "red" if alert["status"] == "firing" else "green"
        fired = str(alert["fired_at"])[11:19]
        table.add_row(fired, Text(alert["status"], style=style), alert["alert_text"], alert["id"], str(alert["value"]))
    if not snapshot.alerts:
        table.add_row(_UNKNOWN, "", "none yet", "", "")
    return table


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _behind(ahead: int | None, behind: int | None) -> str:
    return _UNKNOWN if ahead is None or behind is None else f"{max(0, ahead - behind):,}"
