"""Builds the saved objects of Kibana 7.17 from the declaration: data views, visualizations, searches, the dashboard.

``python -m dashboards.saved_objects`` writes them to `kibana.ndjson`. The service `kibana-setup` imports that file; in
Kibana, Stack Management, Saved Objects does too.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from contract import alerts
from contract.declared import EVENT, PIPELINE, TABLES
from contract.fields import ColumnType
from contract.tables import Table

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
    """A data view (index pattern); with a time field, the dashboard's time range applies to it.

    Kibana lists data views by their patterns, so of two views of one index, one has a wildcard.
    """

    id: str
    pattern: str
    time_field: str | None = None


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


_TOTAL: Final = PIPELINE.overview.total
_VIEWS: Final = {table.name: DataView(table.name, table.name) for table in TABLES}
_ALERTS: Final = DataView("alerts", alerts.ALERTS)
# Without the indices in which the sink keeps the state of its rules.
_ALERTS_OVER_TIME: Final = DataView("alerts-over-time", f"{alerts.ALERTS}*,-{alerts.ALERTS}_*", alerts.FIRED_AT)
_DATE: Final = next((c.name for c in _TOTAL.table.columns if c.type is ColumnType.DATE), None)
"""A time of the rows in the table of the overview's total."""
_OVER_TIME: Final = DataView("rows-over-time", f"{_TOTAL.table.name}*", _DATE)

DATA_VIEWS: Final = (*_VIEWS.values(), _ALERTS, *([_OVER_TIME] if _DATE else []), _ALERTS_OVER_TIME)


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
    of: str | None = None
    split: str | None = None


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
    """Yield numbers: all events, each value of the overview's choice, then tables without and with a key."""
    overview, of = PIPELINE.overview, _VIEWS[_TOTAL.table.name]
    yield Metric("total", _title(EVENT.name), of, "sum", _TOTAL.name)
    for value in overview.by.choices if overview.by else ():
        yield Metric(f"total-{value}", _title(value), of, "sum", overview.column_of(value))
    for table in sorted((table for table in TABLES if table is not _TOTAL.table), key=lambda table: len(table.key)):
        for column in table.columns:
            if column.measure is not None and column.type.is_number:
                function = "min" if column.measure.is_least else "max"
                name = overview.mean_title if overview.mean == table[column.name] else ""
                title = f"{name or _title(column.name)}{f', {table.plural.lower()}' if table.key else ''}"
                yield Metric(f"{table.name}-{column.name}", title, _VIEWS[table.name], function, column.name)


def _top(table: Table) -> BarChart | None:
    """Return the chart of a table's rows with the greatest values; None if it has no text to name them by."""
    by = [column.name for column in table.columns if column.measure is None and column.type is ColumnType.KEYWORD]
    numbers = [column.name for column in table.columns if column.measure is not None and column.type.is_number]
    if not by or not numbers:
        return None
    counts = [column.name for column in table.columns if column.measure and column.type is ColumnType.LONG]
    of = _TOTAL.name if table is _TOTAL.table else (counts or numbers)[-1]
    return BarChart(f"top-{table.name}", f"Top {table.plural.lower()}", _VIEWS[table.name], by[0], "max", of)


def _dashboard_panels() -> Iterator[PlacedPanel]:
    numbers = list(islice(_metrics(), _MAX_METRICS))
    for n, metric in enumerate(numbers):
        yield PlacedPanel(metric, x=12 * (n % 4), y=7 * (n // 4), width=12, height=7)
    y = 7 * -(-len(numbers) // 4)
    yield PlacedPanel(Metric("alerts-firing", "Alerts firing", _ALERTS, "count", query=_FIRING), 0, y, 12, 13)
    by_rule = BarChart("alerts-by-text", "Alerts by rule", _ALERTS, by=alerts.ALERT_TEXT, split=alerts.STATUS)
    yield PlacedPanel(by_rule, 12, y, 18, 13)
    fired = BarChart("alerts-fired", "Alerts fired over time", _ALERTS_OVER_TIME, by=alerts.FIRED_AT)
    yield PlacedPanel(fired, 30, y, 18, 13)
    charts = [chart for chart in map(_top, TABLES) if chart is not None][: 2 if _DATE else 3]
    if _DATE:
        activity = f"{_TOTAL.table.plural} by {_title(_DATE).lower()}"
        charts.append(BarChart("activity", activity, _OVER_TIME, by=_DATE))
    for n, chart in enumerate(charts):
        yield PlacedPanel(chart, 16 * n, y + 13, 16, 14)
    columns = (*_TOTAL.table.key, *dict.fromkeys([_TOTAL.name, *([_DATE] if _DATE else [])]))
    title, of = f"Latest {_TOTAL.table.plural.lower()}", _VIEWS[_TOTAL.table.name]
    latest = SavedSearch("rows-latest", title, of, columns, sort=_DATE or _TOTAL.name)
    yield PlacedPanel(latest, 0, y + 27, 24, 16)
    names = alerts.FIRED_AT, alerts.STATUS, alerts.ALERT_TEXT, alerts.INDEX, alerts.ID, alerts.VALUE, alerts.RESOLVED_AT
    alerts_latest = SavedSearch("alerts-latest", "Latest alerts", _ALERTS, names, sort=alerts.FIRED_AT)
    yield PlacedPanel(alerts_latest, 24, y + 27, 24, 16)


_MAX_METRICS: Final = 8
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


def _metric_agg(panel: Metric | BarChart, label: str) -> dict[str, Any]:
    params = {"customLabel": label} | ({"field": panel.of} if panel.of else {})
    return _agg("1", panel.function, "metric", params)


def _metric_state(panel: Metric) -> dict[str, Any]:
    return {
        "title": panel.title,
        "type": "metric",
        "aggs": [_metric_agg(panel, panel.title)],
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
    if over_time:
        by = _agg("2", "date_histogram", "segment", {"field": panel.by, "interval": "auto", "min_doc_count": 1})
    else:
        by = _agg("2", "terms", "segment", {"field": panel.by, "size": 10, "order": "desc", "orderBy": "1"})
    aggs = [_metric_agg(panel, panel.of or "number"), by]
    if panel.split:
        aggs.append(_agg("3", "terms", "group", {"field": panel.split, "size": 5, "order": "desc", "orderBy": "1"}))
    kind = "histogram" if over_time else "horizontal_bar"
    return {"title": panel.title, "type": kind, "aggs": aggs, "params": _axes(panel, over_time)}


def _axes(panel: BarChart, over_time: bool) -> dict[str, Any]:
    along, across = ("bottom", "left") if over_time else ("left", "bottom")
    labels = {"show": True, "filter": not over_time, "truncate": 100}
    return {
        "type": "histogram",
        "grid": {"categoryLines": False},
        "addTooltip": True,
        "addLegend": panel.split is not None,
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
                "title": {"text": panel.of or "number"},
                "style": {},
            }
        ],
        "seriesParams": [
            {
                "show": True,
                "type": "histogram",
                "mode": "stacked",
                "data": {"id": "1", "label": panel.of or "number"},
                "valueAxis": "ValueAxis-1",
                "drawLinesBetweenPoints": True,
                "showCircles": True,
            }
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
        "timeFrom": "now-15m",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 5000},
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": json.dumps({"query": {"language": "kuery", "query": ""}, "filter": []})
        },
    }
    return _saved_object("dashboard", _DASHBOARD_ID, attributes, references)


def main() -> None:
    """Write the saved objects."""
    argparse.ArgumentParser(prog="dashboards.saved_objects", description=f"Writes {FILE}.").parse_args()
    FILE.write_text(ndjson())


if __name__ == "__main__":
    main()
