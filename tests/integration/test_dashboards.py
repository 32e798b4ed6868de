"""Each panel's aggregation, built from its saved object as Kibana does, against a real Elasticsearch."""

import json
import re
from typing import Any
from urllib.parse import quote, unquote

import pytest
from elasticsearch import Elasticsearch
from elasticsearch_sink_alert.indexing.cluster import Cluster

from dashboards.saved_objects import FILE, SavedObject
from tests.pipeline import Pipeline

OBJECTS: list[SavedObject] = [json.loads(line) for line in FILE.read_text().splitlines()]
INDICES = {s["id"]: s["attributes"]["title"] for s in OBJECTS if s["type"] == "index-pattern"}

USERS = [("user_1", 4, 1, 2, 3), ("user_2", 0, 0, 0, 1), ("user_3", 5, 6, 7, 8)]
ITEMS = [("item_1", 1, 9), ("item_2", 2, 14), ("item_3", 3, 13)]
ALERTS = [
    ("max_interactions > 12", "firing"),
    ("max_interactions > 12", "firing"),
    ("avg_interactions < 40", "resolved"),
]
LAST = "2026-01-01T00:00:00.000Z"
MINUTES = [("2026-01-01T00:00:00Z", 4, 1, 2, 3), ("2026-01-01T00:02:00Z", 0, 5, 0, 7)]

EXPECTED: dict[str, object] = {
    "total": 37,
    "total-click": 9,
    "total-like": 7,
    "total-view": 9,
    "total-purchase": 12,
    "avg_interactions-avg_interactions": 12.33,
    "agg_interactions_item-max_interactions": 14,
    "agg_interactions_item-min_interactions": 1,
    "alerts-firing": 2,
    "alerts-by-text": {"max_interactions > 12": 2, "avg_interactions < 40": 1},
    "alerts-fired": {LAST: 3},
    "top-agg_interactions_user": {"user_3": 26, "user_1": 10, "user_2": 1},
    "top-agg_interactions_item": {"item_2": 14, "item_3": 13, "item_1": 9},
    "activity": {LAST: (4, 1, 2, 3), "2026-01-01T00:02:00.000Z": (0, 5, 0, 7)},
}


def _at(second: int) -> str:
    return LAST.replace("00.000Z", f"{second:02}.000Z")


def _fill(client: Elasticsearch) -> None:
    Cluster(client).prepare()
    for second, (user, click, like, view, purchase) in enumerate(USERS):
        row = {"total_click": click, "total_like": like, "total_view": view, "total_purchase": purchase}
        total = {"user_id": user, "total_interactions": sum(row.values()), "last_interaction": _at(second)}
        client.index(index="agg_interactions_user", id=user, document=row | total)
    for item, least, most in ITEMS:
        row = {"min_interactions": least, "max_interactions": most}
        client.index(index="agg_interactions_item", id=item, document={"item_id": item, **row})
    for minute, click, like, view, purchase in MINUTES:
        row = {"total_click": click, "total_like": like, "total_view": view, "total_purchase": purchase}
        client.index(index="agg_interactions_minute", id=minute, document={"minute": minute, **row})
    client.index(index="avg_interactions", id="avg_interactions", document={"avg_interactions": 12.33})
    for number, (text, status) in enumerate(ALERTS):
        rule = "rush" if number else "bot"
        document = {"rule": rule, "alert_text": text, "status": status, "fired_at": _at(number)}
        client.index(index="alerts", id=str(number), document=document)
    client.indices.refresh(index="*")


def _vis_state(saved: SavedObject) -> str:
    return str(saved["attributes"]["visState"])


def _shown(client: Elasticsearch, saved: SavedObject) -> object:
    """Return the result that the panel shows: a number, a number per bar, or those of each bar's parts."""
    aggs = json.loads(_vis_state(saved))["aggs"]
    source = json.loads(saved["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
    metrics = [agg for agg in aggs if agg["schema"] == "metric"]
    metric, by = metrics[0], next((agg for agg in aggs if agg["schema"] == "segment"), None)
    fields = [agg for agg in metrics if agg["type"] != "count"]
    metric_aggs = {agg["id"]: {agg["type"]: {"field": agg["params"]["field"]}} for agg in fields}
    request = metric_aggs if by is None else {"by": _buckets(by, metric) | {"aggs": metric_aggs}}
    found = client.search(
        index=INDICES[saved["references"][0]["id"]],
        size=0,
        query={"query_string": {"query": source["query"]["query"] or "*"}},
        aggs=request,
        track_total_hits=True,
    )
    if by is None:
        return found["hits"]["total"]["value"] if metric["type"] == "count" else found["aggregations"]["1"]["value"]
    return {
        bucket.get("key_as_string", bucket["key"]): _bar([bucket[id_]["value"] for id_ in metric_aggs], bucket)
        for bucket in found["aggregations"]["by"]["buckets"]
    }


def _bar(values: list[float], bucket: dict[str, Any]) -> object:
    return tuple(values) if len(values) > 1 else values[0] if values else bucket["doc_count"]


def _buckets(by: dict[str, Any], metric: dict[str, Any]) -> dict[str, Any]:
    params = by["params"]
    if by["type"] == "date_histogram":
        # Kibana replaces "auto" with an interval for the time range, and sends a unit as an interval of the calendar.
        interval = {"auto": {"fixed_interval": "1h"}, "m": {"calendar_interval": "1m"}}[params["interval"]]
        return {"date_histogram": {"field": params["field"], "min_doc_count": 1, **interval}}
    order = "_count" if metric["type"] == "count" else params["orderBy"]
    return {"terms": {"field": params["field"], "size": params["size"], "order": {order: params["order"]}}}


def test_every_panel_shows_the_right_numbers(pipeline: Pipeline) -> None:
    client = pipeline.elasticsearch
    _fill(client)
    # Texts and controls have no aggregation.
    panels = {s["id"]: s for s in OBJECTS if s["type"] == "visualization" and '"aggs": []' not in _vis_state(s)}
    assert {panel: _shown(client, saved) for panel, saved in panels.items()} == EXPECTED


@pytest.mark.parametrize(
    ("id", "documents"), [("rows-latest", ["user_3", "user_2", "user_1"]), ("alerts-latest", ["2", "1", "0"])]
)
def test_a_saved_search_has_the_latest_first_and_columns_that_exist(
    pipeline: Pipeline, id: str, documents: list[str]
) -> None:
    client = pipeline.elasticsearch
    _fill(client)
    (saved,) = [saved for saved in OBJECTS if saved["id"] == id]
    sort: Any = [{name: direction} for name, direction in saved["attributes"]["sort"]]
    index = INDICES[saved["references"][0]["id"]]
    assert [hit["_id"] for hit in client.search(index=index, sort=sort)["hits"]["hits"]] == documents
    columns = saved["attributes"]["columns"]
    assert set(client.field_caps(index=index, fields=columns)["fields"]) == set(columns)


def test_the_id_of_an_alert_leads_to_its_row(pipeline: Pipeline) -> None:
    client = pipeline.elasticsearch
    _fill(client)
    (alerts,) = [saved for saved in OBJECTS if saved["type"] == "index-pattern" and saved["id"] == "alerts"]
    template = json.loads(alerts["attributes"]["fieldFormatMap"])["id"]["params"]["urlTemplate"]
    for index, row in (("agg_interactions_user", "user_3"), ("avg_interactions", "avg_interactions")):
        # Kibana encodes the value, and decodes the address.
        address = unquote(template.replace("{{value}}", quote(row, safe="")))
        view, query = re.search(r"index:'(.*?)'.*query:'(.*)'", address).groups()  # type: ignore[union-attr]
        found = client.search(index=INDICES[view], query={"query_string": {"query": query}})
        assert [(hit["_index"], hit["_id"]) for hit in found["hits"]["hits"]] == [(index, row)]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("user_id", {"user_1", "user_2", "user_3"}),
        ("item_id", {"item_1", "item_2", "item_3"}),
        ("rule", {"bot", "rush"}),
    ],
)
def test_a_control_lists_the_values_of_its_field(pipeline: Pipeline, field: str, values: set[str]) -> None:
    client = pipeline.elasticsearch
    _fill(client)
    (saved,) = [saved for saved in OBJECTS if saved["id"] == "controls"]
    (control,) = [each for each in json.loads(_vis_state(saved))["params"]["controls"] if each["fieldName"] == field]
    (view,) = [each["id"] for each in saved["references"] if each["name"] == control["indexPatternRefName"]]
    found = client.search(index=INDICES[view], size=0, aggs={"values": {control["options"]["type"]: {"field": field}}})
    assert {bucket["key"] for bucket in found["aggregations"]["values"]["buckets"]} == values
