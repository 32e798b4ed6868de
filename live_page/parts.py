"""What the pages are built of: panels that renew themselves, tables, charts, and numbers as people write them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from nicegui import run, ui

from live_page.unavailable import EmptyError, UnavailableError

T = TypeVar("T")

UNKNOWN: Final = "–"

_COLOURS: Final = ("#2b83c6", "#d9822b", "#159a72", "#c06fa5", "#b8a01c", "#5e6fd0", "#8a8f98", "#c64a3a")
"""Told apart by those who see colours otherwise (after Okabe and Ito), on light and on dark ground."""
LINK: Final = "underline text-sky-800 dark:text-sky-300"
_INK: Final = "#80868f"
"""Text and lines of charts, readable on both."""


class Panel:
    """A card with a title, whose content renews itself; what goes wrong is told beside the title."""

    def __init__(self, title: str) -> None:
        self._card = ui.card().classes("w-full min-w-0 gap-2 p-3 sm:p-4").props("flat bordered")
        with self._card, ui.row().classes("w-full items-baseline justify-between gap-x-3 gap-y-0 min-h-6"):
            ui.label(title).classes("text-base font-semibold").props('role="heading" aria-level="2"')
            self._note = ui.label().classes("text-sm text-orange-700 dark:text-orange-400").props('role="status"')
        self._renew: Callable[[], Any] | None = None

    def __enter__(self) -> "Panel":
        self._card.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        self._card.__exit__(*args)

    def note(self, text: str) -> None:
        """Tell something beside the title."""
        self._note.set_text(text)

    def keep(self, read: Callable[[], T], show: Callable[[T], None], every: float = 1.0) -> None:
        """Show what is read, now and every so many seconds; `read` runs in a thread and may take its time."""

        async def renew() -> None:
            try:
                value = await run.io_bound(read)
            except (EmptyError, UnavailableError) as reason:
                self.note(str(reason))
                return
            self.note("")
            if value is not None:
                show(value)

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
            "classes": f"{classes} tabular-nums"
            + (" [overflow-wrap:anywhere] whitespace-normal" if self.wraps else ""),
            "headerClasses": classes,
        }


def table(
    columns: Sequence[Column], empty: str, *, row_key: str = "key", links: str = "", height: str = ""
) -> ui.table:
    """A table without rows yet; `empty` says what to do if that stays so.

    The cells of the column `links` lead to the row's `href`. With a height (a class), it has that from the start.
    """
    made = ui.table(columns=[column.props for column in columns], rows=[], row_key=row_key)
    made.classes(f"w-full min-w-0 {height}").props(f'dense flat :rows-per-page-options="[0]" no-data-label="{empty}"')
    made.props("hide-pagination")
    add_no_data(made)
    if links:
        made.add_slot(
            f"body-cell-{links}",
            f'<q-td :props="props"><a v-if="props.row.href" :href="props.row.href" class="{LINK}">'
            "{{ props.value }}</a><span v-else>{{ props.value }}</span></q-td>",
        )
    return made


def add_no_data(made: ui.table) -> None:
    """Tell what a table without rows has to say plainly, without a sign of danger."""
    made.add_slot("no-data", '<div class="w-full py-2 text-sm opacity-75">{{ props.message }}</div>')


def choice(options: Sequence[str]) -> ui.toggle:
    """Buttons of which one is on, the first one to begin with."""
    return ui.toggle(list(options), value=options[0]).props("no-caps unelevated").classes("flex-wrap")


def bars(names: Sequence[str], label: str, *, horizontal: bool = False) -> ui.echart:
    """A bar chart, a bar per name, in the classes' height; fill it by `show_bars`."""
    category: dict[str, Any] = {"type": "category", "data": list(names), "axisLabel": {"color": _INK}}
    value: dict[str, Any] = _value_axis()
    if horizontal:
        category["inverse"] = True
    options = _options(label)
    options["xAxis"], options["yAxis"] = (value, category) if horizontal else (category, value)
    options["series"] = [{"type": "bar", "data": [], "barMaxWidth": 48, "name": label}]
    return _chart(options, label)


def show_bars(chart: ui.echart, names: Sequence[str], values: Sequence[float], line: float | None = None) -> None:
    """Show a bar per name, and a line across at a value."""
    axis = chart.options["yAxis"] if chart.options["yAxis"]["type"] == "category" else chart.options["xAxis"]
    marked = {} if line is None else {"markLine": _mark_line(line, axis is chart.options["yAxis"])}
    data = [
        {"value": value, "itemStyle": {"color": _COLOURS[n % len(_COLOURS)] if len(names) <= 4 else _COLOURS[0]}}
        for n, value in enumerate(values)
    ]
    series = chart.options["series"][0]
    if (list(names), data) != (axis["data"], series["data"]) or marked != {
        k: v for k, v in series.items() if k == "markLine"
    }:
        axis["data"] = list(names)
        series.pop("markLine", None)
        chart.options["grid"]["right"] = 90 if marked else 16
        series.update(data=data, **marked)
        chart.update()


def lines(label: str, unit: str) -> ui.echart:
    """A line over time; fill it by `show_line`."""
    options = _options(label)
    options["xAxis"] = {"type": "time", "axisLabel": {"color": _INK, "hideOverlap": True}, "splitNumber": 4}
    options["yAxis"] = _value_axis(unit)
    style = {"color": _COLOURS[0], "width": 2}
    options["series"] = [
        {"type": "line", "data": [], "showSymbol": False, "lineStyle": style, "itemStyle": style, "name": label}
    ]
    return _chart(options, label)


def show_line(chart: ui.echart, points: Sequence[tuple[float, float | None]]) -> None:
    """Show values at times (seconds since the epoch); None leaves a gap."""
    chart.options["series"][0]["data"] = [[round(at * 1000), value] for at, value in points]
    chart.update()


def stacked(label: str) -> ui.echart:
    """Bars over time, one on top of the other; fill it by `show_stacked`."""
    options = _options(label)
    options["xAxis"] = {"type": "time", "axisLabel": {"color": _INK, "hideOverlap": True}, "splitNumber": 4}
    options["yAxis"] = _value_axis() | {"minInterval": 1}
    options["legend"] = {"type": "scroll", "top": 0, "textStyle": {"color": _INK}}
    options["grid"]["top"] = 36
    options["series"] = []
    return _chart(options, label)


def show_stacked(chart: ui.echart, counts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    """Show counts at times (milliseconds since the epoch) per name."""
    series = [
        {
            "type": "bar",
            "stack": "all",
            "name": name,
            "data": [list(each) for each in counts[name]],
            "barMaxWidth": 10,
            "itemStyle": {"color": _COLOURS[n % len(_COLOURS)]},
        }
        for n, name in enumerate(sorted(counts))
    ]
    if series != chart.options["series"]:
        chart.options["series"] = series
        chart.update()


def _chart(options: dict[str, Any], label: str) -> ui.echart:
    return ui.echart(options).classes("w-full h-56").props(f'role="img" aria-label="{label}"')


def _options(label: str) -> dict[str, Any]:
    return {
        "animation": False,
        "aria": {"enabled": True, "label": {"description": label}, "decal": {"show": False}},
        "grid": {"left": 8, "right": 16, "top": 16, "bottom": 8, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True},
        "textStyle": {"color": _INK},
    }


def _value_axis(unit: str = "") -> dict[str, Any]:
    label = {"color": _INK, "formatter": f"{{value}}{unit}"}
    return {"type": "value", "axisLabel": label, "splitLine": {"lineStyle": {"color": _INK, "opacity": 0.25}}}


def _mark_line(at: float, is_horizontal: bool) -> dict[str, Any]:
    style = {"color": _COLOURS[7], "type": "dashed", "width": 2}
    label = {"formatter": "threshold {c}", "color": _INK, "position": "end"}
    place = {"xAxis": at} if is_horizontal else {"yAxis": at}
    return {"symbol": "none", "silent": True, "lineStyle": style, "label": label, "data": [place]}


def count(number: float | None) -> str:
    """A whole number as people write it."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def decimal(number: float | None, places: int = 1, unit: str = "") -> str:
    """A number with so many places."""
    return UNKNOWN if number is None else f"{number:,.{places}f}{unit}"


def size(number: float) -> str:
    """Bytes as people write them."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"


def clock(at: datetime | str | None) -> str:
    """The time of day of a point in time (text: ISO 8601), in UTC; with the date where that is not today."""
    if not at:
        return UNKNOWN
    time = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    return time.strftime("%H:%M:%S" if time.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%S")


def lasting(since: object, until: object) -> str:
    """From one point in time to another, or to now."""
    end = datetime.fromisoformat(str(until)) if until else datetime.now(UTC)
    seconds = max(0, int((end - datetime.fromisoformat(str(since))).total_seconds()))
    minutes, hours = seconds // 60, seconds // 3600
    return f"{seconds} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{hours} h"
