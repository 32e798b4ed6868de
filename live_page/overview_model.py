"""What the overview shows, computed once for all browsers."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean
from typing import Any, Final

from nicegui.json import dumps

from contract.declared import PIPELINE
from live_page.charts import (
    Marks,
    TimePoints,
    bar_options,
    fill_bars,
    in_buckets,
    line_options,
)
from live_page.formatting import UNKNOWN, format_name, format_text, format_time
from live_page.pages.alert_rows import alert_row
from live_page.pages.tiles import TileText, tile_texts
from live_page.pipeline_model import PipelineModel, pipeline_model
from observer.latency import HISTORY_SECONDS
from observer.processes import Death, ProcessList
from observer.reading_history import Point, Reading, ReadingHistory, percentile

EVENTS: Final = format_name(PIPELINE.event.name).capitalize()
SPANS: Final = {"1 min": (60.0, 1.0), "5 min": (300.0, 2.0), "30 min": (HISTORY_SECONDS, 12.0)}
"""Seconds that the charts over time show, and those that a point of them stands for."""
RATE_LABEL: Final = f"{EVENTS.lower()} per second, in Kafka"
LATENCY_LABEL: Final = "seconds from a record's arrival in Kafka until the indices count it"
_LATENCY_UNIT: Final = " s"
_SHORTEST_SPAN: Final = 60.0
_LISTED_DEATHS: Final = 8
_READ_PROCESSES_EVERY: Final = 0.5
"""Seconds."""


class Overview:
    """The overview as of a reading; each part is computed when a browser first needs it."""

    def __init__(self, history: ReadingHistory, reading: Reading, listed: ProcessList, topic: str) -> None:
        self._history = history
        self._topic = topic
        self._drawings: dict[tuple[str, str], str] = {}
        self.reading: Final = reading
        self.listed: Final = listed
        """The processes of the local stack."""

    @cached_property
    def pipeline(self) -> PipelineModel:
        """The diagram."""
        return pipeline_model(self._history, self._topic)

    @cached_property
    def tiles(self) -> Sequence[TileText]:
        """The tiles, in their order."""
        return tile_texts(self._history)

    @cached_property
    def deaths(self) -> Sequence[dict[str, Any]]:
        """The rows of the latest deaths, the last one first."""
        return [_death_row(death) for death in self.listed.deaths[: -_LISTED_DEATHS - 1 : -1]]

    @cached_property
    def alerts(self) -> Sequence[dict[str, Any]]:
        """The rows of the latest alerts; those that fire have lasted until now."""
        return [alert_row(alert, is_short=True) for alert in self.reading.snapshot.alerts]

    @cached_property
    def totals(self) -> str:
        """The chart of the events by a choice, as JSON."""
        by = PIPELINE.overview.by
        assert by is not None
        options = bar_options(by.choices, totals_title().lower())
        totals = self.reading.snapshot.totals
        fill_bars(options, by.choices, [totals.get(value, 0) for value in by.choices])
        return dumps(options)

    def rate(self, span: str) -> str:
        """Return the chart of the rate over one of the `SPANS`, as JSON."""
        return self._drawing("rate", span, self._rate)

    def latency(self, span: str) -> str:
        """Return the chart of the latency over one of the `SPANS`, as JSON."""
        return self._drawing("latency", span, self._latency)

    def _drawing(self, name: str, span: str, options: Callable[[Sequence[Point], float], Any]) -> str:
        if (name, span) not in self._drawings:
            seconds, seconds_of_a_point = SPANS[span]
            points = self._history.points(seconds)
            self._drawings[name, span] = dumps(options(points, seconds_of_a_point))
        return self._drawings[name, span]

    def _rate(self, points: Sequence[Point], seconds_of_a_point: float) -> dict[str, Any]:
        rates = in_buckets(_values(points, lambda point: point.rate, 1), seconds_of_a_point, _mean)
        return line_options(RATE_LABEL, rates, self._marks, name="per second", span=_bounds(points))

    def _latency(self, points: Sequence[Point], seconds_of_a_point: float) -> dict[str, Any]:
        latencies = _values(points, lambda point: point.latency, 2)
        known = [seconds for _, seconds in latencies if seconds is not None]
        levels = {"p50": percentile(known, 0.5), "p95": percentile(known, 0.95)}
        highest = in_buckets(latencies, seconds_of_a_point, max)
        return line_options(
            LATENCY_LABEL,
            highest,
            self._marks,
            name="latency in s",
            unit=_LATENCY_UNIT,
            levels=levels,
            span=_bounds(points),
        )

    @cached_property
    def _marks(self) -> Marks:
        """The moments at which processes died, each with how long it took until they were ready again."""
        return [(death.at, f"{death.name}\n{_recovery(death)}") for death in self.listed.deaths]


class LatestOverview:
    """The overview of the latest reading, which all browsers share until there is a newer one."""

    def __init__(self, history: ReadingHistory, read_processes: Callable[[], ProcessList], topic: str) -> None:
        """Create it; `topic` is the name of the topic of events."""
        self._history = history
        self._read_processes = read_processes
        self._topic = topic
        self._read_at = float("-inf")
        self._current: Overview | None = None

    def get(self) -> Overview:
        """Return it."""
        reading, listed = self._history.latest, self._listed()
        current = self._current
        if current is None or current.reading is not reading or current.listed != listed:
            self._current = current = Overview(self._history, reading, listed, self._topic)
        return current

    def _listed(self) -> ProcessList:
        now = time.monotonic()
        if self._current is not None and now - self._read_at < _READ_PROCESSES_EVERY:
            return self._current.listed
        self._read_at = now
        return self._read_processes()


def totals_title() -> str:
    """Return the title of the chart of the events by a choice."""
    by = PIPELINE.overview.by
    assert by is not None
    return f"{EVENTS} by {format_name(by.name.split('_')[-1])}"


def _bounds(points: Sequence[Point]) -> tuple[float, float] | None:
    """Return the times of an axis: of the whole span, or from the first figure if there are less."""
    if not points:
        return None
    last = points[-1].at
    return min(points[0].at, last - _SHORTEST_SPAN), last


def _mean(values: Sequence[float]) -> float:
    return round(fmean(values), 1)


def _values(points: Sequence[Point], value_of: Callable[[Point], float | None], places: int) -> TimePoints:
    values = [(point.at, value_of(point)) for point in points]
    return [(at, None if value is None else round(value, places)) for at, value in values]


def _death_row(death: Death) -> dict[str, Any]:
    return {
        "key": f"{death.at} {death.name}",
        "at": format_time(datetime.fromtimestamp(death.at, UTC)),
        "name": death.name,
        "ready": UNKNOWN if death.seconds is None else f"{death.seconds:.1f} s",
        "reason": format_text(death.reason, 1_000),
    }


def _recovery(death: Death) -> str:
    return "not ready yet" if death.seconds is None else f"ready again after {death.seconds:.1f} s"
