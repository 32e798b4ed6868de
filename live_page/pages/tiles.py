"""The tiles of the overview: a figure each, with its last minute as a line, and its change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final

from nicegui import ui

from contract.declared import PIPELINE
from live_page.charts import in_buckets, sparkline
from live_page.formatting import UNKNOWN, format_count, format_decimal, format_latency, format_name, format_time
from observer.latency import HISTORY_SECONDS
from observer.reading_history import Point, ReadingHistory

_MINUTE: Final = 60.0
_NEAR: Final = 5.0
"""Seconds by which a reading may differ from the one a minute before."""
_WAITS: Final = "waits and is not counted yet"
"""Instead of the change of a latency that is the age of a record."""
_STEP: Final = 2.0
"""Seconds that a point of a line stands for."""


@dataclass(frozen=True)
class _Figure:
    title: str
    field: str
    """That of `Point`."""
    format: Callable[[Any], str]
    from_zero: bool = True
    """Whether its line begins at 0: that of what only grows would be flat."""
    format_point: Callable[[Point], str] | None = None
    """Formats that of a point, if its value does not say all."""

    def text(self, point: Point) -> str:
        """Return that of a point to be read."""
        return self.format_point(point) if self.format_point else self.format(getattr(point, self.field))


def show_tiles(history: ReadingHistory) -> Callable[[], None]:
    """Build the tiles; returns the function that shows the latest figures."""
    with ui.element("div").classes("grid grid-cols-2 sm:grid-cols-3 lg:grid-cols-6 gap-3 lg:gap-2 w-full"):
        tiles = [_Tile(figure) for figure in _figures()]

    def update() -> None:
        points, half_hour = history.points(_MINUTE + _NEAR), history.points(HISTORY_SECONDS)
        for tile in tiles:
            tile.update(points, half_hour)

    return update


def _figures() -> list[_Figure]:
    events = format_name(PIPELINE.event.name).capitalize()
    figures = [
        _Figure(f"{events} per second", "rate", format_decimal),
        _Figure(f"{events} counted", "indexed", format_count, from_zero=False),
        _Figure("Alerts firing", "firing", format_count),
        _Figure(
            "Latency",
            "latency",
            format_latency,
            format_point=lambda point: format_latency(point.latency, is_lower_bound=point.is_latency_lower_bound),
        ),
        _Figure("Dead letters", "dead_letters", format_count),
    ]
    if PIPELINE.overview.mean is not None:
        title = PIPELINE.overview.mean_title or format_name(PIPELINE.overview.mean.name).capitalize()
        figures.append(_Figure(title, "mean", lambda mean: format_decimal(mean, 2), from_zero=False))
    return figures


class _Tile:
    def __init__(self, figure: _Figure) -> None:
        self._figure = figure
        with ui.card().classes("tile p-3 gap-0 min-w-0").props("flat bordered") as self._card:
            with ui.row().classes("w-full items-center no-wrap gap-2"):
                self._value = ui.label(UNKNOWN).classes("text-2xl font-semibold tabular-nums whitespace-nowrap")
                self._value.props(f'data-tile="{figure.title}"')
                drawing = ui.element("svg").props('viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true"')
                with drawing:
                    self._line = ui.element("path")
            ui.label(figure.title).classes("text-sm")
            self._change = ui.label().classes("text-sm opacity-75 tabular-nums min-h-5 truncate w-full")
            self._change.props(f'data-change="{figure.title}"')

    def update(self, points: Sequence[Point], half_hour: Sequence[Point]) -> None:
        """Show the last minute of points; if a value is unknown now, the last one of half an hour with its time."""
        value_of, format_ = attrgetter(self._figure.field), self._figure.format
        shown = [point for point in points if points[-1].at - point.at <= _MINUTE]
        current = value_of(shown[-1]) if shown else None
        if self._figure.field == "latency" and shown and shown[-1].is_latency_lower_bound:
            change = _WAITS
        elif current is not None:
            change = change_text(current, minute_before(points, value_of), format_)
        else:
            last = next((point for point in reversed(half_hour) if value_of(point) is not None), None)
            change = f"{self._figure.text(last)} as of {_time(last)}" if last else ""
        self._value.set_text(self._figure.text(shown[-1]) if shown else UNKNOWN)
        self._change.set_text(change)
        self._card.classes(**{"add" if shown and current is None else "remove": "stale"})
        values = in_buckets([(point.at, value_of(point)) for point in shown], _STEP, _last)
        drawing = sparkline(values, _MINUTE, from_zero=self._figure.from_zero)
        if self._line.props.get("d") != drawing:
            self._line.props["d"] = drawing


def _time(point: Point) -> str:
    return format_time(datetime.fromtimestamp(point.at, UTC))


def minute_before(points: Sequence[Point], value_of: Callable[[Point], float | None]) -> float | None:
    """Return the value that was known a minute before the last point, give or take 5 seconds."""
    known = [(abs(points[-1].at - point.at - _MINUTE), value_of(point)) for point in points]
    near = [(distance, value) for distance, value in known if value is not None and distance <= _NEAR]
    return min(near)[1] if near else None


def change_text(current: float, before: float | None, format_: Callable[[Any], str]) -> str:
    """Return by how much a value has changed in a minute, or nothing if that is unknown.

    >>> [change_text(2.0, before, format_decimal) for before in (0.5, 2.04, 3.0, None)]
    ['+1.5 in 1 min', 'no change in 1 min', '−1.0 in 1 min', '']
    """
    if before is None:
        return ""
    change = format_(abs(current - before))
    if change == format_(type(current)(0)):
        return "no change in 1 min"
    return f"{'+' if current > before else '−'}{change} in 1 min"


def _last(values: Sequence[float]) -> float:
    return values[-1]
