"""Charts of the pages: bars, lines and stacked bars."""

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, Final

from nicegui import ui
from nicegui.json import dumps

from live_page.formatting import chart_value, format_compact, format_text
from observer.reading_history import percentile

_COLOURS: Final = ("#2b83c6", "#d9822b", "#159a72", "#c06fa5", "#b8a01c", "#5e6fd0", "#8a8f98", "#c64a3a")
"""Distinct with any colour vision (after Okabe and Ito), on a light and a dark background."""
_THRESHOLD_COLOUR: Final = _COLOURS[7]
_INK: Final = "#80868f"
"""Colour of axes. No colour of text is readable on both backgrounds: the style sheet overrides that."""
_MARKS_WITH_TEXT: Final = 12
"""This many marks with a text fit beside each other into a chart over time."""
_TEXTS_ABOVE: Final = 2
"""This many texts are beside each other above a chart: they are cut at a width that fits on a phone too."""
_TEXT_ABOVE_WIDTH: Final = 136
"""Pixels."""
_DISTINCT_BARS: Final = 4
"""Up to this many bars have a colour each."""
_SHORT: Final = 24
"""Names of up to so many characters have a place below so few bars, in several lines."""
_BROKEN_WIDTH: Final = 288
"""Pixels for all of them, which a phone has."""
_BROKEN_LABELS: Final[Mapping[str, Any]] = {
    # As default it is the width of a character that the font may lack.
    "lineHeight": 14,
    "overflow": "break",
    "hideOverlap": False,
    ":formatter": "each => each.length > 9 && !each.includes(' ') ? each.replaceAll('_', '_\\n') : each",
}
"""Each of them is shown, also on a phone."""
_TRUNCATED_LABELS: Final[Mapping[str, Any]] = {
    "width": 128,
    "overflow": "truncate",
    "hideOverlap": True,
    # Wide bounds of a bucket have a line each: at the ends of an axis there is little room.
    ":formatter": r"each => each.length > 9 ? each.replace(/^([\d.,]+–)(?=[\d.,]+$)/, '$1\n') : each",
    "lineHeight": 14,
}
_OUTLIERS: Final = 0.05
"""This share of the values does not stretch an axis."""
_FAR_OUT: Final = 1.5
"""Outliers do if they are within this many times the axis that the other values need."""
_MARKED_OUTLIERS: Final = 3
_OUTLIERS_WITH_TEXT: Final = 5
"""This many of their texts fit beside each other, also on a phone."""
_TOP_MARGIN: Final = 16
_TEXTS_MARGIN: Final = 36
_LEGEND_MARGIN: Final = 36
_LEGEND_AND_TEXTS_MARGIN: Final = 48
"""Pixels above the axes: without texts of marks, and with them."""
_OUTLIER: Final[Mapping[str, Any]] = {
    "symbol": "triangle",
    "symbolSize": 9,
    "symbolOffset": [0, 5],
    "silent": True,
    "itemStyle": {"color": _THRESHOLD_COLOUR},
    "label": {"position": "right", "color": _INK, "fontSize": 11, "formatter": "{b}"},
}
_TIME_MARGIN: Final = 28
"""Pixels to the right of an axis: half of the text of a time at its end."""
_STEPS: Final = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12)
"""Upper bounds that an axis divides well, times a power of ten."""

_LABEL: Final = "each => Number(each.value) ? Number(each.value).toLocaleString('en-US', {notation: 'compact'}) : ''"

Options = dict[str, Any]
"""Options of ECharts."""
TimePoints = Sequence[tuple[float, float | None]]
"""Values over time, in seconds since the epoch; None: unknown."""
Marks = Sequence[tuple[float, str]]
"""Moments to mark in a chart over time (seconds since the epoch), each with a text."""


class Chart(
    ui.echart,
    component="chart.js",
    esm={"nicegui-echart-component": str(Path(inspect.getfile(ui.echart)).parent)},
):
    """A chart that can be removed before it is drawn; NiceGUI's own raises an error in the browser then.

    Its options are sent as text. As a dict, NiceGUI would observe each of their values, and its socket would look for
    bytes in each of them, once a second and for each browser.
    """

    def __init__(self, options: Options, label: str, *, group: str = "") -> None:
        # The style sheet colours the text of an SVG.
        super().__init__({}, renderer="svg")
        del self.props["options"]
        self._drawn = options
        self.props["drawing"] = dumps(options)
        self.props["group"] = group
        self.classes("w-full h-56").props('role="img"')
        # Set as a value, since it may hold an id from a record.
        self.props["aria-label"] = label

    @property
    def options(self) -> Options:
        """The options; `redraw` shows what was changed in them."""
        return self._drawn

    def remove_values(self) -> None:
        """Remove all values and names; what fills the chart sets them again."""
        for series in self._drawn["series"]:
            series["data"] = []
            for mark in ("markLine", "markPoint"):
                series.pop(mark, None)
        for axis in (self._drawn["xAxis"], self._drawn["yAxis"]):
            if "data" in axis:
                axis["data"] = []
        self.redraw()

    def redraw(self) -> None:
        """Show the current options."""
        self.draw(dumps(self._drawn))

    def show(self, options: Options) -> None:
        """Show other options."""
        self._drawn = options
        self.redraw()

    def draw(self, drawing: str) -> None:
        """Show options as JSON; they are sent if they differ from those shown."""
        if self.props["drawing"] != drawing:
            self.props["drawing"] = drawing


def bar_chart(names: Sequence[str], label: str, *, horizontal: bool = False) -> Chart:
    """Create a bar chart with one bar per name; `update_bars` fills it."""
    return Chart(bar_options(names, label, horizontal=horizontal), label)


def bar_options(names: Sequence[str], label: str, *, horizontal: bool = False) -> Options:
    """Return the options of a bar chart; `fill_bars` fills them."""
    # Truncates longer names: the tooltip has the whole.
    axis = {"color": _INK, "width": 160 if horizontal else 128, "overflow": "truncate", "hideOverlap": True}
    category: dict[str, Any] = {"type": "category", "data": list(names), "axisLabel": axis}
    value: dict[str, Any] = _value_axis()
    if horizontal:
        category["inverse"] = True
    options = _options(label)
    options["xAxis"], options["yAxis"] = (value, category) if horizontal else (category, value)
    options["series"] = [{"type": "bar", "data": [], "barMaxWidth": 48, "name": label}]
    return options


def update_bars(
    chart: Chart,
    names: Sequence[str],
    values: Sequence[float],
    threshold: float | None = None,
    *,
    has_labels: bool = False,
) -> None:
    """Show one bar per name and a threshold line, which is within the axis whatever the values.

    With `has_labels` each value but 0 is above its bar, which may be too low to be seen.
    """
    fill_bars(chart.options, names, values, threshold, has_labels=has_labels)
    chart.redraw()


def fill_bars(
    options: Options,
    names: Sequence[str],
    values: Sequence[float],
    threshold: float | None = None,
    *,
    has_labels: bool = False,
) -> None:
    """Set the values of `bar_options`, as `update_bars` does."""
    is_horizontal = options["yAxis"]["type"] == "category"
    axis, scale = (options[name] for name in (("yAxis", "xAxis") if is_horizontal else ("xAxis", "yAxis")))
    shown = [format_text(name) for name in names]
    data = [
        {
            "value": chart_value(value),
            "itemStyle": {"color": _COLOURS[n % len(_COLOURS)] if len(names) <= _DISTINCT_BARS else _COLOURS[0]},
        }
        for n, value in enumerate(values)
    ]
    series = options["series"][0]
    mark_line = None if threshold is None else _mark_line(threshold, is_horizontal)
    axis["data"] = shown
    # ECharts leaves out labels that would fit.
    axis["axisLabel"]["interval"] = 0 if len(names) <= _DISTINCT_BARS else "auto"
    if not is_horizontal:
        is_broken = len(names) <= _DISTINCT_BARS and all(len(name) <= _SHORT for name in shown)
        width = _BROKEN_WIDTH // max(1, len(names))
        axis["axisLabel"] |= {**_BROKEN_LABELS, "width": width} if is_broken else _TRUNCATED_LABELS
    series["data"] = data
    if has_labels:
        series["label"] = {"show": True, "position": "top", "color": _INK, "fontSize": 11, ":formatter": _LABEL}
        series["labelLayout"] = {"hideOverlap": True}
    series.pop("markLine", None)
    for bound in ("min", "max"):
        scale.pop(bound, None)
    # No half rows.
    scale["minInterval"] = 1 if all(isinstance(value, int) for value in values) else 0
    # Half of the number at the end of the axis.
    options["grid"]["right"] = _TIME_MARGIN if is_horizontal else 16
    if threshold is not None:
        series["markLine"] = mark_line
        options["grid"]["right"] = 110
        scale.update(axis_bounds(values, threshold))


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


def line_options(
    label: str,
    points: TimePoints,
    marks: Marks = (),
    *,
    name: str = "",
    unit: str = "",
    levels: Mapping[str, float | None] | None = None,
    span: tuple[float, float] | None = None,
) -> Options:
    """Return the options of a chart of one line over time (UTC); None leaves a gap.

    Args:
        label: what the chart shows, for who does not see it.
        points: the values.
        marks: moments to mark.
        name: what the crosshair calls the line, if not by the label.
        unit: what is behind a value.
        levels: values to mark by a line each, the lowest first, by name.
        span: the times of the axis (seconds since the epoch); as default those of the values.
    """
    begin, end = span or ((points[0][0], points[-1][0]) if points else (0.0, 0.0))
    times = [round(at * 1000) for at in (begin, end)]
    bound = clipped_bound([value for _, value in points if value is not None])
    outliers = _outlier_marks(points, bound, unit, begin, end)
    shown = [mark for mark in marks if times[0] <= mark[0] * 1000 <= times[1]]
    lines = _lines_below_texts(shown, times)
    lines["data"] += _horizontal_lines(levels or {}, unit, _place_of_levels(outliers, begin, end))
    style = {"color": _COLOURS[0], "width": 2}
    options = _options(label)
    options["grid"] |= {"right": _TIME_MARGIN, "top": _TEXTS_MARGIN if shown else _TOP_MARGIN}
    options["xAxis"] = _time_axis() | (dict(zip(("min", "max"), times, strict=True)) if span else {})
    # None replaces an earlier bound.
    options["yAxis"] = _value_axis(unit) | {"max": bound}
    options["tooltip"]["axisPointer"] = {"type": "line", "lineStyle": {"color": _INK, "width": 1.5, "type": "solid"}}
    options["series"] = [
        {
            "type": "line",
            "name": name or label,
            "data": [[round(at * 1000), value] for at, value in points],
            "showSymbol": False,
            "lineStyle": style,
            "itemStyle": style,
            "markPoint": {**_OUTLIER, "data": list(outliers.values())},
            "markLine": lines,
        }
    ]
    return options


def clipped_bound(values: Sequence[float]) -> float | None:
    """Return the upper bound of an axis that a few outliers would stretch too far; None: it needs none.

    >>> clipped_bound([3.0, *[0.5] * 40]), clipped_bound([0.8, *[0.5] * 40]), clipped_bound([3.0] * 4 + [0.5] * 40)
    (0.6, None, None)
    """
    usual = percentile(values, 1 - _OUTLIERS) or 0
    if usual <= 0:
        return None
    power = 10 ** math.floor(math.log10(usual))
    bound = next(round(step * power, 9) for step in _STEPS if step * power >= usual * 1.05)
    return bound if max(values) > _FAR_OUT * bound else None


def sparkline(points: TimePoints, seconds: float, *, from_zero: bool) -> str:
    """Return values as the path of an SVG of 100 by 20, with the last so many seconds from left to right.

    It spans the values, and 0 too with `from_zero`; an unknown value is a gap.

    >>> sparkline([(0, 5), (30, 10), (45, None), (60, 0)], 60, from_zero=True)
    'M0 10L50 0M100 20'
    """
    known = [value for _, value in points if value is not None]
    if not known:
        return ""
    lowest, highest = min(0, *known) if from_zero else min(known), max(known)
    path, pen = "", "M"
    for at, value in points:
        if value is None:
            pen = "M"
            continue
        x = 100 + (at - points[-1][0]) * 100 / seconds
        y = 20 * (highest - value) / (highest - lowest) if highest > lowest else 10
        path, pen = f"{path}{pen}{x:.0f} {y:.0f}", "L"
    return path


def in_buckets(points: TimePoints, seconds: float, combine: Callable[[Sequence[float]], float]) -> TimePoints:
    """Combine the values of each so many seconds, which begin at a multiple of them.

    >>> in_buckets([(10.0, 1), (11.0, 3), (12.5, None), (14.0, 5)], 2, max)
    [(10.0, 3), (12.0, None), (14.0, 5)]
    """
    buckets: dict[float, list[float]] = defaultdict(list)
    for at, value in points:
        # The bucket exists also if nothing is known.
        bucket = buckets[at // seconds * seconds]
        if value is not None:
            bucket.append(value)
    return [(at, combine(values) if values else None) for at, values in buckets.items()]


def stacked_chart(label: str) -> Chart:
    """Create a chart of stacked bars over time (UTC); `update_stacked` fills it."""
    options = _options(label)
    options["xAxis"] = _time_axis()
    options["grid"]["right"] = _TIME_MARGIN
    options["yAxis"] = _value_axis() | {"minInterval": 1}
    options["legend"] = {"type": "scroll", "top": 0, "textStyle": {"color": _INK, "width": 240, "overflow": "truncate"}}
    options["grid"]["top"] = _LEGEND_MARGIN
    options["series"] = []
    return Chart(options, label)


def update_stacked(
    chart: Chart,
    values: Mapping[str, Sequence[tuple[int, float | None]]],
    marks: Marks = (),
    *,
    has_texts_above: bool = False,
) -> None:
    """Show values over time (milliseconds since the epoch) per name; None leaves a gap.

    With `has_texts_above` the texts of the marks are above the bars, otherwise along the lines.
    """
    chart.options["series"] = series = [
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
    chart.options["grid"]["top"] = _LEGEND_AND_TEXTS_MARGIN if has_texts_above and marks else _LEGEND_MARGIN
    if series:
        times = [at for points in values.values() for at, _ in points]
        series[0]["markLine"] = _lines_below_texts(marks, times) if has_texts_above else _vertical_lines(marks, times)
    chart.redraw()


def _options(label: str) -> Options:
    return {
        "animation": False,
        "useUTC": True,
        "aria": {"enabled": True, "label": {"description": label}, "decal": {"show": False}},
        "grid": {"left": 8, "right": 16, "top": _TOP_MARGIN, "bottom": 8, "containLabel": True},
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


def _place_of_levels(outliers: Collection[float], begin: float, end: float) -> str:
    """Return where the texts of levels are not over those of outliers, which begin at these times of the axis.

    >>> [_place_of_levels(texts, 0, 100) for texts in ([], [75.0], [75.0, 0.0])]
    ['End', 'Start', 'Middle']
    """
    room = (end - begin) / _OUTLIERS_WITH_TEXT
    starts = {"End": end - room, "Start": begin, "Middle": (begin + end - room) / 2}
    free = (name for name, start in starts.items() if all(abs(start - text) >= room for text in outliers))
    return next(free, "End")


def _horizontal_lines(levels: Mapping[str, float | None], unit: str, place: str) -> list[dict[str, Any]]:
    """Mark values. The text of the lowest is below its line if the next line is close, where texts would overlap."""
    known = [(name, value) for name, value in levels.items() if value is not None]
    are_close = len(known) > 1 and known[0][1] > known[1][1] / 2
    return [
        {
            "yAxis": value,
            "name": f"{name} {format_compact(value)}{unit}",
            "lineStyle": {"color": _COLOURS[1 + n % 2], "type": "solid", "width": 1.5},
            "label": {"position": f"inside{place}{'Bottom' if n == 0 and are_close else 'Top'}"},
        }
        for n, (name, value) in enumerate(known)
    ]


def _outlier_marks(
    points: TimePoints, bound: float | None, unit: str, begin: float, end: float
) -> dict[float, dict[str, Any]]:
    """Mark at the upper end of the axis where values are beyond it, with the highest of those that are adjacent.

    Of marks whose texts would overlap only the highest is drawn. The text is to the right of its mark, or to the left
    where the axis ends. Returns the marks by the time at which their texts begin.
    """
    limit = math.inf if bound is None else bound
    runs = groupby(((value or 0, at) for at, value in points), lambda each: each[0] > limit)
    beyond = [max(run) for is_beyond, run in runs if is_beyond]
    room = (end - begin) / _OUTLIERS_WITH_TEXT
    marks: dict[float, dict[str, Any]] = {}
    for value, at in sorted(beyond, reverse=True):
        is_last = at + room > end
        text_from = at - room if is_last else at
        if len(marks) == _MARKED_OUTLIERS or any(abs(text_from - other) < room for other in marks):
            continue
        mark = {"coord": [round(at * 1000), bound], "name": f"↑ {format_compact(value)}{unit}"}
        marks[text_from] = mark | ({"label": {"position": "left"}} if is_last else {})
    return marks


def _mark_line(at: float, is_horizontal: bool) -> dict[str, Any]:
    style = {"color": _THRESHOLD_COLOUR, "type": "dashed", "width": 2}
    label = {"formatter": f"threshold {format_compact(at)}", "color": _INK, "position": "end"}
    position = {"xAxis": at} if is_horizontal else {"yAxis": at}
    return {"symbol": "none", "silent": True, "lineStyle": style, "label": label, "data": [position]}


def _lines_below_texts(marks: Marks, times: Sequence[int]) -> dict[str, Any]:
    """Mark moments as `_vertical_lines` does, with texts above the chart.

    A text is to the right of its line, or to the left where the axis ends. Of lines that are close to each other the
    last one has its text, the others have a ▲, unless the text is there.
    """
    lines = _vertical_lines(marks, times)
    begin, end = (min(times), max(times)) if times else (0, 0)
    width = (end - begin) / _TEXTS_ABOVE
    taken_from = math.inf
    for line in reversed(lines["data"]):
        at = line["xAxis"]
        if at + width <= min(end, taken_from):
            line["label"], taken_from = {"align": "left"}, at
        elif at <= taken_from and at - width >= begin:
            line["label"], taken_from = {"align": "right"}, at - width
        else:
            line["label"] = {"formatter": "▲"} if at <= taken_from else {"show": False}
    lines["label"] |= {"position": "end", "width": _TEXT_ABOVE_WIDTH, "overflow": "truncate"}
    return lines


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
