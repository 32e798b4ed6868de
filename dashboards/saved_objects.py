"""Builds the saved objects of Kibana 7.17 from the declaration: data views, visualizations, searches, the dashboard.

``python -m dashboards.saved_objects`` writes them to `kibana.ndjson`. The service `kibana-setup` imports that file; in
Kibana, Stack Management, Saved Objects does too.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

from contract import alerts
from contract.declared import EVENT, PIPELINE, TABLES
from contract.fields import ColumnType
from contract.measures import Operation, StateColumn
from contract.pipeline import Activity
from contract.tables import Column, Table
from contract.windows import DAY, Window

FILE: Final = Path(__file__).with_name("kibana.ndjson")

SavedObject = dict[str, Any]

_DASHBOARD_ID: Final = "streaming-analytics"
_MIGRATIONS: Final = {
    "index-pattern": "7.11.0",
    "visualization": "7.14.0",
    "search": "7.9.3",
    "dashboard": "7.14.0",
}
"""The migration version of each type, as in exports of Kibana 7.14 to 7.17."""
_CORE_MIGRATION: Final = "7.14.0"
_INDEX_REFERENCE: Final = "kibanaSavedObjectMeta.searchSourceJSON.index"


@dataclass(frozen=True)
class DataView:
    """A data view (index pattern); with a time field, such as a window, the dashboard's time range applies to it.

    Kibana lists data views by their patterns, so of two views of one index, one has a wildcard.
    """

    id: str
    pattern: str
    time_field: str | None = None


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _all_of(table: Table) -> str:
    """Return a pattern with a wildcard that matches the index of a table alone."""
    others = [f",-{other.name}" for other in TABLES if other is not table and other.name.startswith(table.name)]
    return "".join([f"{table.name}*", *others])


_TOTAL: Final = PIPELINE.overview.total
_ACTIVITY: Final = PIPELINE.activity
_VIEWS: Final = {
    table.name: DataView(table.name, table.name, table.key.window.name if table.key.window else None)
    for table in TABLES
}
_ALERTS: Final = DataView("alerts", alerts.ALERTS)
# Without the indices in which the sink keeps the state of its rules.
_ALERTS_OVER_TIME: Final = DataView("alerts-over-time", f"{alerts.ALERTS}*,-{alerts.ALERTS}_*", alerts.FIRED_AT)
_DATE: Final = next((c.name for c in _TOTAL.table.columns if c.type is ColumnType.DATE), None)
"""A time of the rows in the table of the overview's total."""
_HAS_OVER_TIME: Final = _DATE is not None and _ACTIVITY is None
"""Whether a chart of that time stands in for one of the events in each window."""
_OF_TOTAL: Final = _VIEWS[_TOTAL.table.name]
# The dashboard's time range never applies to the totals.
_ALL_TIME: Final = DataView("rows-of-all-time", _all_of(_TOTAL.table)) if _OF_TOTAL.time_field else _OF_TOTAL
_OVER_TIME: Final = _OF_TOTAL if _OF_TOTAL.time_field else DataView("rows-over-time", _all_of(_TOTAL.table), _DATE)

DATA_VIEWS: Final = tuple(
    dict.fromkeys((*_VIEWS.values(), _ALL_TIME, _ALERTS, *([_OVER_TIME] if _HAS_OVER_TIME else []), _ALERTS_OVER_TIME))
)


@dataclass(frozen=True)
class Metric:
    """One number: `function` over the field `of`; count needs no field."""

    id: str
    title: str
    view: DataView
    function: str
    of: str | None = None
    query: str = ""


@dataclass(frozen=True)
class BarChart:
    """One bar per value of `by`, or per time interval if `by` is the view's time field."""

    id: str
    title: str
    view: DataView
    by: str
    function: str = "count"
    of: Mapping[str, str] = field(default_factory=dict)
    """Fields by their labels, of which several are stacked; count needs none."""
    split: str | None = None
    interval: str = "auto"

    @property
    def label(self) -> str:
        """What the lengths of the bars are."""
        return next(iter(self.of)) if len(self.of) == 1 else "number"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The aggregation of each number."""
        fields: Mapping[str, str | None] = self.of or {self.label: None}
        return [_metric_agg(f"{n}", self.function, label, of) for n, (label, of) in enumerate(fields.items(), 1)]


@dataclass(frozen=True)
class SavedSearch:
    """A saved search: documents as a table."""

    id: str
    title: str
    view: DataView
    columns: tuple[str, ...]
    sort: str


Panel = Metric | BarChart | SavedSearch


@dataclass(frozen=True)
class PlacedPanel:
    """A panel and its position on the dashboard's grid of 48 columns."""

    panel: Panel
    x: int
    y: int
    width: int
    height: int


def _metrics() -> Iterator[Metric]:
    """Yield numbers: all events, each value of the overview's choice, then tables without and with a key.

    Not those of windows: the least or greatest number of an hour says nothing about all events.
    """
    overview = PIPELINE.overview
    yield Metric("total", _title(EVENT.name), _ALL_TIME, "sum", _TOTAL.name)
    for value in overview.by.choices if overview.by else ():
        yield Metric(f"total-{value}", _title(value), _ALL_TIME, "sum", overview.column_of(value))
    others = [table for table in TABLES if table is not _TOTAL.table and table.key.window is None]
    for table in sorted(others, key=lambda table: len(table.key)):
        for column in table.columns:
            if column.measure is not None and column.type.is_number and not _is_total(table, column):
                function = "min" if column.measure.is_least else "max"
                name = overview.mean_title if overview.mean == table[column.name] else ""
                title = f"{name or _title(column.name)}{f', {table.plural.lower()}' if table.key else ''}"
                yield Metric(f"{table.name}-{column.name}", title, _VIEWS[table.name], function, column.name)


def _is_total(table: Table, column: Column) -> bool:
    """Whether a column of a table without a key is the number of all events, which has its tile."""
    state = column.measure.state(EVENT) if column.measure else ()
    return not table.key and column.type is ColumnType.LONG and state == (StateColumn(Operation.COUNT),)


def _top(table: Table) -> BarChart | None:
    """Return the chart of a table's rows with the greatest values; None with windows or without a text to name them."""
    by = [column.name for column in table.columns if column.measure is None and column.type is ColumnType.KEYWORD]
    numbers = [column.name for column in table.columns if column.measure is not None and column.type.is_number]
    if not by or not numbers or table.key.window:
        return None
    counts = [column.name for column in table.columns if column.measure and column.type is ColumnType.LONG]
    of = _TOTAL.name if table is _TOTAL.table else (counts or numbers)[-1]
    return BarChart(f"top-{table.name}", f"Top {table.plural.lower()}", _VIEWS[table.name], by[0], "max", {of: of})


def _activity(activity: Activity) -> BarChart:
    """Return the chart of the events in each window."""
    number, unit = _in_units(activity.window)
    view, by = _VIEWS[activity.table.name], activity.window.name
    interval = unit if number == 1 else f"{number}{unit}"
    return BarChart("activity", activity.title, view, by, "sum", activity.columns, interval=interval)


def _in_units(window: Window) -> tuple[int, str]:
    """Return the size of a window as a number and a unit of Kibana."""
    return next((window.size // size, unit) for unit, size in _UNITS.items() if not window.size % size)


def _dashboard_rows() -> Iterator[tuple[int, list[tuple[Panel, int]]]]:
    """Yield the dashboard's rows: the height of each, and its panels with their widths."""
    numbers = list(islice(_metrics(), _MAX_METRICS))
    for n in range(0, len(numbers), 4):
        yield 7, [(metric, 12) for metric in numbers[n : n + 4]]
    if _ACTIVITY is not None:
        yield 13, [(_activity(_ACTIVITY), 48)]
    firing = Metric("alerts-firing", "Alerts firing", _ALERTS, "count", query=_FIRING)
    by_rule = BarChart("alerts-by-text", "Alerts by rule", _ALERTS, by=alerts.ALERT_TEXT, split=alerts.STATUS)
    fired = BarChart("alerts-fired", "Alerts fired over time", _ALERTS_OVER_TIME, by=alerts.FIRED_AT)
    yield 13, [(firing, 12), (by_rule, 18), (fired, 18)]
    charts = [chart for chart in map(_top, TABLES) if chart is not None][: 2 if _HAS_OVER_TIME else 3]
    if _HAS_OVER_TIME and _DATE is not None:
        charts.append(BarChart("activity", f"{_TOTAL.table.plural} by {_title(_DATE).lower()}", _OVER_TIME, by=_DATE))
    yield 14, [(chart, 48 // len(charts)) for chart in charts]
    columns = tuple(dict.fromkeys([*_TOTAL.table.key, _TOTAL.name, *([_DATE] if _DATE else [])]))
    title = f"Latest {_TOTAL.table.plural.lower()}"
    latest = SavedSearch("rows-latest", title, _OF_TOTAL, columns, sort=_DATE or _TOTAL.name)
    names = alerts.FIRED_AT, alerts.STATUS, alerts.ALERT_TEXT, alerts.INDEX, alerts.ID, alerts.VALUE, alerts.RESOLVED_AT
    alerts_latest = SavedSearch("alerts-latest", "Latest alerts", _ALERTS, names, sort=alerts.FIRED_AT)
    yield 16, [(latest, 24), (alerts_latest, 24)]


def _dashboard_panels() -> Iterator[PlacedPanel]:
    y = 0
    for height, panels in _dashboard_rows():
        x = 0
        for panel, width in panels:
            yield PlacedPanel(panel, x, y, width, height)
            x += width
        y += height if panels else 0


_UNITS: Final = {"d": DAY, "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}
_MAX_METRICS: Final = 8
_WINDOWS: Final = 60
"""Windows within the dashboard's time range."""
_FIRING: Final = f"{alerts.STATUS}:{alerts.FIRING}"
DASHBOARD: Final = tuple(_dashboard_panels())


def saved_objects() -> list[SavedObject]:
    """Return all objects; references point to earlier ones."""
    views = [_data_view(view) for view in DATA_VIEWS]
    panels = [_panel(placed.panel) for placed in DASHBOARD]
    return [*views, *panels, _dashboard()]


def ndjson() -> str:
    """Return the content of `kibana.ndjson`."""
    return "".join(json.dumps(saved, sort_keys=True) + "\n" for saved in saved_objects())


def _saved_object(
    kind: str, id: str, attributes: Mapping[str, Any], references: Sequence[Mapping[str, str]]
) -> SavedObject:
    return {
        "attributes": dict(attributes),
        "coreMigrationVersion": _CORE_MIGRATION,
        "id": id,
        "migrationVersion": {kind: _MIGRATIONS[kind]},
        "references": list(references),
        "type": kind,
    }


def _data_view(view: DataView) -> SavedObject:
    attributes = {"title": view.pattern, "fields": "[]", "typeMeta": "{}", "runtimeFieldMap": "{}"}
    if view.time_field:
        attributes["timeFieldName"] = view.time_field
    return _saved_object("index-pattern", view.id, attributes, [])


def _panel(panel: Panel) -> SavedObject:
    source = {
        "query": {"language": "kuery", "query": panel.query if isinstance(panel, Metric) else ""},
        "filter": [],
        "indexRefName": _INDEX_REFERENCE,
    }
    attributes: dict[str, Any] = {
        "title": panel.title,
        "description": "",
        "version": 1,
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)},
    }
    references = [{"id": panel.view.id, "name": _INDEX_REFERENCE, "type": "index-pattern"}]
    if isinstance(panel, SavedSearch):
        attributes |= {"columns": list(panel.columns), "sort": [[panel.sort, "desc"]], "hits": 0}
        return _saved_object(_kind(panel), panel.id, attributes, references)
    state = _metric_state(panel) if isinstance(panel, Metric) else _chart_state(panel)
    attributes |= {"visState": json.dumps(state), "uiStateJSON": "{}"}
    return _saved_object(_kind(panel), panel.id, attributes, references)


def _agg(id: str, type: str, schema: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": id, "enabled": True, "type": type, "schema": schema, "params": dict(params)}


def _metric_agg(id: str, function: str, label: str, of: str | None) -> dict[str, Any]:
    return _agg(id, function, "metric", {"customLabel": label} | ({"field": of} if of else {}))


def _metric_state(panel: Metric) -> dict[str, Any]:
    return {
        "title": panel.title,
        "type": "metric",
        "aggs": [_metric_agg("1", panel.function, panel.title, panel.of)],
        "params": {
            "addTooltip": True,
            "addLegend": False,
            "type": "metric",
            "metric": {
                "percentageMode": False,
                "useRanges": False,
                "colorSchema": "Green to Red",
                "metricColorMode": "None",
                "colorsRange": [{"from": 0, "to": 10000}],
                "labels": {"show": True},
                "invertColors": False,
                "style": {"bgFill": "#000", "bgColor": False, "labelColor": False, "subText": "", "fontSize": 32},
            },
        },
    }


def _chart_state(panel: BarChart) -> dict[str, Any]:
    over_time = panel.by == panel.view.time_field
    aggs = panel.metrics
    by, split = f"{len(aggs) + 1}", f"{len(aggs) + 2}"
    if over_time:
        interval = {"field": panel.by, "interval": panel.interval, "min_doc_count": 1}
        aggs.append(_agg(by, "date_histogram", "segment", interval))
    else:
        aggs.append(_agg(by, "terms", "segment", {"field": panel.by, "size": 10, "order": "desc", "orderBy": "1"}))
    if panel.split:
        aggs.append(_agg(split, "terms", "group", {"field": panel.split, "size": 5, "order": "desc", "orderBy": "1"}))
    kind = "histogram" if over_time else "horizontal_bar"
    return {"title": panel.title, "type": kind, "aggs": aggs, "params": _axes(panel, over_time)}


def _axes(panel: BarChart, over_time: bool) -> dict[str, Any]:
    along, across = ("bottom", "left") if over_time else ("left", "bottom")
    labels = {"show": True, "filter": not over_time, "truncate": 100}
    return {
        "type": "histogram",
        "grid": {"categoryLines": False},
        "addTooltip": True,
        "addLegend": panel.split is not None or len(panel.of) > 1,
        "legendPosition": "right",
        "times": [],
        "addTimeMarker": False,
        "labels": {},
        "thresholdLine": {"show": False, "value": 10, "width": 1, "style": "full", "color": "#E7664C"},
        "categoryAxes": [
            {
                "id": "CategoryAxis-1",
                "type": "category",
                "position": along,
                "show": True,
                "scale": {"type": "linear"},
                "labels": labels,
                "title": {},
                "style": {},
            }
        ],
        "valueAxes": [
            {
                "id": "ValueAxis-1",
                "name": "LeftAxis-1",
                "type": "value",
                "position": across,
                "show": True,
                "scale": {"type": "linear", "mode": "normal"},
                "labels": {"show": True, "rotate": 0, "filter": True, "truncate": 100},
                "title": {"text": panel.label},
                "style": {},
            }
        ],
        "seriesParams": [
            {
                "show": True,
                "type": "histogram",
                "mode": "stacked",
                "data": {"id": metric["id"], "label": metric["params"]["customLabel"]},
                "valueAxis": "ValueAxis-1",
                "drawLinesBetweenPoints": True,
                "showCircles": True,
            }
            for metric in panel.metrics
        ],
    }


def _kind(panel: Panel) -> str:
    return "search" if isinstance(panel, SavedSearch) else "visualization"


def _grid_panel(number: int, placed: PlacedPanel) -> dict[str, Any]:
    position = {"x": placed.x, "y": placed.y, "w": placed.width, "h": placed.height, "i": str(number)}
    return {
        "version": "7.14.0",
        "type": _kind(placed.panel),
        "gridData": position,
        "panelIndex": str(number),
        "embeddableConfig": {"enhancements": {}},
        "panelRefName": f"panel_{number}",
    }


def _dashboard() -> SavedObject:
    panels = [_grid_panel(number, placed) for number, placed in enumerate(DASHBOARD, start=1)]
    references = [
        {"id": placed.panel.id, "name": f"{number}:panel_{number}", "type": _kind(placed.panel)}
        for number, placed in enumerate(DASHBOARD, start=1)
    ]
    attributes = {
        "title": "Streaming analytics",
        "description": f"{_title(EVENT.name)}, their tables, and the alerts",
        "version": 1,
        "hits": 0,
        "optionsJSON": json.dumps({"useMargins": True, "syncColors": False, "hidePanelTitles": False}),
        "panelsJSON": json.dumps(panels),
        "timeRestore": True,
        "timeFrom": f"now-{_time_range()}",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 5000},
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": json.dumps({"query": {"language": "kuery", "query": ""}, "filter": []})
        },
    }
    return _saved_object("dashboard", _DASHBOARD_ID, attributes, references)


def _time_range() -> str:
    if _ACTIVITY is None:
        return "15m"
    number, unit = _in_units(_ACTIVITY.window)
    return f"{_WINDOWS * number}{unit}"


def main() -> None:
    """Write the saved objects."""
    argparse.ArgumentParser(prog="dashboards.saved_objects", description=f"Writes {FILE}.").parse_args()
    FILE.write_text(ndjson())


if __name__ == "__main__":
    main()
