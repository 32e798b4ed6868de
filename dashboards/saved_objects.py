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
from contract.windows import in_units

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
_CONTROL_REFERENCE: Final = "control_{}_index_pattern"


@dataclass(frozen=True)
class DataView:
    """A data view (index pattern); with a time field, such as a window, a time range applies to it."""

    id: str
    pattern: str
    time_field: str | None = None
    links: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Addresses by the field whose values lead there; `{{value}}` in them is the value."""


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _discover(view: str, query: str = "") -> str:
    """Return the address of a data view in Discover, relative to any page of Kibana."""
    return f"../app/discover#/?_a=(index:'{view}',query:(language:kuery,query:'{query}'))"


_TOTAL: Final = PIPELINE.overview.total
_DATE: Final = next((c.name for c in _TOTAL.table.columns if c.type is ColumnType.DATE), None)
"""A time of the rows in the table of the overview's total."""
_VIEWS: Final = {
    table.name: DataView(table.name, table.name, table.key.window.name if table.key.window else None)
    for table in TABLES
}
# An alert names index and id in two fields, and the link of a field has its value alone.
_ROWS: Final = DataView("all-rows", ",".join(_VIEWS)) if len(TABLES) > 1 else _VIEWS[TABLES[0].name]
_LINKS: Final = {
    alerts.INDEX: _discover("{{value}}"),
    alerts.ID: _discover(_ROWS.id, "_id:%22{{value}}%22"),
}
_ALERTS: Final = DataView("alerts", alerts.ALERTS, alerts.FIRED_AT, _LINKS)

DATA_VIEWS: Final = tuple(dict.fromkeys((*_VIEWS.values(), _ROWS, _ALERTS)))


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


@dataclass(frozen=True)
class Control:
    """A list of the values of a field; those that are chosen become a filter of the whole dashboard."""

    view: DataView
    field: str
    label: str


@dataclass(frozen=True)
class Controls:
    """Controls side by side."""

    id: str
    title: str
    controls: tuple[Control, ...]


@dataclass(frozen=True)
class Markdown:
    """A text in Markdown."""

    id: str
    title: str
    text: str


Panel = Metric | BarChart | SavedSearch | Controls | Markdown


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
    yield Metric("total", _title(EVENT.name), _VIEWS[_TOTAL.table.name], "sum", _TOTAL.name)
    for value in overview.by.choices if overview.by else ():
        yield Metric(f"total-{value}", _title(value), _VIEWS[_TOTAL.table.name], "sum", overview.column_of(value))
    others = [table for table in TABLES if table is not _TOTAL.table and table.key.window is None]
    for table in sorted(others, key=lambda table: len(table.key)):
        for column in table.columns:
            # The number of all events has its tile.
            is_total = not table.key and _counts_all(column)
            if column.measure is not None and column.type.is_number and not is_total:
                function = "min" if column.measure.is_least else "max"
                name = overview.mean_title if overview.mean == table[column.name] else ""
                which = (
                    f", {'least' if function == 'min' else 'greatest'} of {table.plural.lower()}" if table.key else ""
                )
                title = (name or _title(column.name)) + which
                yield Metric(f"{table.name}-{column.name}", title, _VIEWS[table.name], function, column.name)


def _counts_all(column: Column) -> bool:
    """Whether a column is the number of all events of its row."""
    state = column.measure.state(EVENT) if column.measure else ()
    return column.type is ColumnType.LONG and state == (StateColumn(Operation.COUNT),)


def _top(table: Table) -> BarChart | None:
    """Return the chart of a table's rows with the greatest values; None with windows or without a text to name them."""
    by = [column.name for column in table.columns if column.measure is None and column.type is ColumnType.KEYWORD]
    numbers = [column.name for column in table.columns if column.measure is not None and column.type.is_number]
    if not by or not numbers or table.key.window:
        return None
    counts = [column.name for column in table.columns if column.measure and column.type is ColumnType.LONG]
    of = _TOTAL.name if table is _TOTAL.table else (counts or numbers)[-1]
    return BarChart(f"top-{table.name}", f"Top {table.plural.lower()}", _VIEWS[table.name], by[0], "max", {of: of})


def _activity() -> Activity | None:
    """Return the events over time: of a table by window alone, or else of one whose rows are summed; None without."""
    by = PIPELINE.overview.by
    for table in TABLES if PIPELINE.activity is None else ():
        window, count = table.key.window, next(filter(_counts_all, table.columns), None)
        if window is not None and count is not None:
            return Activity(table, window, {count.name: count.name}, by if by and by.name in table.key else None)
    return PIPELINE.activity


def _activity_chart(activity: Activity) -> BarChart:
    """Return the chart of the events in each window."""
    number, unit = in_units(activity.window.size)
    interval = unit[0] if number == 1 else f"{number}{unit[0]}"
    by, view = activity.by, _VIEWS[activity.table.name]
    split = by.name if by and by.name in activity.table.key else None
    return BarChart(
        "activity", activity.title, view, activity.window.name, "sum", activity.columns, split=split, interval=interval
    )


def _controls() -> Controls:
    """Return a control for each text that identifies rows, and for the rules."""
    views: dict[str, DataView] = {}
    # The table with the shortest key has the fewest rows for a value.
    for table in sorted(TABLES, key=lambda table: len(table.key)):
        for name in table.key.fields:
            if table.key.type_of(name, EVENT) is ColumnType.KEYWORD:
                views.setdefault(name, _VIEWS[table.name])
    fields = [Control(view, name, _title(name.removesuffix("_id"))) for name, view in views.items()]
    return Controls("controls", "Filters", (*fields, Control(_ALERTS, alerts.RULE, "Rule")))


def _about() -> Markdown:
    tables = ", ".join(f"{table.plural} (`{table.name}`)" for table in TABLES)
    if _ACTIVITY is None:
        over_time = f"*{_FIRED}* follows it. No chart has the events over time: no table that counts them has a window."
    else:
        over_time = f"*{_ACTIVITY.title}* and *{_FIRED}* follow it, the former by the time of the events."
    text = f"""\
Every index has one document per row of a table, as it is now: {tables}.

- **Time range:** numbers, top charts and tables show all rows, whatever the time range. {over_time}
- **Filters** apply to the panels whose documents have the field; the other panels stay as they are (by the advanced
  setting `courier:ignoreFilterIfFieldNotInIndex`, which Docker Compose turns on).
- **From an alert to its row:** in *{_LATEST_ALERTS}*, a click on `{alerts.ID}` opens the row as it is now, and on
  `{alerts.INDEX}` its table. The row as it was when the alert fired is in the alert's field `{alerts.ROW}`.
- **Dead letters** are not indexed, so they are not here: these records are in the Kafka topic whose name ends in
  `_dead_letter`, with origin and reason. Kafka UI shows them, and so does the page *Topics* of the live page.
"""
    return Markdown("about", "About this dashboard", text)


def _dashboard_rows() -> Iterator[tuple[int, list[tuple[Panel, int]]]]:
    """Yield the dashboard's rows: the height of each, and its panels with their widths."""
    yield 12, [(_about(), 30), (_controls(), 18)]
    numbers = list(islice(_metrics(), _MAX_METRICS))
    for n in range(0, len(numbers), 4):
        yield 6, [(metric, 12) for metric in numbers[n : n + 4]]
    if _ACTIVITY is not None:
        yield 13, [(_activity_chart(_ACTIVITY), 48)]
    firing = Metric("alerts-firing", "Alerts firing", _ALERTS, "count", query=_FIRING)
    by_rule = BarChart("alerts-by-text", "Alerts by rule", _ALERTS, by=alerts.ALERT_TEXT, split=alerts.STATUS)
    fired = BarChart("alerts-fired", _FIRED, _ALERTS, by=alerts.FIRED_AT)
    yield 13, [(firing, 12), (by_rule, 18), (fired, 18)]
    charts = [chart for chart in map(_top, TABLES) if chart is not None][:3]
    yield 14, [(chart, 48 // len(charts)) for chart in charts]
    columns = tuple(dict.fromkeys([*_TOTAL.table.key, _TOTAL.name, *([_DATE] if _DATE else [])]))
    title = f"Latest {_TOTAL.table.plural.lower()}"
    latest = SavedSearch("rows-latest", title, _VIEWS[_TOTAL.table.name], columns, sort=_DATE or _TOTAL.name)
    names = alerts.FIRED_AT, alerts.STATUS, alerts.ALERT_TEXT, alerts.INDEX, alerts.ID, alerts.VALUE, alerts.RESOLVED_AT
    alerts_latest = SavedSearch("alerts-latest", _LATEST_ALERTS, _ALERTS, names, sort=alerts.FIRED_AT)
    yield 16, [(latest, 16), (alerts_latest, 32)]


def _dashboard_panels() -> Iterator[PlacedPanel]:
    y = 0
    for height, panels in _dashboard_rows():
        x = 0
        for panel, width in panels:
            yield PlacedPanel(panel, x, y, width, height)
            x += width
        y += height if panels else 0


_ACTIVITY: Final = _activity()
_FIRED: Final = "Alerts fired over time"
_LATEST_ALERTS: Final = "Latest alerts"
_MAX_METRICS: Final = 8
_WINDOWS: Final = 15
"""Windows within the dashboard's time range."""
_ALL_TIME: Final = {"from": "now-100y", "to": "now+100y"}
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
    if view.links:
        formats = {
            name: {"id": "url", "params": {"urlTemplate": address, "labelTemplate": "{{value}}"}}
            for name, address in view.links.items()
        }
        attributes["fieldFormatMap"] = json.dumps(formats)
    return _saved_object("index-pattern", view.id, attributes, [])


def _panel(panel: Panel) -> SavedObject:
    source: dict[str, Any] = {
        "query": {"language": "kuery", "query": panel.query if isinstance(panel, Metric) else ""},
        "filter": [],
    }
    views = {_INDEX_REFERENCE: view} if (view := _view(panel)) else {}
    if view:
        source["indexRefName"] = _INDEX_REFERENCE
    if isinstance(panel, Controls):
        views = {_CONTROL_REFERENCE.format(number): control.view for number, control in enumerate(panel.controls)}
    attributes: dict[str, Any] = {
        "title": panel.title,
        "description": "",
        "version": 1,
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)},
    }
    references = [{"id": view.id, "name": name, "type": "index-pattern"} for name, view in views.items()]
    if isinstance(panel, SavedSearch):
        # Kibana adds the time field as the first column.
        columns = [name for name in panel.columns if name != panel.view.time_field]
        attributes |= {"columns": columns, "sort": [[panel.sort, "desc"]], "hits": 0}
    else:
        attributes |= {"visState": json.dumps(_state(panel)), "uiStateJSON": "{}"}
    return _saved_object(_kind(panel), panel.id, attributes, references)


def _view(panel: Panel) -> DataView | None:
    """Return the data view of a panel that has a single one."""
    return None if isinstance(panel, Controls | Markdown) else panel.view


def _state(panel: Metric | BarChart | Controls | Markdown) -> dict[str, Any]:
    match panel:
        case Metric():
            return _metric_state(panel)
        case BarChart():
            return _chart_state(panel)
        case Controls():
            return _controls_state(panel)
        case Markdown():
            params = {"fontSize": 12, "openLinksInNewTab": False, "markdown": panel.text}
            return {"title": panel.title, "type": "markdown", "aggs": [], "params": params}


def _controls_state(panel: Controls) -> dict[str, Any]:
    controls = [
        {
            "id": control.field,
            "fieldName": control.field,
            "parent": "",
            "label": control.label,
            "type": "list",
            "options": {"type": "terms", "multiselect": True, "dynamicOptions": True, "size": 5, "order": "desc"},
            "indexPatternRefName": _CONTROL_REFERENCE.format(number),
        }
        for number, control in enumerate(panel.controls)
    ]
    params = {"controls": controls, "updateFiltersOnChange": True, "useTimeFilter": False, "pinFilters": False}
    return {"title": panel.title, "type": "input_control_vis", "aggs": [], "params": params}


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
                # The panel's title says the same.
                "labels": {"show": False},
                "invertColors": False,
                "style": {"bgFill": "#000", "bgColor": False, "labelColor": False, "subText": "", "fontSize": 24},
            },
        },
    }


def _chart_state(panel: BarChart) -> dict[str, Any]:
    over_time = _is_over_time(panel)
    aggs = panel.metrics
    by, split = f"{len(aggs) + 1}", f"{len(aggs) + 2}"
    if over_time:
        interval = {"field": panel.by, "interval": panel.interval, "min_doc_count": 1}
        aggs.append(_agg(by, "date_histogram", "segment", interval))
    else:
        aggs.append(_agg(by, "terms", "segment", {"field": panel.by, "size": 10, "order": "desc", "orderBy": "1"}))
    if panel.split:
        aggs.append(_agg(split, "terms", "group", {"field": panel.split, "size": 20, "order": "desc", "orderBy": "1"}))
    kind = "histogram" if over_time else "horizontal_bar"
    return {"title": panel.title, "type": kind, "aggs": aggs, "params": _axes(panel, over_time)}


def _is_over_time(panel: Panel) -> bool:
    return isinstance(panel, BarChart) and panel.by == panel.view.time_field


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
    config: dict[str, Any] = {"enhancements": {}}
    view = _view(placed.panel)
    if view and view.time_field and not _is_over_time(placed.panel):
        # An alert that fired an hour ago may fire still.
        config["timeRange"] = _ALL_TIME
    return {
        "version": "7.14.0",
        "type": _kind(placed.panel),
        "gridData": position,
        "panelIndex": str(number),
        "embeddableConfig": config,
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
    least = timedelta(minutes=15)
    number, unit = in_units(max(least, _WINDOWS * _ACTIVITY.window.size) if _ACTIVITY else least)
    return f"{number}{unit[0]}"


def main() -> None:
    """Write the saved objects."""
    argparse.ArgumentParser(prog="dashboards.saved_objects", description=f"Writes {FILE}.").parse_args()
    FILE.write_text(ndjson())


if __name__ == "__main__":
    main()
