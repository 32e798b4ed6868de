"""The live view in the terminal: it fills the width and fits into the height, in two panes where they fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from local_stack import sections
from observer.reading_history import ReadingHistory
from observer.snapshot import Snapshot
from observer.status import Part

_TWO_PANES: Final = 120
"""Columns from which there are two panes."""
_GAP: Final = 4
"""Columns between them."""
_SECONDS: Final = 300.0
"""Of the percentiles, and at most of the sparklines."""

Lines = list[list[Segment]]


@dataclass(frozen=True)
class Section:
    """A part of the view; one with a higher rank loses its last lines first if the terminal is too low."""

    rank: int
    content: RenderableType
    min_lines: int = 1
    """Without as many it is left out: a header alone says nothing."""


_SPACE: Final = Section(9, Text())


class View:
    """Shows the latest snapshot; keeps earlier ones to compute rates and percentiles."""

    def __init__(self, page_url: str, addresses: Mapping[str, str], keys: Mapping[str, str]) -> None:
        """Create it with the addresses of the servers, and what each key does; without keys, Ctrl-C stops."""
        self._title = sections.title(page_url)
        self._addresses = addresses
        self._keys = keys
        self._history = ReadingHistory()
        self._parts: Sequence[Part] = ()
        self._note = ""

    def add(self, snapshot: Snapshot, at: float, parts: Sequence[Part] = ()) -> None:
        """Show a snapshot taken `at` (seconds of a monotonic clock), and the state of the processes."""
        self._history.add(snapshot, at)
        self._parts = parts

    def note(self, text: str) -> None:
        """Show above the keys what came of the latest one."""
        self._note = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.size.height
        if width < _TWO_PANES:
            one_pane = [*self._above(), *self._left(in_two_panes=False), _SPACE, *self._right(width), *self._below()]
            lines = _fitted(one_pane, console, options, width, height)
        else:
            above = _fitted([*self._above(), _SPACE], console, options, width, height)
            below = _fitted([_SPACE, *self._below()], console, options, width, height - len(above))
            of_pane, left = height - len(above) - len(below), (width - _GAP) // 2
            right = width - _GAP - left
            panes = [
                _fitted(self._left(in_two_panes=True), console, options, left, of_pane),
                _fitted(self._right(right), console, options, right, of_pane),
            ]
            lines = [*above, *_side_by_side(panes[0], panes[1], left), *below]
        for line in lines:
            yield from line
            yield Segment.line()

    def _above(self) -> list[Section]:
        return [Section(2, self._title), Section(1, sections.badge(self._history.latest.verdict))]

    def _left(self, *, in_two_panes: bool) -> list[Section]:
        snapshot = self._history.latest.snapshot
        return [
            Section(3, sections.trends(self._history.points(_SECONDS), is_narrow=in_two_panes)),
            _SPACE,
            Section(4, sections.progress(self._history.stages(), snapshot.dead_letters)),
            _SPACE,
            Section(7, sections.indices(snapshot.documents), min_lines=2),
        ]

    def _right(self, width: int) -> list[Section]:
        problems = sections.problems(self._parts)
        return [
            Section(5, sections.processes(self._parts)),
            *([Section(5, problems)] if problems else []),
            _SPACE,
            Section(6, sections.alerts(self._history.latest.snapshot, width)),
            _SPACE,
            Section(8, sections.addresses(self._addresses)),
        ]

    def _below(self) -> list[Section]:
        note = [Section(1, sections.note(self._note))] if self._note else []
        return [*note, Section(0, sections.keys(self._keys))]


def _fitted(stacked: Sequence[Section], console: Console, options: ConsoleOptions, width: int, height: int) -> Lines:
    """Render sections one below the other into at most `height` lines of `width` columns."""
    lines = [console.render_lines(each.content, options.update(width=width, height=None)) for each in stacked]
    for n in sorted(range(len(stacked)), key=lambda n: stacked[n].rank):
        lines[n] = lines[n][: max(0, height)] if height >= stacked[n].min_lines else []
        height -= len(lines[n])
    return [line for of_section in lines for line in of_section]


def _side_by_side(left: Lines, right: Lines, width: int) -> Lines:
    """Put two panes beside each other, the left one of a width in columns."""
    nothing = [Segment(" " * width)]
    gap = Segment(" " * _GAP)
    return [[*(a or nothing), gap, *(b or [])] for a, b in zip_longest(left, right)]
