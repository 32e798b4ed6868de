"""The sections of the live view in the terminal: each a renderable that follows from the observer's readings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from contract.alerts import ALERTS, FIRING
from live_page.formatting import UNKNOWN, format_bytes, format_count, format_decimal, format_latency
from observer.reading_history import Point, Stage, percentile
from observer.reconciliation import State, Verdict
from observer.services import OK
from observer.snapshot import Snapshot
from observer.status import Part
from observer.status_text import duration_text
from runtime.logs import escape_controls

HAS_ENDED: Final = "has ended"
"""The state of a process that has ended by itself, which is no problem."""
_BADGES: Final = {
    State.UNKNOWN: ("?", "bold yellow"),
    State.BEHIND: ("↻", "bold yellow"),
    State.EQUAL: ("✓", "bold green"),
    State.WRONG: ("✗", "bold red"),
}
"""A sign too: not by colour alone."""
_MAX_LINE: Final = 200
"""Columns of the badge and of a note, in one line or several."""
_MAX_VALUE: Final = 24
"""Characters of the value of an alert: any number fits."""
_ROW_SHARE: Final = 1 / 5
"""Of the width, at most for the rows of alerts."""
_MAX_STATE: Final = 16
"""Characters: a longer state of a process has a line of its own."""
_BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Sparkline:
    """Draws the latest values, as many as there are columns."""

    values: Sequence[float | None]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(sparkline(self.values[-options.max_width :]), style="cyan", no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


def sparkline(values: Sequence[float | None]) -> str:
    """Return a bar for each value, from 0 to the greatest one; an unknown value is a gap.

    >>> sparkline([0, 5, None, 10]), sparkline([0, 0]), sparkline([])
    ('▁▅ █', '▁▁', '')
    """
    highest = max((value for value in values if value is not None), default=0) or 1
    return "".join(" " if value is None else _BARS[round(value / highest * (len(_BARS) - 1))] for value in values)


def title(page_url: str) -> Text:
    """Return the name of the project, and where its page is."""
    return Text.assemble(("streaming analytics", "bold"), f"   {page_url}")


def badge(verdict: Verdict) -> Text:
    """Return the line that says whether everything sent is in the lake and in the index."""
    sign, style = _BADGES[verdict.state]
    text = Text(f"{sign} {escape_controls(verdict.text)}", style=style)
    text.truncate(_MAX_LINE, overflow="ellipsis")
    return text


def trends(points: Sequence[Point], *, is_narrow: bool) -> Table:
    """Return rate and latency with their course, and the latency's percentiles, in a line of their own if narrow."""
    rates, latencies = ([*map(attrgetter(field), points)] or [None] for field in ("rate", "latency"))
    known = [latency for latency in latencies if latency is not None]
    percentiles = "   ".join(
        f"{name} {format_decimal(percentile(known, share), 2, ' s')}" for name, share in (("p50", 0.5), ("p95", 0.95))
    )
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    # As wide as the usual values, so that the lines keep their places.
    table.add_column(no_wrap=True, justify="right", min_width=9)
    table.add_column(no_wrap=True, ratio=1)
    table.add_column(no_wrap=True)
    table.add_row("rate", format_decimal(rates[-1], 1, "/s"), Sparkline(rates), "")
    is_lower_bound = bool(points) and points[-1].is_latency_lower_bound
    latency = format_latency(latencies[-1], 2, is_lower_bound=is_lower_bound)
    beside, below = ("", percentiles) if is_narrow else (percentiles, None)
    table.add_row("latency", latency, Sparkline(latencies), beside)
    if below:
        table.add_row("", "", below, "")
    return table


def progress(stages: Sequence[Stage], dead_letters: int | None) -> Table:
    """Return rows, rate and lag of each stage."""
    table = _table()
    table.add_column("stage", no_wrap=True)
    for name in ("rows", "per second", "lag"):
        table.add_column(name, justify="right", no_wrap=True)
    for n, stage in enumerate(stages):
        # The first stage has no lag: no stage precedes it.
        lag = format_count(stage.lag) if n else ""
        table.add_row(stage.name, format_count(stage.rows), format_count(stage.rate), lag)
    table.add_row("dead letters", format_count(dead_letters), "", "")
    return table


def indices(documents: Mapping[str, int]) -> Table:
    """Return the number of documents of each index but that of the alerts."""
    table = _table()
    table.add_column("index", no_wrap=True, ratio=1)
    table.add_column("documents", no_wrap=True, justify="right")
    for index, count in documents.items():
        if index != ALERTS:
            table.add_row(_as_text(index), format_count(count))
    return table


def processes(parts: Sequence[Part]) -> Table:
    """Return health, memory and uptime of each process."""
    table = _table()
    table.add_column("process", no_wrap=True)
    table.add_column("health", no_wrap=True)
    for name in ("memory", "up"):
        table.add_column(name, no_wrap=True, justify="right")
    for part in parts:
        state = "see below" if _is_long(part) else escape_controls(part.state)
        style = {OK: "green", HAS_ENDED: ""}.get(part.state, "bold red")
        memory = UNKNOWN if part.memory is None else format_bytes(part.memory)
        uptime = UNKNOWN if part.uptime is None else duration_text(part.uptime)
        table.add_row(part.name, Text(state, style=style), memory, uptime)
    return table


def problems(parts: Sequence[Part]) -> Text:
    """Return the states that are too long for the table of the processes, a line each."""
    return Text("\n").join(
        Text.assemble((f"{part.name}: ", "red"), escape_controls(part.state)) for part in parts if _is_long(part)
    )


def _is_long(part: Part) -> bool:
    return len(part.state) > _MAX_STATE


def alerts(snapshot: Snapshot, width: int) -> Table:
    """Return the number of alerts, and the latest ones, for a width in columns."""
    total = format_count(snapshot.documents.get(ALERTS))
    table = _table(f"alerts: {format_count(snapshot.firing)} firing, {total} in total")
    # In a narrow terminal, the names of rules and rows are truncated, and nothing else.
    table.add_column("fired", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("rule", no_wrap=True, ratio=1)
    table.add_column("row", no_wrap=True, max_width=math.ceil(width * _ROW_SHARE))
    table.add_column("value", no_wrap=True, max_width=_MAX_VALUE)
    for alert in snapshot.alerts:
        style = "red" if alert["status"] == FIRING else "green"
        fired = _as_text(str(alert["fired_at"])[11:19])
        status = Text(escape_controls(str(alert["status"])), style=style)
        rule, condition = (str(alert[name]) for name in ("rule", "alert_text"))
        # The name of a rule without one is its condition, behind that of the table.
        named = condition if condition in rule else rule
        table.add_row(fired, status, _as_text(named), _as_text(alert["id"]), _as_text(alert["value"]))
    if not snapshot.alerts:
        known = "none yet" if snapshot.firing is not None else "Elasticsearch does not answer"
        table.add_row(UNKNOWN, "", known, "", "")
    return table


def addresses(named: Mapping[str, str]) -> Table:
    """Return where everything is."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, address in named.items():
        table.add_row(name, _as_text(address))
    return table


def note(text: str) -> Text:
    """Return what came of a key."""
    shown = Text(escape_controls(text), style="italic")
    shown.truncate(_MAX_LINE, overflow="ellipsis")
    return shown


def keys(labels: Mapping[str, str]) -> Text:
    """Return the keys with what they do."""
    if not labels:
        return Text("Ctrl-C stops")
    return Text("  ").join(Text.assemble((key, "bold reverse"), f" {label}") for key, label in labels.items())


def _table(title: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        expand=True,
        box=None,
        pad_edge=False,
    )


def _as_text(value: object) -> Text:
    """Return text from records without markup and control characters."""
    return Text(escape_controls(str(value)))
