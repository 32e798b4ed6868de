"""The saved objects have the structure of exports of Kibana 7.14 to 7.17.

Kibana itself does not run here; the structure, the references and the fields are checked.
"""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from elasticsearch_sink_alert.indexing.index_templates import mappings

from dashboards.__main__ import main as dashboards_main
from dashboards.importer import NotUpError, RefusedError, import_objects
from dashboards.saved_objects import FILE, SavedObject, ndjson
from local_stack.services import ROOT

OBJECTS: list[SavedObject] = [json.loads(line) for line in FILE.read_text().splitlines()]
BY_ID = {(saved["type"], saved["id"]): saved for saved in OBJECTS}
MAPPED = {index: set(mapping["properties"]) for index, mapping in mappings()}

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


def _ids(saved: SavedObject) -> str:
    return f"{saved['type']}-{saved['id']}"


def _mapped_in(pattern: str) -> set[str]:
    """Return the fields of the one index that an index pattern names."""
    names = [name for name in pattern.split(",") if not name.startswith("-")]
    excluded = [name[1:] for name in pattern.split(",") if name.startswith("-")]
    (index,) = [
        index
        for index in MAPPED
        if any(fnmatchcase(index, name) for name in names) and not any(fnmatchcase(index, name) for name in excluded)
    ]
    return MAPPED[index]


def _fields_of(saved: SavedObject) -> set[str]:
    (reference,) = saved["references"]
    return _mapped_in(BY_ID["index-pattern", reference["id"]]["attributes"]["title"])


def test_the_file_is_generated_from_the_declarations() -> None:
    assert FILE.read_text() == ndjson()


@pytest.mark.parametrize("saved", OBJECTS, ids=_ids)
def test_an_object_has_the_attributes_of_its_type(saved: SavedObject) -> None:
    assert set(saved) == {"attributes", "coreMigrationVersion", "id", "migrationVersion", "references", "type"}
    assert set(saved["migrationVersion"]) == {saved["type"]}
    assert set(saved["attributes"]) - {"timeFieldName"} == ATTRIBUTES[saved["type"]]
    for name, value in saved["attributes"].items():
        if name.endswith("JSON") or name == "visState":
            json.loads(value)


@pytest.mark.parametrize("saved", OBJECTS, ids=_ids)
def test_every_reference_resolves_and_is_used(saved: SavedObject) -> None:
    for reference in saved["references"]:
        assert (reference["type"], reference["id"]) in BY_ID
    if saved["type"] == "dashboard":
        used = [
            f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in json.loads(saved["attributes"]["panelsJSON"])
        ]
        assert used == [reference["name"] for reference in saved["references"]]
    elif saved["type"] != "index-pattern":
        source = json.loads(saved["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
        assert [source["indexRefName"]] == [reference["name"] for reference in saved["references"]]


@pytest.mark.parametrize("saved", [s for s in OBJECTS if s["type"] == "visualization"], ids=_ids)
def test_every_field_of_a_panel_is_mapped(saved: SavedObject) -> None:
    state = json.loads(saved["attributes"]["visState"])
    assert state["type"] in ("metric", "horizontal_bar", "histogram")
    fields = [agg["params"]["field"] for agg in state["aggs"] if "field" in agg["params"]]
    assert set(fields) <= _fields_of(saved)
    assert [agg["id"] for agg in state["aggs"]] == sorted({agg["id"] for agg in state["aggs"]})


@pytest.mark.parametrize("saved", [s for s in OBJECTS if s["type"] == "search"], ids=_ids)
def test_every_column_of_a_search_is_mapped(saved: SavedObject) -> None:
    sorts = [name for name, _ in saved["attributes"]["sort"]]
    assert {*saved["attributes"]["columns"], *sorts} <= _fields_of(saved)


@pytest.mark.parametrize("saved", [s for s in OBJECTS if s["type"] == "index-pattern"], ids=_ids)
def test_every_time_field_is_mapped(saved: SavedObject) -> None:
    assert saved["attributes"].get("timeFieldName") in {None, *_mapped_in(saved["attributes"]["title"])}


DECLARATIONS = (
    "pipeline.py",
    "examples/orders/pipeline.py",
    "examples/sensors/pipeline.py",
    "tests/declarations/only_windows.py",
)


def _objects_of(declaration: str) -> list[SavedObject]:
    """Return the saved objects of another declaration, which takes a process of its own."""
    command = [sys.executable, "-c", "from dashboards.saved_objects import ndjson; print(ndjson(), end='')"]
    environment = {**os.environ, "PIPELINE": declaration}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def _named(objects: Sequence[SavedObject], id: str) -> SavedObject:
    (found,) = [saved for saved in objects if saved["id"] == id and saved["type"] != "index-pattern"]
    return found


def _views(objects: Sequence[SavedObject]) -> dict[str, tuple[str, str | None]]:
    """Return the pattern and the time field of each data view."""
    views = [saved for saved in objects if saved["type"] == "index-pattern"]
    return {view["id"]: (view["attributes"]["title"], view["attributes"].get("timeFieldName")) for view in views}


def _time_range(objects: Sequence[SavedObject]) -> tuple[str, str]:
    (dashboard,) = [saved["attributes"] for saved in objects if saved["type"] == "dashboard"]
    assert dashboard["timeRestore"] is True
    assert dashboard["refreshInterval"] == {"pause": False, "value": 5000}
    return dashboard["timeFrom"], dashboard["timeTo"]


def _aggregations(saved: SavedObject) -> list[tuple[str, str, str, dict[str, Any]]]:
    aggs = json.loads(saved["attributes"]["visState"])["aggs"]
    return [(agg["id"], agg["type"], agg["schema"], agg["params"]) for agg in aggs]


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_titles_are_unique(declaration: str) -> None:
    names = Counter(saved["attributes"]["title"].casefold() for saved in _objects_of(declaration))
    assert {name: number for name, number in names.items() if number > 1} == {}


def test_a_table_of_windows_has_a_data_view_over_its_windows() -> None:
    views = _views(OBJECTS)
    assert views["agg_interactions_minute"] == ("agg_interactions_minute", "minute")
    assert views["agg_interactions_item_hour"] == ("agg_interactions_item_hour", "hour")
    assert views["agg_interactions_user"] == ("agg_interactions_user", None)


def test_the_activity_over_time_is_stacked_by_the_choice_in_the_last_60_windows() -> None:
    activity = _named(OBJECTS, "activity")
    assert activity["attributes"]["title"] == "Interactions per minute, by type"
    assert [reference["id"] for reference in activity["references"]] == ["agg_interactions_minute"]
    kinds = {"1": "click", "2": "like", "3": "view", "4": "purchase"}
    assert _aggregations(activity) == [
        *((n, "sum", "metric", {"customLabel": kind, "field": f"total_{kind}"}) for n, kind in kinds.items()),
        ("5", "date_histogram", "segment", {"field": "minute", "interval": "m", "min_doc_count": 1}),
    ]
    params = json.loads(activity["attributes"]["visState"])["params"]
    assert [(each["data"], each["mode"], each["valueAxis"]) for each in params["seriesParams"]] == [
        ({"id": n, "label": kind}, "stacked", "ValueAxis-1") for n, kind in kinds.items()
    ]
    assert params["addLegend"] is True
    assert _time_range(OBJECTS) == ("now-60m", "now")


@pytest.mark.parametrize(
    ("declaration", "view"), [("examples/orders/pipeline.py", "customers"), ("examples/sensors/pipeline.py", "devices")]
)
def test_without_windows_the_activity_is_the_rows_by_their_latest_time(declaration: str, view: str) -> None:
    objects = _objects_of(declaration)
    activity, over_time = _named(objects, "activity"), _views(objects)["rows-over-time"]
    assert [reference["id"] for reference in activity["references"]] == ["rows-over-time"]
    assert over_time[0] == f"{view}*"
    assert [(kind, params.get("interval")) for _, kind, _, params in _aggregations(activity)] == [
        ("count", None),
        ("date_histogram", "auto"),
    ]
    assert _time_range(objects) == ("now-15m", "now")


def test_a_declaration_of_windows_alone_has_totals_of_all_time_and_one_series() -> None:
    objects = _objects_of("tests/declarations/only_windows.py")
    (of_total,) = _named(objects, "total")["references"]
    # Not those of the dashboard's time range, and not the rows of the other index.
    assert _views(objects)[of_total["id"]] == ("door*,-door_quarter", None)
    assert _aggregations(_named(objects, "activity")) == [
        ("1", "sum", "metric", {"customLabel": "visits", "field": "visits"}),
        ("2", "date_histogram", "segment", {"field": "quarter", "interval": "15m", "min_doc_count": 1}),
    ]
    assert _time_range(objects) == ("now-900m", "now")


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_no_number_is_the_least_or_greatest_of_windows(declaration: str) -> None:
    objects = _objects_of(declaration)
    metrics = [saved for saved in objects if '"type": "metric"' in saved["attributes"].get("visState", "")]
    views = _views(objects)
    assert [views[metric["references"][0]["id"]][1] for metric in metrics] == [None] * len(metrics)


def test_every_number_is_wide_enough_to_be_shown_whole() -> None:
    (dashboard,) = [saved for saved in OBJECTS if saved["type"] == "dashboard"]
    metrics = {saved["id"] for saved in OBJECTS if '"type": "metric"' in saved["attributes"].get("visState", "")}
    numbers = {ref["name"].split(":")[0] for ref in dashboard["references"] if ref["id"] in metrics}
    panels = [panel for panel in json.loads(dashboard["attributes"]["panelsJSON"]) if panel["panelIndex"] in numbers]
    assert len(panels) == len(metrics)
    assert min(panel["gridData"]["w"] for panel in panels) >= 12


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_no_two_panels_overlap_and_all_fit_the_grid(declaration: str) -> None:
    (dashboard,) = [saved for saved in _objects_of(declaration) if saved["type"] == "dashboard"]
    occupied_cells: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard["attributes"]["panelsJSON"]):
        position = panel["gridData"]
        assert position["x"] + position["w"] <= 48
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & occupied_cells
        occupied_cells |= cells


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
    monkeypatch.setattr("runtime.logs.configure", lambda _: None)
    monkeypatch.setenv("DASHBOARDS_PORT", port)
    assert dashboards_main() == 2
    assert f"DASHBOARDS_PORT={port!r}: expected a whole number from 1 to 65,535" in caplog.messages


def test_a_kibana_url_that_is_none_is_reported_without_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["dashboards"])
    monkeypatch.setattr("dashboards.__main__.stop_on_signal", threading.Event)
    monkeypatch.setattr("dashboards.__main__.serve", lambda *_, **__: 0)
    monkeypatch.setattr("runtime.logs.configure", lambda _: None)
    monkeypatch.setenv("KIBANA_HOST", "http://user:secret@[::1")
    assert dashboards_main() == 2
    assert caplog.messages == ["KIBANA_HOST='http://user:***@[::1': expected a URL with http:// or https:// and a host"]
