"""`python -m verify` finds every damage, in each store, and nothing else."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl
import pytest
from deltalake import DeltaTable
from elasticsearch import Elasticsearch
from elasticsearch_sink_alert.indexing.index_templates import mappings

from local_stack.services import SINK, STREAM
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, assert_equal, eventually

USERS, ITEMS, MINUTES = "agg_interactions_user", "agg_interactions_item", "agg_interactions_minute"
MALFORMED = (b"no json", b'{"user_id": "ann"}', b"\xff", None)


@pytest.fixture(scope="module")
def stopped(kafka: str, elasticsearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline that has processed some interactions, and is stopped."""
    pipeline = Pipeline(kafka, elasticsearch_url, f"verify-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("verify"))
    # Every window is long over: the alerts of a window that ends while the sink is stopped stay firing.
    last = int(time.time()) - 3_600
    sent = [
        Interaction(f"user|{n % 7}", f"item {n % 5}", INTERACTION_TYPES[n % 4 if n % 3 else 0], last - n % 600)
        for n in range(2_000)
    ]
    with pipeline.running(SINK), pipeline.running(STREAM):
        pipeline.send_interactions(sent)
        pipeline.send(pipeline.topic, [(b"key", value) for value in MALFORMED])
        pipeline.assert_everywhere(sent)
        eventually(lambda: assert_equal(len(pipeline.read(pipeline.settings.dead_letter_topic)), len(MALFORMED)))
        pipeline.assert_exact()
    yield pipeline
    # Every damage was repaired.
    pipeline.assert_exact(wait=0)
    with Elasticsearch([elasticsearch_url]) as client:
        client.indices.delete(index=",".join(index for index, _ in mappings()), ignore_unavailable=True)


@dataclass(frozen=True)
class Damage:
    """A damage, and what has to be reported: the store, and parts of key, found and expected."""

    apply: Callable[[Pipeline], Callable[[], None]]
    """Returns the function that repairs it."""
    store: str
    key: str
    found: str | None
    expected: str | None


def _change_document(pipeline: Pipeline) -> Callable[[], None]:
    return _put_document(pipeline, USERS, "user|3", lambda row: row | {"total_view": row["total_view"] + 1})


def _change_type(pipeline: Pipeline) -> Callable[[], None]:
    return _put_document(pipeline, USERS, "user|3", lambda row: row | {"total_view": str(row["total_view"])})


def _add_field(pipeline: Pipeline) -> Callable[[], None]:
    return _put_document(pipeline, ITEMS, "item 1", lambda row: {**row, "min_interactions": None})


def _put_document(
    pipeline: Pipeline, index: str, row_id: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Callable[[], None]:
    row = pipeline.documents(index)[row_id]
    _put(pipeline, index, row_id, change(row))
    return lambda: _put(pipeline, index, row_id, row)


def _delete_document(pipeline: Pipeline) -> Callable[[], None]:
    row = pipeline.documents(ITEMS)["item 2"]
    _delete(pipeline, ITEMS, "item 2")
    return lambda: _put(pipeline, ITEMS, "item 2", row)


def _add_document(pipeline: Pipeline) -> Callable[[], None]:
    row = pipeline.documents(USERS)["user|1"]
    _put(pipeline, USERS, "nobody", row | {"user_id": "nobody"})
    return lambda: _delete(pipeline, USERS, "nobody")


def _put(pipeline: Pipeline, index: str, document_id: str, document: dict[str, Any]) -> None:
    pipeline.elasticsearch.index(index=index, id=document_id, document=document, refresh=True)


def _delete(pipeline: Pipeline, index: str, document_id: str) -> None:
    pipeline.elasticsearch.delete(index=index, id=document_id, refresh=True)


def _lake(pipeline: Pipeline) -> DeltaTable:
    """Open the table of events, from which rows can be deleted then."""
    table = DeltaTable(str(pipeline.data / "warehouse" / "interactions"))
    table.alter.set_table_properties({"delta.appendOnly": "false"})
    return table


def _double_in_the_lake(pipeline: Pipeline) -> Callable[[], None]:
    table = _lake(pipeline)
    version = table.version()
    pl.scan_delta(table).head(1).collect().write_delta(table, mode="append")
    return lambda: _restore(pipeline, "interactions", version)


def _lose_from_the_lake(pipeline: Pipeline) -> Callable[[], None]:
    table = _lake(pipeline)
    version = table.version()
    table.delete("user_id = 'user|5' AND item_id = 'item 0'")
    return lambda: _restore(pipeline, "interactions", version)


def _change_row_of_table(pipeline: Pipeline) -> Callable[[], None]:
    table = DeltaTable(str(pipeline.data / "warehouse" / USERS))
    version = table.version()
    table.update(predicate="user_id = 'user|2'", updates={"avg_interactions": "avg_interactions + 0.01"})
    return lambda: _restore(pipeline, USERS, version)


def _double_row_of_table(pipeline: Pipeline) -> Callable[[], None]:
    table = DeltaTable(str(pipeline.data / "warehouse" / ITEMS))
    version = table.version()
    pl.scan_delta(table).filter(pl.col("item_id") == "item 4").collect().write_delta(table, mode="append")
    return lambda: _restore(pipeline, ITEMS, version)


def _restore(pipeline: Pipeline, name: str, version: int) -> None:
    DeltaTable(str(pipeline.data / "warehouse" / name)).restore(version)


def _publish_an_old_row(pipeline: Pipeline) -> Callable[[], None]:
    row = pipeline.documents(USERS)["user|4"]
    key = f"{USERS}-user|4".encode()
    pipeline.publish((key, orjson.dumps(row | {"total_click": row["total_click"] - 1})))
    return lambda: pipeline.publish((key, orjson.dumps(row)))


def _lose_a_row_of_the_topic(pipeline: Pipeline) -> Callable[[], None]:
    minute, row = next(iter(pipeline.documents(MINUTES).items()))
    key = f"{MINUTES}-{minute}".encode()
    pipeline.publish((key, None))
    return lambda: pipeline.publish((key, orjson.dumps(row)))


def _lose_an_alert(pipeline: Pipeline) -> Callable[[], None]:
    return _change_alert(pipeline, delete=True)


def _resolve_an_alert(pipeline: Pipeline) -> Callable[[], None]:
    return _change_alert(pipeline, status="resolved", resolved_at="2026-01-01T00:00:00.000Z")


def _change_alert(pipeline: Pipeline, *, delete: bool = False, **fields: str) -> Callable[[], None]:
    alerts = {k: a for k, a in pipeline.documents("alerts").items() if a["index"] == USERS and a["id"] == "user|6"}
    document, alert = next((k, a) for k, a in alerts.items() if a["field"] == "total_interactions")
    if delete:
        _delete(pipeline, "alerts", document)
    else:
        _put(pipeline, "alerts", document, alert | fields)
    return lambda: _put(pipeline, "alerts", document, alert)


def _double_an_alert(pipeline: Pipeline) -> Callable[[], None]:
    alert = next(a for a in pipeline.alerts() if a["index"] == USERS and a["field"] == "total_interactions")
    _put(pipeline, "alerts", "second", alert)
    return lambda: _delete(pipeline, "alerts", "second")


def _fire_without_reason(pipeline: Pipeline) -> Callable[[], None]:
    alert = next(a for a in pipeline.alerts() if a["index"] == USERS and a["field"] == "total_interactions")
    other = {"rule": f"{USERS}: avg_interactions < 40", "field": "avg_interactions", "threshold": 40, "operator": "<"}
    _put(pipeline, "alerts", "wrong", alert | other)
    return lambda: _delete(pipeline, "alerts", "wrong")


DAMAGES = {
    "a document was changed": Damage(_change_document, f"index {USERS}", "user|3", '"total_view"', '"total_view"'),
    "a document has a text for a number": Damage(_change_type, f"index {USERS}", "user|3", "another type", "user|3"),
    "a document has null": Damage(_add_field, f"index {ITEMS}", "item 1", "null", '"min_interactions": '),
    "a document was deleted": Damage(_delete_document, f"index {ITEMS}", "item 2", None, '"item_id": "item 2"'),
    "a document of no row": Damage(_add_document, f"index {USERS}", "nobody", "nobody", None),
    "a row is twice in the lake": Damage(_double_in_the_lake, "lake interactions", "user|", "2 times", "once"),
    "a row is not in the lake": Damage(_lose_from_the_lake, "lake interactions", "user|5", None, ""),
    "a row of a table was changed": Damage(_change_row_of_table, f"Delta table {USERS}", "user|2", "avg", "avg"),
    "a row of a table is there twice": Damage(
        _double_row_of_table, f"Delta table {ITEMS}", "item 4", "item 4", "item 4"
    ),
    "an old row was published last": Damage(
        _publish_an_old_row, f"topic {{topic}}_aggregated, {USERS}", "user|4", "", ""
    ),
    "a row of the topic was lost": Damage(
        _lose_a_row_of_the_topic, f"topic {{topic}}_aggregated, {MINUTES}", "Z", None, '"minute"'
    ),
    "an alert was deleted": Damage(_lose_an_alert, "index alerts", "user|6", "0 firing", "one firing"),
    "an alert was resolved": Damage(_resolve_an_alert, "index alerts", "user|6", "0 firing", "one firing"),
    "an alert is there twice": Damage(_double_an_alert, "index alerts", USERS, "2 firing", "one firing"),
    "an alert fires though its rule is not true": Damage(
        _fire_without_reason, "index alerts", "< 40", "1 firing", "none firing"
    ),
}


@contextmanager
def _damaged(pipeline: Pipeline, damage: Damage) -> Iterator[None]:
    repair = damage.apply(pipeline)
    try:
        yield
    finally:
        repair()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_every_damage_is_found_and_nothing_else(stopped: Pipeline, damage: Damage) -> None:
    with _damaged(stopped, damage):
        report = stopped.verify(wait=0)
    differences = [each for check in report["checks"] for each in check["differences"]]
    store = damage.store.format(topic=stopped.topic)
    of_store = [each for each in differences if each["store"] == store and damage.key in each["key"]]
    assert of_store, json.dumps(differences, indent=1)
    for part, name in ((damage.found, "found"), (damage.expected, "expected")):
        values = [each[name] for each in of_store]
        assert None in values if part is None else any(part in str(value) for value in values)
    if not damage.store.startswith("lake"):
        # A wrong lake makes all that is computed from it wrong.
        consequences = {"index alerts"} if store.startswith("index") else set()
        assert {each["store"] for each in differences} - consequences == {store} - consequences
