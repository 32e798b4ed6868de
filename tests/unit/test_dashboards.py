"""The saved objects have the structure of exports of Kibana 7.14 to 7.17.

Kibana itself does not run here; the structure, the references and the fields are checked.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from dashboards.__main__ import main as dashboards_main
from dashboards.importer import NotUpError, RefusedError, change_settings, import_objects
from dashboards.saved_objects import FILE, SavedObject, ndjson
from local_stack.services import ROOT

OBJECTS: list[SavedObject] = [json.loads(line) for line in FILE.read_text().splitlines()]

DECLARATIONS = (
    "pipeline.py",
    "examples/orders/pipeline.py",
    "examples/sensors/pipeline.py",
    "tests/declarations/only_windows.py",
)

# The attributes of each type in an export.
ATTRIBUTES = {
    "index-pattern": {"title", "fields", "typeMeta", "runtimeFieldMap"},
    "visualization": {"title", "description", "version", "kibanaSavedObjectMeta", "visState", "uiStateJSON"},
    "search": {"title", "description", "version", "kibanaSavedObjectMeta", "columns", "sort", "hits"},
    "dashboard": {
        "title",
        "description",
        "version",
        "kibanaSavedObjectMeta",
        "hits",
        "optionsJSON",
        "panelsJSON",
        "timeRestore",
        "timeFrom",
        "timeTo",
        "refreshInterval",
    },
}
OPTIONAL_ATTRIBUTES = {"timeFieldName", "fieldFormatMap"}

NUMBERS = {"long", "double"}
FIELD_TYPES = {
    "sum": NUMBERS,
    "min": NUMBERS,
    "max": NUMBERS,
    "avg": NUMBERS,
    "terms": {"keyword"},
    "date_histogram": {"date"},
}


class Declared(NamedTuple):
    """The saved objects of a declaration, and the type of each field by index."""

    objects: list[SavedObject]
    mapped: dict[str, dict[str, str]]

    def view(self, id: str) -> tuple[str, str | None]:
        """Return the pattern and the time field of a data view."""
        (view,) = [saved for saved in self.of_type("index-pattern") if saved["id"] == id]
        return view["attributes"]["title"], view["attributes"].get("timeFieldName")

    def of_type(self, kind: str) -> list[SavedObject]:
        """Return the objects of a type."""
        return [saved for saved in self.objects if saved["type"] == kind]

    def named(self, id: str) -> SavedObject:
        """Return a panel or the dashboard."""
        (found,) = [saved for saved in self.objects if saved["id"] == id and saved["type"] != "index-pattern"]
        return found

    def fields(self, view: str) -> dict[str, str]:
        """Return the fields of the one index of a data view, with their types."""
        return self.mapped[self.view(view)[0]]

    def field_types(self, saved: SavedObject) -> dict[str, str]:
        """Return the fields of a panel's index, with their types."""
        (reference,) = saved["references"]
        return self.fields(reference["id"])


_PRINT = """
import json
from elasticsearch_sink_alert.indexing.index_templates import mappings
from dashboards.saved_objects import saved_objects
types = {i: {name: each["type"] for name, each in m["properties"].items()} for i, m in mappings()}
print(json.dumps([saved_objects(), types]))
"""


@cache
def _declared(declaration: str) -> Declared:
    """Return what follows from a declaration, which takes a process of its own."""
    environment = {**os.environ, "PIPELINE": declaration}
    command = [sys.executable, "-c", _PRINT]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return Declared(*json.loads(result.stdout))


@pytest.fixture(params=DECLARATIONS)
def declared(request: pytest.FixtureRequest) -> Declared:
    return _declared(request.param)


def _state(saved: SavedObject) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(saved["attributes"]["visState"])
    return state


def _of_vis_type(declared: Declared, *kinds: str) -> list[SavedObject]:
    return [saved for saved in declared.of_type("visualization") if _state(saved)["type"] in kinds]


def _panels(declared: Declared) -> list[tuple[SavedObject, dict[str, Any]]]:
    """Return each object on the dashboard, with its panel."""
    (dashboard,) = declared.of_type("dashboard")
    panels = json.loads(dashboard["attributes"]["panelsJSON"])
    by_name = {reference["name"]: declared.named(reference["id"]) for reference in dashboard["references"]}
    return [(by_name[f"{panel['panelIndex']}:{panel['panelRefName']}"], panel) for panel in panels]


def _aggregations(saved: SavedObject) -> list[tuple[str, str, str, dict[str, Any]]]:
    return [(agg["id"], agg["type"], agg["schema"], agg["params"]) for agg in _state(saved)["aggs"]]


def test_the_file_is_generated_from_the_declarations() -> None:
    assert FILE.read_text() == ndjson()


def test_an_object_has_the_attributes_of_its_type(declared: Declared) -> None:
    for saved in declared.objects:
        assert set(saved) == {"attributes", "coreMigrationVersion", "id", "migrationVersion", "references", "type"}
        assert set(saved["migrationVersion"]) == {saved["type"]}
        assert set(saved["attributes"]) - OPTIONAL_ATTRIBUTES == ATTRIBUTES[saved["type"]]
        for name, value in saved["attributes"].items():
            if name.endswith("JSON") or name in ("visState", "fieldFormatMap"):
                json.loads(value)
        if saved["type"] == "visualization":
            assert _state(saved)["title"] == saved["attributes"]["title"]


def test_every_reference_resolves_to_an_earlier_object_and_is_used(declared: Declared) -> None:
    earlier: set[tuple[str, str]] = set()
    for saved in declared.objects:
        assert {(reference["type"], reference["id"]) for reference in saved["references"]} <= earlier
        assert [reference["name"] for reference in saved["references"]] == _used_references(saved)
        earlier.add((saved["type"], saved["id"]))


def _used_references(saved: SavedObject) -> list[str]:
    attributes = saved["attributes"]
    if saved["type"] == "index-pattern":
        return []
    if saved["type"] == "dashboard":
        return [f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in json.loads(attributes["panelsJSON"])]
    source = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])
    controls = _state(saved)["params"].get("controls", []) if "visState" in attributes else []
    return [each["indexRefName"] for each in [source] if "indexRefName" in each] + [
        control["indexPatternRefName"] for control in controls
    ]


def test_every_field_of_a_chart_is_mapped_with_a_type_that_its_aggregation_takes(declared: Declared) -> None:
    charts = _of_vis_type(declared, "metric", "horizontal_bar", "histogram")
    assert len(charts) >= 5
    for saved in charts:
        aggregations, types = _aggregations(saved), declared.field_types(saved)
        used = [(kind, params["field"]) for _, kind, _, params in aggregations if "field" in params]
        assert [each for each in used if types.get(each[1]) not in FIELD_TYPES[each[0]]] == [], saved["id"]
        # Only a count needs no field.
        assert {kind for _, kind, _, params in aggregations if "field" not in params} <= {"count"}
        assert [id_ for id_, *_ in aggregations] == [f"{n}" for n in range(1, len(aggregations) + 1)]


def test_every_column_of_a_search_is_mapped(declared: Declared) -> None:
    for saved in declared.of_type("search"):
        sorts = [name for name, _ in saved["attributes"]["sort"]]
        assert {*saved["attributes"]["columns"], *sorts} <= set(declared.field_types(saved))


def test_no_search_repeats_the_time_field_that_kibana_adds(declared: Declared) -> None:
    searches = {saved["id"]: saved for saved in declared.of_type("search")}
    assert set(searches) == {"rows-latest", "alerts-latest"}
    for saved in searches.values():
        assert declared.view(saved["references"][0]["id"])[1] not in saved["attributes"]["columns"]


def test_every_time_field_is_mapped_as_a_date(declared: Declared) -> None:
    for saved in declared.of_type("index-pattern"):
        if "timeFieldName" in saved["attributes"]:
            assert declared.fields(saved["id"])[saved["attributes"]["timeFieldName"]] == "date"


def test_titles_are_unique(declared: Declared) -> None:
    names = Counter(saved["attributes"]["title"].casefold() for saved in declared.objects)
    assert {name: number for name, number in names.items() if number > 1} == {}


def test_every_index_has_one_data_view_and_one_more_has_all_rows(declared: Declared) -> None:
    patterns = [saved["attributes"]["title"] for saved in declared.of_type("index-pattern")]
    tables = [index for index in declared.mapped if index != "alerts" and not index.startswith("alerts_")]
    assert patterns == [*tables, ",".join(tables), "alerts"]


def test_the_only_table_has_no_second_data_view(tmp_path: Path) -> None:
    declaration = tmp_path / "pipeline.py"
    declaration.write_text("""
from contract.declaration import Event, Overview, Pipeline, Table, count, epoch_seconds, text
RIDE = Event("rides", text("bike"), epoch_seconds("at"), time="at", partition_by="bike")
BIKES = Table("bikes", RIDE, key=("bike",), measures={"rides": count()})
PIPELINE = Pipeline(RIDE, tables=(BIKES,), overview=Overview(total=BIKES["rides"]))
""")
    views = _declared(str(declaration)).of_type("index-pattern")
    assert [(view["id"], view["attributes"]["title"]) for view in views] == [("bikes", "bikes"), ("alerts", "alerts")]
    assert "index:'bikes'" in json.loads(views[1]["attributes"]["fieldFormatMap"])["id"]["params"]["urlTemplate"]


def test_the_ids_stay_those_of_earlier_imports() -> None:
    # An import overwrites the objects with its ids, and links to the dashboard and to an alert have them.
    assert [saved["id"] for saved in _declared("pipeline.py").objects] == [
        "agg_interactions_user",
        "agg_interactions_item",
        "avg_interactions",
        "agg_interactions_minute",
        "agg_interactions_item_hour",
        "all-rows",
        "alerts",
        "about",
        "controls",
        "total",
        "total-click",
        "total-like",
        "total-view",
        "total-purchase",
        "avg_interactions-avg_interactions",
        "agg_interactions_item-min_interactions",
        "agg_interactions_item-max_interactions",
        "activity",
        "alerts-firing",
        "alerts-by-text",
        "alerts-fired",
        "top-agg_interactions_user",
        "top-agg_interactions_item",
        "rows-latest",
        "alerts-latest",
        "streaming-analytics",
    ]


def test_a_table_of_windows_has_a_data_view_over_its_windows() -> None:
    declared = _declared("pipeline.py")
    assert declared.view("agg_interactions_minute") == ("agg_interactions_minute", "minute")
    assert declared.view("agg_interactions_item_hour") == ("agg_interactions_item_hour", "hour")
    assert declared.view("agg_interactions_user") == ("agg_interactions_user", None)


def test_the_activity_over_time_is_stacked_by_the_choice() -> None:
    activity = _declared("pipeline.py").named("activity")
    assert activity["attributes"]["title"] == "Interactions per minute, by type"
    assert [reference["id"] for reference in activity["references"]] == ["agg_interactions_minute"]
    kinds = {"1": "click", "2": "like", "3": "view", "4": "purchase"}
    assert _aggregations(activity) == [
        *((n, "sum", "metric", {"customLabel": kind, "field": f"total_{kind}"}) for n, kind in kinds.items()),
        ("5", "date_histogram", "segment", {"field": "minute", "interval": "m", "min_doc_count": 1}),
    ]
    params = _state(activity)["params"]
    assert [(each["data"], each["mode"], each["valueAxis"]) for each in params["seriesParams"]] == [
        ({"id": n, "label": kind}, "stacked", "ValueAxis-1") for n, kind in kinds.items()
    ]
    assert params["addLegend"] is True


def test_the_activity_of_a_table_with_more_columns_than_the_window_is_the_sum_of_its_rows() -> None:
    activity = _declared("examples/orders/pipeline.py").named("activity")
    assert activity["attributes"]["title"] == "Orders per day, by category"
    assert [reference["id"] for reference in activity["references"]] == ["category_days"]
    by = {"field": "category", "size": 20, "order": "desc", "orderBy": "1"}
    assert _aggregations(activity) == [
        ("1", "sum", "metric", {"customLabel": "orders", "field": "orders"}),
        ("2", "date_histogram", "segment", {"field": "day", "interval": "d", "min_doc_count": 1}),
        ("3", "terms", "group", by),
    ]


def test_without_windows_no_chart_claims_to_be_the_activity() -> None:
    declared = _declared("examples/sensors/pipeline.py")
    assert "activity" not in {saved["id"] for saved in declared.objects}
    text = _state(declared.named("about"))["params"]["markdown"]
    assert "No chart has the events over time: no table that counts them has a window." in text


def test_the_activity_of_windows_alone_is_one_series() -> None:
    assert _aggregations(_declared("tests/declarations/only_windows.py").named("activity")) == [
        ("1", "sum", "metric", {"customLabel": "visits", "field": "visits"}),
        ("2", "date_histogram", "segment", {"field": "quarter", "interval": "15m", "min_doc_count": 1}),
    ]


@pytest.mark.parametrize(
    ("declaration", "time_from"), [*zip(DECLARATIONS, ("now-15m", "now-15d", "now-15m", "now-225m"), strict=True)]
)
def test_the_time_range_is_15_windows_of_the_activity_and_at_least_15_minutes(declaration: str, time_from: str) -> None:
    dashboard = _declared(declaration).named("streaming-analytics")["attributes"]
    assert (dashboard["timeRestore"], dashboard["timeFrom"], dashboard["timeTo"]) == (True, time_from, "now")
    assert dashboard["refreshInterval"] == {"pause": False, "value": 5000}


def test_the_time_range_applies_to_charts_over_time_alone(declared: Declared) -> None:
    for saved, panel in _panels(declared):
        view = next((reference["id"] for reference in saved["references"]), None)
        has_time = view is not None and declared.view(view)[1] is not None and saved["id"] != "controls"
        follows = saved["id"] in ("activity", "alerts-fired")
        assert ("timeRange" in panel["embeddableConfig"]) == (has_time and not follows), saved["id"]


def test_the_numbers_of_a_total_over_windows_are_of_all_time() -> None:
    declared = _declared("tests/declarations/only_windows.py")
    (panel,) = [panel for saved, panel in _panels(declared) if saved["id"] == "total"]
    assert declared.view(declared.named("total")["references"][0]["id"]) == ("door", "day")
    assert panel["embeddableConfig"]["timeRange"] == {"from": "now-100y", "to": "now+100y"}


def test_no_number_is_the_least_or_greatest_of_windows(declared: Declared) -> None:
    for saved in _of_vis_type(declared, "metric"):
        (_, function, _, _), *others = _aggregations(saved)
        assert not others
        assert function in ("sum", "count") or declared.view(saved["references"][0]["id"])[1] is None


def test_a_number_fits_its_panel_in_a_window_of_1280_pixels(declared: Declared) -> None:
    # Sizes in pixels as in Kibana's style sheets: 8 between panels, 16 around the number, 20 a row, 32 for the title.
    # A bold digit is about 0.65 of the size of the font wide; a point is 4/3 pixels.
    metrics = {saved["id"] for saved in _of_vis_type(declared, "metric")}
    panels = [(saved, panel["gridData"]) for saved, panel in _panels(declared) if saved["id"] in metrics]
    assert len(panels) == len(metrics)
    for saved, position in panels:
        size = _state(saved)["params"]["metric"]["style"]["fontSize"] * 4 / 3
        width = (1280 - 32) / 48 * position["w"] - 8 - 2 * 16
        height = position["h"] * 20 + (position["h"] - 1) * 8 - 32 - 2 * 16
        assert 0.65 * size * len("9,999,999,999") <= width
        assert 1.5 * size <= height


@pytest.mark.parametrize("declaration", DECLARATIONS[:3])
def test_the_numbers_are_in_two_rows_of_four(declaration: str) -> None:
    declared = _declared(declaration)
    metrics = {saved["id"] for saved in _of_vis_type(declared, "metric")} - {"alerts-firing"}
    rows = Counter(panel["gridData"]["y"] for saved, panel in _panels(declared) if saved["id"] in metrics)
    assert list(rows.values()) == [4, 4]


def test_no_two_panels_overlap_and_all_fit_the_grid(declared: Declared) -> None:
    occupied_cells: set[tuple[int, int]] = set()
    for _, panel in _panels(declared):
        position = panel["gridData"]
        assert position["x"] + position["w"] <= 48
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & occupied_cells
        occupied_cells |= cells


@pytest.mark.parametrize(
    ("declaration", "expected"),
    [
        (
            "pipeline.py",
            [("User", "agg_interactions_user", "user_id"), ("Item", "agg_interactions_item", "item_id")],
        ),
        (
            "examples/orders/pipeline.py",
            [("Customer", "customers", "customer_id"), ("Category", "customer_categories", "category")],
        ),
        ("examples/sensors/pipeline.py", [("Device", "devices", "device_id"), ("Sensor", "channels", "sensor")]),
        ("tests/declarations/only_windows.py", [("Door", "door", "door")]),
    ],
)
def test_there_is_a_control_for_each_text_of_a_key_and_for_the_rule(
    declaration: str, expected: list[tuple[str, str, str]]
) -> None:
    declared = _declared(declaration)
    controls = declared.named("controls")
    views = {reference["name"]: reference["id"] for reference in controls["references"]}
    params = _state(controls)["params"]
    found = [(each["label"], views[each["indexPatternRefName"]], each["fieldName"]) for each in params["controls"]]
    assert found == [*expected, ("Rule", "alerts", "rule")]
    assert {declared.fields(view)[name] for _, view, name in found} == {"keyword"}
    assert {each["type"] for each in params["controls"]} == {"list"}
    assert len({each["id"] for each in params["controls"]}) == len(found)


def test_the_index_and_the_id_of_an_alert_lead_to_its_table_and_row(declared: Declared) -> None:
    (view,) = [saved for saved in declared.of_type("index-pattern") if saved["id"] == "alerts"]
    formats = json.loads(view["attributes"]["fieldFormatMap"])
    assert {declared.fields("alerts")[name] for name in formats} == {"keyword"}
    assert set(formats) <= set(declared.named("alerts-latest")["attributes"]["columns"])
    assert {each["id"] for each in formats.values()} == {"url"}
    templates = {name: each["params"]["urlTemplate"] for name, each in formats.items()}
    # The index of an alert is the id of a data view.
    views = {saved["id"] for saved in declared.of_type("index-pattern")}
    assert set(declared.mapped) - {"alerts"} - views == {name for name in declared.mapped if name.startswith("alerts_")}
    assert templates["index"].startswith("../app/discover#/?_a=(index:'{{value}}',")
    assert templates["id"].startswith("../app/discover#/?_a=(index:'all-rows',")
    assert "_id:%22{{value}}%22" in templates["id"]


def test_a_panel_explains_the_dashboard(declared: Declared) -> None:
    about = declared.named("about")
    text = _state(about)["params"]["markdown"]
    assert about["references"] == []
    for index in declared.mapped:
        assert (f"(`{index}`)" in text) == (index != "alerts" and not index.startswith("alerts_"))
    # The titles of panels that it names exist.
    titles = {saved["attributes"]["title"] for saved in declared.objects}
    named = {name for name in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*", text) if name != "Topics"}
    assert named <= titles
    assert {"Latest alerts", "Alerts fired over time"} <= named
    assert "**Dead letters** are not indexed" in text


class _Kibana(BaseHTTPRequestHandler):
    """Sends the planned responses in order, and keeps the requests."""

    planned: ClassVar[list[tuple[int, dict[str, Any]]]] = []
    requests: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        status, response = self.planned.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(response).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def kibana() -> Iterator[str]:
    _Kibana.planned, _Kibana.requests = [], []
    server = HTTPServer(("127.0.0.1", 0), _Kibana)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_importer_sends_the_file_as_the_kibana_api_expects_and_waits_until_kibana_is_ready(kibana: str) -> None:
    _Kibana.planned = [(503, {}), (200, {"success": True, "successCount": len(OBJECTS)})]
    assert import_objects(kibana, FILE.read_bytes(), timeout=20) == len(OBJECTS)
    path, headers, body = _Kibana.requests[-1]
    assert len(_Kibana.requests) == 2
    assert path == "/api/saved_objects/_import?overwrite=true"
    assert headers["kbn-xsrf"] == "true"
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="file"; filename="kibana.ndjson"' in body
    assert FILE.read_bytes() in body


def test_the_importer_authenticates_if_it_has_a_user(kibana: str) -> None:
    _Kibana.planned = [(200, {"success": True, "successCount": 1})]
    import_objects(kibana, FILE.read_bytes(), 20, "elastic", "secret")
    assert _Kibana.requests[-1][1]["authorization"] == "Basic ZWxhc3RpYzpzZWNyZXQ="


def test_a_setting_is_sent_as_the_kibana_api_expects(kibana: str) -> None:
    _Kibana.planned = [(200, {"settings": {}})]
    change_settings(kibana, {"courier:ignoreFilterIfFieldNotInIndex": True}, 20, "elastic", "secret")
    ((path, headers, body),) = _Kibana.requests
    assert path == "/api/kibana/settings"
    assert (headers["kbn-xsrf"], headers["content-type"]) == ("true", "application/json")
    assert headers["authorization"] == "Basic ZWxhc3RpYzpzZWNyZXQ="
    assert json.loads(body) == {"changes": {"courier:ignoreFilterIfFieldNotInIndex": True}}


def test_a_setting_that_kibana_refuses_is_reported(kibana: str) -> None:
    _Kibana.planned = [(403, {"message": "Forbidden"})]
    with pytest.raises(RefusedError, match="responded 403"):
        change_settings(kibana, {"defaultIndex": "alerts"}, 20)


def test_the_service_imports_the_objects_and_lets_filters_apply_only_where_the_field_exists(
    kibana: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Kibana.planned = [(200, {"success": True, "successCount": len(OBJECTS)}), (200, {"settings": {}})]
    stopped = threading.Event()
    stopped.set()
    monkeypatch.setattr("sys.argv", ["dashboards"])
    monkeypatch.setattr("dashboards.__main__.stop_on_signal", lambda: stopped)
    monkeypatch.setattr("dashboards.__main__.serve", lambda *_, **__: 0)
    monkeypatch.setattr("runtime.logs.configure", lambda *_: None)
    monkeypatch.setenv("KIBANA_HOST", kibana)
    assert dashboards_main() == 0
    assert [path for path, _, _ in _Kibana.requests] == [
        "/api/saved_objects/_import?overwrite=true",
        "/api/kibana/settings",
    ]
    assert json.loads(_Kibana.requests[1][2]) == {"changes": {"courier:ignoreFilterIfFieldNotInIndex": True}}


def test_a_refusal_is_raised_with_the_response_of_kibana(kibana: str) -> None:
    _Kibana.planned = [(200, {"success": False, "errors": [{"id": "users", "error": {"type": "unsupported_type"}}]})]
    with pytest.raises(RefusedError, match="unsupported_type"):
        import_objects(kibana, FILE.read_bytes(), timeout=20)


def test_the_importer_waits_for_kibana_until_its_timeout() -> None:
    with pytest.raises(NotUpError, match="no response from Kibana"):
        import_objects("http://127.0.0.1:1", FILE.read_bytes(), timeout=0.1)


@pytest.mark.parametrize("port", ["http", "0", "65536", "", "\xb2", "9" * 50])
def test_a_port_that_is_none_is_reported_with_the_setting(
    port: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["dashboards"])
    monkeypatch.setattr("dashboards.__main__.stop_on_signal", threading.Event)
    monkeypatch.setattr("runtime.logs.configure", lambda *_: None)
    monkeypatch.setenv("DASHBOARDS_PORT", port)
    assert dashboards_main() == 2
    assert f"DASHBOARDS_PORT={port!r}: expected a whole number from 1 to 65,535" in caplog.messages


def test_a_kibana_url_that_is_none_is_reported_without_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["dashboards"])
    monkeypatch.setattr("dashboards.__main__.stop_on_signal", threading.Event)
    monkeypatch.setattr("dashboards.__main__.serve", lambda *_, **__: 0)
    monkeypatch.setattr("runtime.logs.configure", lambda *_: None)
    monkeypatch.setenv("KIBANA_HOST", "http://user:secret@[::1")
    assert dashboards_main() == 2
    assert caplog.messages == ["KIBANA_HOST='http://user:***@[::1': expected a URL with http:// or https:// and a host"]
