"""The diagram of the pipeline: boxes that link to their pages, and edges that show rate and lag."""

import math
from typing import Final

from nicegui import ui

from live_page.formatting import format_count, format_text
from live_page.pipeline_model import Box, Edge, PipelineModel
from observer.services import OK

_MAX_STATE: Final = 200
"""Characters."""
_COLUMNS: Final = {
    "producer": 1, "topic": 3, "ingest": 5, "lake": 7, "aggregate": 9, "aggregated topic": 11, "sink": 13,
    "indices": 15,
}  # fmt: skip
"""The column of each box of the first row; that of an edge is before its target."""
_BRANCHES: Final = {"dead letters": "ingest", "alerts": "sink"}
"""The boxes of the second row, each below its source."""


_ICONS: Final = {"ok": "check_circle", "problem": "error", "unknown": "help"}


def edge_width(rate: float | None) -> float:
    """Return the width of an edge in pixels: one more step for each power of ten.

    >>> [edge_width(rate) for rate in (None, 0, 1, 50, 1_000, 100_000)]
    [1.5, 1.5, 2.0, 4.0, 6.5, 9.5]
    """
    return round((1.5 + 1.6 * math.log10(1 + (rate or 0))) * 2) / 2


class PipelineDiagram:
    """The elements: the first update adds them, and later ones change only texts, widths and classes that differ."""

    def __init__(self) -> None:
        self._boxes: dict[str, _BoxView] = {}
        self._edges: dict[tuple[str, str], _EdgeView] = {}
        with ui.element("div").classes("pipeline-frame"):
            self._list = ui.element("ol").classes("pipeline").props('aria-label="Stages of the pipeline"')

    def update(self, model: PipelineModel) -> None:
        """Show the pipeline's current state."""
        if not self._boxes:
            with self._list:
                self._add(model)
        for box in model.boxes:
            self._boxes[box.name].show(box)
        for edge in model.edges:
            self._edges[edge.source, edge.target].show(edge)

    def _add(self, model: PipelineModel) -> None:
        edges = {edge.target: edge for edge in model.edges}
        for box in model.boxes:
            with ui.element("li").classes("branch" if box.name in _BRANCHES else "").props('role="listitem"'):
                if edge := edges.get(box.name):
                    self._edges[edge.source, edge.target] = _EdgeView(edge)
                self._boxes[box.name] = _BoxView(box)


class _BoxView:
    def __init__(self, box: Box) -> None:
        self._shown: Box | None = None
        column = _COLUMNS.get(_BRANCHES.get(box.name, box.name), 1)
        link = ui.link("", box.href).classes("box store" if box.is_store else "box")
        self._link = link.style(f"--column: {column}").props(f'data-box="{box.name}"')
        with link:
            with ui.element("div").classes("name"):
                ui.label(format_text(box.title, 60)).classes("title").props(f'title="{box.title}"')
                ui.label(box.kind).classes("kind")
            self._rate = ui.label().classes("rate")
            self._figure = ui.label().classes("figure")
            with ui.element("div").classes("state"):
                self._icon = ui.icon("help").props('aria-hidden="true"')
                self._state = ui.label().classes("text")
            self._parts: list[ui.label] = []
            if box.parts:
                with ui.element("div").classes("parts"):
                    for name, _ in box.parts:
                        with ui.element("div"):
                            ui.label(format_text(name, 40))
                            self._parts.append(ui.label())

    def show(self, box: Box) -> None:
        if box == self._shown:
            return
        self._shown = box
        self._rate.set_text(box.rate_text)
        self._figure.set_text(box.figure)
        state = "ok" if box.state == OK else "problem" if box.has_problem else "unknown"
        text = format_text(box.state, _MAX_STATE)
        self._state.set_text(text)
        self._icon.set_name(_ICONS[state])
        for label, (_, rows) in zip(self._parts, box.parts, strict=True):
            label.set_text(format_count(rows))
        _set_prop(self._link, "data-state", state)
        _set_prop(self._link, "data-behind", box.is_behind)
        # Its line may be too short for it.
        _set_prop(self._link, "title", None if state == "ok" else text)


class _EdgeView:
    def __init__(self, edge: Edge) -> None:
        self._shown: Edge | None = None
        source = _COLUMNS.get(edge.source, 1)
        self._line = ui.element("div").classes("edge").props('role="img"')
        self._line.props(f'data-edge="{edge.source} to {edge.target}"')
        self._column = source if edge.target in _BRANCHES else source + 1

    def show(self, edge: Edge) -> None:
        if edge == self._shown:
            return
        self._shown = edge
        self._line.style(replace=f"--column: {self._column}; --width: {edge_width(edge.rate):g}px")
        _set_prop(self._line, "data-state", edge.flow.value)
        _set_prop(self._line, "aria-label", edge.text)


def _set_prop(element: ui.element, name: str, value: str | bool | None) -> None:
    """Set an attribute, or remove it; the element is sent again only if it differs."""
    if element.props.get(name) == (value or None):
        return
    if value:
        element.props[name] = value
    else:
        del element.props[name]
