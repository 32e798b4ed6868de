"""Charts of the pages: bars, lines and stacked bars."""

import inspect
import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from nicegui import ui

from live_page.formatting import chart_value, format_compact, format_text

_COLOURS: Final = ("#2b83c6", "#d9822b", "#159a72", "#c06fa5", "#b8a01c", "#5e6fd0", "#8a8f98", "#c64a3a")
"""Distinct with any colour vision (after Okabe and Ito), on a light and a dark background."""
_THRESHOLD_COLOUR: Final = _COLOURS[7]
_INK: Final = "#80868f"
"""Colour of axes. No colour of text is readable on both backgrounds: the style sheet overrides that."""
_MARKS_WITH_TEXT: Final = 12
"""This many marks with a text fit beside each other into a chart over time."""
_DISTINCT_BARS: Final = 4
"""Up to this many bars have a colour each."""


class Chart(
    ui.echart,
    component="chart.js",
    esm={"nicegui-echart-component": str(Path(inspect.getfile(ui.echart)).parent)},
):
    """A chart that can be removed before it is drawn; NiceGUI's own raises an error in the browser then."""


def bar_chart(names: Sequence[str], label: str, *, horizontal: bool = False) -> Chart:
    """Create a bar chart with one bar per name; `update_bars` fills it."""
    # Truncates longer names: the tooltip has the whole.
    axis = {"color": _INK, "width": 160 if horizontal else 110, "overflow": "truncate", "hideOverlap": True}
    category: dict[str, Any] = {"type": "category", "data": list(names), "axisLabel": axis}
    value: dict[str, Any] = _value_axis()
    if horizontal:
        category["inverse"] = True
    options = _options(label)
    options["xAxis"], options["yAxis"] = (value, category) if horizontal else (category, value)
    options["series"] = [{"type": "bar", "data": [], "barMaxWidth": 48, "name": label}]
    return _create(options, label)


def update_bars(chart: Chart, names: Sequence[str], values: Sequence[float], threshold: float | None = None) -> None:
    """Show one bar per name and a threshold line, which is within the axis whatever the values."""
    is_horizontal = chart.options["yAxis"]["type"] == "category"
    axis, scale = (chart.options[name] for name in (("yAxis", "xAxis") if is_horizontal else ("xAxis", "yAxis")))
    shown = [format_text(name) for name in names]
    data = [
        {
            "value": chart_value(value),
            "itemStyle": {"color": _COLOURS[n % len(_COLOURS)] if len(names) <= _DISTINCT_BARS else _COLOURS[0]},
        }
        for n, value in enumerate(values)
    ]
    series = chart.options["series"][0]
    mark_line = None if threshold is None else _mark_line(threshold, is_horizontal)
    if (shown, data, mark_line) == (axis["data"], series["data"], series.get("markLine")):
        return
    axis["data"] = shown
    series["data"] = data
    series.pop("markLine", None)
    for bound in ("min", "max"):
        scale.pop(bound, None)
    chart.options["grid"]["right"] = 16
    if threshold is not None:
        series["markLine"] = mark_line
        chart.options["grid"]["right"] = 110
        scale.update(axis_bounds(values, threshold))
    chart.update()


def axis_bounds(values: Sequence[float], threshold: float) -> dict[str, float]:
    """Return the bounds that a bar chart's axis needs so that a threshold is within it.

    Without bounds, the axis spans 0 and the bars.

    >>> axis_bounds([100, 120], 40), axis_bounds([3, 7], 40), axis_bounds([-1], -3)
    ({}, {'max': 45.0}, {'min': -3.5})
    """
    if threshold >= max(0, *values, 0):
        return {"max": _round_up(threshold)}
    return {"min": -_round_up(-threshold)} if threshold <= min(0, *values, 0) else {}


def _round_up(number: float) -> float:
    """Round up to few digits and at least 5 % more, so that a line at the number is not at the edge."""
    if number <= 0:
        return 0.0
    step = 10 ** math.floor(math.log10(number)) / 2
    return float(math.ceil(number * 1.05 / step) * step)


def line_chart(label: str, unit: str = "") -> Chart:
    """Create a chart of one line over time (UTC); `update_line` fills it."""
    options = _options(label)
    options["xAxis"] = _time_axis()
    options["yAxis"] = _value_axis(unit)
    style = {"color": _COLOURS[0], "width": 2}
    options["series"] = [
        {"type": "line", "data": [], "showSymbol": False, "lineStyle": style, "itemStyle": style, "name": label}
    ]
    return _create(options, label)


Marks = Sequence[tuple[float, str]]
"""Moments to mark in a chart over time (seconds since the epoch), each with a text."""


def update_line(chart: Chart, points: Sequence[tuple[float, float | None]], marks: Marks = ()) -> None:
    """Show values over time (seconds since the epoch); None leaves a gap."""
    series = chart.options["series"][0]
    series["data"] = [[round(at * 1000), value] for at, value in points]
    series["markLine"] = _vertical_lines(marks, [at for at, _ in series["data"]])
    chart.update()


def stacked_chart(label: str) -> Chart:
    """Create a chart of stacked bars over time (UTC); `update_stacked` fills it."""
    options = _options(label)
    options["xAxis"] = _time_axis()
    options["yAxis"] = _value_axis() | {"minInterval": 1}
    options["legend"] = {"type": "scroll", "top": 0, "textStyle": {"color": _INK, "width": 240, "overflow": "truncate"}}
    options["grid"]["top"] = 36
    options["series"] = []
    return _create(options, label)


def update_stacked(chart: Chart, values: Mapping[str, Sequence[tuple[int, float | None]]], marks: Marks = ()) -> None:
    """Show values over time (milliseconds since the epoch) per name; None leaves a gap."""
    series = [
        {
            "type": "bar",
            "stack": "all",
            "name": format_text(name),
            "data": [[at, None if value is None else chart_value(value)] for at, value in points],
            "barMaxWidth": 16,
            "itemStyle": {"color": _COLOURS[n % len(_COLOURS)]},
        }
        for n, (name, points) in enumerate(values.items())
    ]
    if series:
        series[0]["markLine"] = _vertical_lines(marks, [at for points in values.values() for at, _ in points])
    if series != chart.options["series"]:
        chart.options["series"] = series
        chart.update()


def _create(options: dict[str, Any], label: str) -> Chart:
    # The style sheet colours the text of an SVG. The label is set as a value, since it may hold an id from a record.
    chart = Chart(options, renderer="svg").classes("w-full h-56").props('role="img"')
    chart.props["aria-label"] = label
    return chart


def _options(label: str) -> dict[str, Any]:
    return {
        "animation": False,
        "useUTC": True,
        "aria": {"enabled": True, "label": {"description": label}, "decal": {"show": False}},
        "grid": {"left": 8, "right": 16, "top": 16, "bottom": 8, "containLabel": True},
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "extraCssText": "max-width: 24rem; white-space: normal; overflow-wrap: anywhere;",
            # Numbers that JavaScript cannot represent exactly are text.
            ":valueFormatter": "value => typeof value === 'number' ? value.toLocaleString('en-US') : value ?? '–'",
        },
        "textStyle": {"color": _INK},
    }


def _time_axis() -> dict[str, Any]:
    return {"type": "time", "axisLabel": {"color": _INK, "hideOverlap": True}, "splitNumber": 4}


def _value_axis(unit: str = "") -> dict[str, Any]:
    label: dict[str, Any] = {"color": _INK, "hideOverlap": True}
    label[":formatter"] = f"value => value.toLocaleString('en-US') + {unit!r}"
    return {"type": "value", "axisLabel": label, "splitLine": {"lineStyle": {"color": _INK, "opacity": 0.25}}}


def _mark_line(at: float, is_horizontal: bool) -> dict[str, Any]:
    style = {"color": _THRESHOLD_COLOUR, "type": "dashed", "width": 2}
    label = {"formatter": f"threshold {format_compact(at)}", "color": _INK, "position": "end"}
    position = {"xAxis": at} if is_horizontal else {"yAxis": at}
    return {"symbol": "none", "silent": True, "lineStyle": style, "label": label, "data": [position]}


def _vertical_lines(marks: Marks, times: Sequence[int]) -> dict[str, Any]:
    """Mark moments of an axis with these times (milliseconds since the epoch); ECharts leaves out those beyond it."""
    ordered = sorted((round(at * 1000), format_text(text)) for at, text in marks)
    room = (max(times) - min(times)) / _MARKS_WITH_TEXT if times else 0
    following = [at for at, _ in ordered[1:]]
    return {
        "symbol": "none",
        "silent": True,
        "lineStyle": {"color": _THRESHOLD_COLOUR, "type": "dashed", "width": 1.5},
        "label": {"position": "insideEndTop", "color": _INK, "fontSize": 11, "lineHeight": 14, "formatter": "{b}"},
        "data": [
            # Of marks that are close together the last one has its text.
            {"xAxis": at, "name": text, "label": {"show": after is None or after - at >= room}}
            for (at, text), after in zip_longest(ordered, following)
        ],
    }
