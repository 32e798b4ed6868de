"""What the pages are built of: panels that renew themselves, tables and charts."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from nicegui import run, ui

from live_page.text import clock, drawable, short, visible
from live_page.unavailable import EmptyError, UnavailableError

T = TypeVar("T")

_COLOURS: Final = ("#2b83c6", "#d9822b", "#159a72", "#c06fa5", "#b8a01c", "#5e6fd0", "#8a8f98", "#c64a3a")
"""Told apart by those who see colours otherwise (after Okabe and Ito), on light and on dark ground."""
LINK: Final = "underline text-sky-800 dark:text-sky-300"
_INK: Final = "#80868f"
"""Lines of charts. No colour is readable as text on light and on dark ground: that of text is the style sheet's."""
NOT_ASKED: Final = "Not known yet"


class Chart(
    ui.echart,
    component="chart.js",
    esm={"nicegui-echart-component": str(Path(inspect.getfile(ui.echart)).parent)},
):
    """A chart that can be removed before it is drawn: NiceGUI's own raises an error in the browser then."""


class RecordTable(ui.table):
    """A table that tells an empty answer from no answer, and shows text of any length in cells of bounded size."""

    def __init__(self, columns: Sequence["Column"], empty: str, row_key: str, links: str = "") -> None:
        """`empty`: what to say where there are no rows; the cells of the column `links` lead to the row's `href`."""
        super().__init__(columns=[column.props for column in columns], rows=[], row_key=row_key)
        self._empty = empty
        self.props["no-data-label"] = NOT_ASKED
        # Plainly, without a sign of danger.
        self.add_slot("no-data", '<div class="w-full py-2 text-sm opacity-75">{{ props.message }}</div>')
        text = '<div class="cell" :title="props.value">{{ props.value }}</div>'
        self.add_slot("body-cell", f'<q-td :props="props">{text}</q-td>')
        if links:
            self.add_slot(
                f"body-cell-{links}",
                f'<q-td :props="props"><a v-if="props.row.href" :href="props.row.href" class="{LINK}">'
                f"{text}</a><template v-else>{text}</template></q-td>",
            )

    def set_known(self) -> None:
        """The rows are those that there are."""
        self._say(self._empty)

    def set_unknown(self, reason: str) -> None:
        """Nobody knows whether there are other rows now."""
        self._say(f"{NOT_ASKED}: {reason}")

    def set_empty(self, reason: str) -> None:
        """There are none, for a reason of its own."""
        self._say(reason)
        self.rows = []

    def _say(self, text: str) -> None:
        if self.props["no-data-label"] != text:
            self.props["no-data-label"] = text
            self.update()


class Panel:
    """A card with a title, whose content renews itself; what goes wrong is told beside the title."""

    def __init__(self, title: str) -> None:
        self._card = ui.card().classes("w-full min-w-0 gap-2 p-3 sm:p-4").props("flat bordered")
        with self._card, ui.row().classes("w-full items-baseline justify-between gap-x-3 gap-y-0 min-h-6"):
            heading = ui.label(title).classes("text-base font-semibold min-w-0 [overflow-wrap:anywhere]")
            heading.props('role="heading" aria-level="2"')
            self._note = ui.label().classes("text-sm text-orange-700 dark:text-orange-400").props('role="status"')
        self._renew: Callable[[], Any] | None = None
        self._known: datetime | None = None

    def __enter__(self) -> "Panel":
        self._card.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        self._card.__exit__(*args)

    def note(self, text: str) -> None:
        """Tell something beside the title."""
        self._note.set_text(text)

    def known(self) -> None:
        """What is shown is what there is."""
        self.note("")
        self._known = datetime.now(UTC)
        for each in self._tables():
            each.set_known()

    def unknown(self, reason: str) -> None:
        """What is shown, if anything, is what was known before."""
        self.note(f"{reason}. Shown is what was known at {clock(self._known)} UTC" if self._known else reason)
        for each in self._tables():
            each.set_unknown(reason)

    def _tables(self) -> list[RecordTable]:
        return [each for each in self._card.descendants() if isinstance(each, RecordTable)]

    def keep(self, read: Callable[[], T], show: Callable[[T], None], every: float = 1.0) -> None:
        """Show what is read, now and every so many seconds; `read` runs in a thread and may take its time."""

        async def renew() -> None:
            try:
                value = await run.io_bound(read)
            except UnavailableError as reason:
                self.unknown(str(reason))
                return
            except EmptyError as reason:
                self.note(str(reason))
                for each in self._tables():
                    each.set_empty(str(reason))
                return
            if value is not None:
                show(value)
                self.known()

        self._renew = renew
        with self._card:
            ui.timer(every, renew)

    async def renew(self) -> None:
        """Do so now, as somebody has asked for something else."""
        if self._renew is not None:
            await self._renew()


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    label: str
    is_number: bool = False
    is_minor: bool = False
    """Left out where the screen is narrow."""
    is_sortable: bool = False
    wraps: bool = False
    """Shown in several lines where it is long, and not cut at the end of the first."""

    @property
    def props(self) -> dict[str, Any]:
        """As the table wants it."""
        classes = "max-sm:hidden" if self.is_minor else ""
        return {
            "name": self.name,
            "label": self.label,
            "field": self.name,
            "align": "right" if self.is_number else "left",
            "sortable": self.is_sortable,
            "classes": f"{classes} tabular-nums {'wraps' if self.wraps else ''}",
            "headerClasses": classes,
        }


def table(
    columns: Sequence[Column], empty: str, *, row_key: str = "key", links: str = "", height: str = ""
) -> RecordTable:
    """A table of which nothing is known yet; `empty` says what to do if it has no rows then.

    The cells of the column `links` lead to the row's `href`. With a height (a class), it has that from the start.
    """
    made = RecordTable(columns, empty, row_key, links)
    made.classes(f"w-full min-w-0 {height}").props('dense flat hide-pagination :rows-per-page-options="[0]"')
    return made


def choice(options: Sequence[str]) -> ui.toggle:
    """Buttons of which one is on, the first one to begin with."""
    return ui.toggle(list(options), value=options[0]).props("no-caps unelevated").classes("flex-wrap")


def bars(names: Sequence[str], label: str, *, horizontal: bool = False) -> Chart:
    """A bar chart, a bar per name, in the classes' height; fill it by `show_bars`."""
    # Longer names are cut here: the whole is in the tooltip.
    axis = {"color": _INK, "width": 160 if horizontal else 110, "overflow": "truncate", "hideOverlap": True}
    category: dict[str, Any] = {"type": "category", "data": list(names), "axisLabel": axis}
    value: dict[str, Any] = _value_axis()
    if horizontal:
        category["inverse"] = True
    options = _options(label)
    options["xAxis"], options["yAxis"] = (value, category) if horizontal else (category, value)
    options["series"] = [{"type": "bar", "data": [], "barMaxWidth": 48, "name": label}]
    return _chart(options, label)


def show_bars(chart: Chart, names: Sequence[str], values: Sequence[float], line: float | None = None) -> None:
    """Show a bar per name, and a line across at a value, which is within the axis wherever the bars end."""
    is_horizontal = chart.options["yAxis"]["type"] == "category"
    axis, scale = (chart.options[name] for name in (("yAxis", "xAxis") if is_horizontal else ("xAxis", "yAxis")))
    shown = [visible(name) for name in names]
    data = [
        {
            "value": drawable(value),
            "itemStyle": {"color": _COLOURS[n % len(_COLOURS)] if len(names) <= 4 else _COLOURS[0]},
        }
        for n, value in enumerate(values)
    ]
    series = chart.options["series"][0]
    marked = None if line is None else _mark_line(line, is_horizontal)
    if (shown, data, marked) == (axis["data"], series["data"], series.get("markLine")):
        return
    axis["data"] = shown
    series["data"] = data
    series.pop("markLine", None)
    for bound in ("min", "max"):
        scale.pop(bound, None)
    chart.options["grid"]["right"] = 16
    if line is not None:
        series["markLine"] = marked
        chart.options["grid"]["right"] = 110
        scale.update(axis_bounds(values, line))
    chart.update()


def axis_bounds(values: Sequence[float], line: float) -> dict[str, float]:
    """The bounds that an axis of bars needs beyond its own, so that a line at a value is within it.

    Of itself the axis goes from 0 as far as the bars do, with round labels.

    >>> axis_bounds([100, 120], 40), axis_bounds([3, 7], 40), axis_bounds([-1], -3)
    ({}, {'max': 45.0}, {'min': -3.5})
    """
    if line >= max(0, *values, 0):
        return {"max": _round_up(line)}
    return {"min": -_round_up(-line)} if line <= min(0, *values, 0) else {}


def _round_up(number: float) -> float:
    """The next one of few digits that is somewhat more, so that a line at the number is not at the edge."""
    if number <= 0:
        return 0.0
    step = 10 ** math.floor(math.log10(number)) / 2
    return float(math.ceil(number * 1.05 / step) * step)


def lines(label: str, unit: str = "") -> Chart:
    """A line over time (UTC); fill it by `show_line`."""
    options = _options(label)
    options["xAxis"] = _time_axis()
    options["yAxis"] = _value_axis(unit)
    style = {"color": _COLOURS[0], "width": 2}
    options["series"] = [
        {"type": "line", "data": [], "showSymbol": False, "lineStyle": style, "itemStyle": style, "name": label}
    ]
    return _chart(options, label)


def show_line(chart: Chart, points: Sequence[tuple[float, float | None]]) -> None:
    """Show values at times (seconds since the epoch); None leaves a gap."""
    chart.options["series"][0]["data"] = [[round(at * 1000), value] for at, value in points]
    chart.update()


def stacked(label: str) -> Chart:
    """Bars over time (UTC), one on top of the other; fill it by `show_stacked`."""
    options = _options(label)
    options["xAxis"] = _time_axis()
    options["yAxis"] = _value_axis() | {"minInterval": 1}
    options["legend"] = {"type": "scroll", "top": 0, "textStyle": {"color": _INK, "width": 240, "overflow": "truncate"}}
    options["grid"]["top"] = 36
    options["series"] = []
    return _chart(options, label)


def show_stacked(chart: Chart, counts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    """Show counts at times (milliseconds since the epoch) per name."""
    series = [
        {
            "type": "bar",
            "stack": "all",
            "name": visible(name),
            "data": [list(each) for each in counts[name]],
            "barMaxWidth": 10,
            "itemStyle": {"color": _COLOURS[n % len(_COLOURS)]},
        }
        for n, name in enumerate(sorted(counts))
    ]
    if series != chart.options["series"]:
        chart.options["series"] = series
        chart.update()


def _chart(options: dict[str, Any], label: str) -> Chart:
    # As SVG, its text follows light and dark by the style sheet. A label may have an id in it: it is no text of props.
    made = Chart(options, renderer="svg").classes("w-full h-56").props('role="img"')
    made.props["aria-label"] = label
    return made


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
            # Numbers beyond what a browser knows exactly come as text.
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
    style = {"color": _COLOURS[7], "type": "dashed", "width": 2}
    label = {"formatter": f"threshold {short(at)}", "color": _INK, "position": "end"}
    place = {"xAxis": at} if is_horizontal else {"yAxis": at}
    return {"symbol": "none", "silent": True, "lineStyle": style, "label": label, "data": [place]}
