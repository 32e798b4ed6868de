"""Keys that move to another partition, and invalid records in the aggregated topic."""

import threading

import orjson
from confluent_kafka.admin import AdminClient

from contract.topics import aggregated_topic
from local_stack.services import SINK, STREAM
from runtime import topic_admin
from runtime.kafka_client import NewPartitions
from tests.pipeline import Pipeline, assert_equal, eventually, headers_of, item_record, row_record

_ITEMS = 40


def test_partitions_can_be_added_to_the_aggregated_topic_which_can_be_read_again_from_the_beginning(
    pipeline: Pipeline,
) -> None:
    settings = pipeline.settings
    topic = settings.aggregated_topic
    topic_admin.create_missing_topics(settings.kafka_client, threading.Event(), aggregated_topic(settings))
    # Many records of each key, so that the old partitions have higher offsets than the new ones.
    pipeline.publish(*[item_record(n, value) for value in range(20) for n in range(_ITEMS)])
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.create_partitions([NewPartitions(topic, 9)])[topic].result()
    eventually(lambda: assert_equal(len(admin.list_topics(topic, timeout=10).topics[topic].partitions), 9))
    pipeline.publish(*[item_record(n, 100 + n) for n in range(_ITEMS)])
    partitions: dict[object, set[int | None]] = {}
    for message in pipeline.read(topic):
        partitions.setdefault(message.key(), set()).add(message.partition())
    assert sum(len(found) > 1 for found in partitions.values()) > _ITEMS // 3

    # A job without a checkpoint, and a new sink.
    latest = {f"item_{n}": 100 + n for n in range(_ITEMS)}
    with pipeline.running(STREAM, STATE_STORE="rocksdb"), pipeline.running(SINK):
        eventually(lambda: assert_equal(_indexed(pipeline), latest))
        eventually(lambda: assert_equal(len(_materialised(pipeline)), _ITEMS))
        assert _materialised(pipeline) == latest
        for record in _INVALID:
            pipeline.publish(record)
        # A deleted row, and a changed one.
        pipeline.publish((b"agg_interactions_item-item_7", None), item_record(3, 300))
        del latest["item_7"]
        latest["item_3"] = 300
        eventually(lambda: assert_equal(_indexed(pipeline), latest))
        eventually(lambda: assert_equal(_materialised(pipeline), latest))
        eventually(lambda: _assert_rejected(pipeline))
        # The dead letter topic accepts less than when the sink requested its limit.
        pipeline.set_max_message_bytes(settings.dead_letter_topic, 100_000)
        pipeline.publish((b"nothing-2", b"z" * 200_000))
        eventually(lambda: _assert_cut(pipeline, b"nothing-2", 200_000))
        output = pipeline.command(SINK, "dead-letters", "replay", "--reason", "nothing-2")
        assert "is skipped, the original has a key of 9 bytes and a value of 200000" in output
    assert f"records of topic {topic} are not valid rows and in no table" in pipeline.log(STREAM)


def _indexed(pipeline: Pipeline) -> dict[str, int]:
    return {id_: row["max_interactions"] for id_, row in pipeline.documents("agg_interactions_item").items()}


def _materialised(pipeline: Pipeline) -> dict[str, int]:
    rows = pipeline.lake_rows("SELECT * FROM agg_interactions_item")
    return {row["item_id"]: row["max_interactions"] for row in rows}


def _assert_cut(pipeline: Pipeline, key: bytes, size: int) -> None:
    dead_letters = [m for m in pipeline.read(pipeline.settings.dead_letter_topic) if m.key() == key]
    assert_equal(len(dead_letters), 1)
    value = dead_letters[0].value()
    assert isinstance(value, bytes)
    assert 0 < len(value) < 100_000
    header = f"the original has a key of {len(key)} bytes and a value of {size}"
    assert headers_of(dead_letters[0])["dead_letter.cut"] == header


_LONG = "x" * 600_000
_INVALID = {
    (b"\xff\xfe", b"{}"): "the key is not UTF-8",
    (b"nothing-1", b"{}"): "key 'nothing-1' names no row",
    (b"k" * 600_000, b"{}"): "key 'kkk",
    (b"agg_interactions_user-odd", b"\xff"): "the value is not JSON",
    (b"agg_interactions_user-odd", b"["): "the value is not JSON",
    (b"agg_interactions_user-odd", b"[" * 100_000): "the value is not JSON",
    (b"agg_interactions_user-odd", b"[]"): "the value is not a JSON object",
    (b"agg_interactions_user-odd", b"{}"): "user_id is missing or null: expected text",
    (b"agg_interactions_user-odd", b'{"user_id":"\\ud83d"}'): "the value is not JSON",
    (b"agg_interactions_user-odd", orjson.dumps({"user_id": _LONG})): "user_id is 'xxx",
    (b"agg_interactions_user-odd", b'{"user_id":' + b"[" * 900 + b"]" * 900 + b"}"): "'user_id' is an array",
    row_record(
        "agg_interactions_item", "odd_0", {"item_id": "odd_0", "max_interactions": "many"}
    ): "Elasticsearch refuses",
    row_record(
        "agg_interactions_item", "odd_1", {"item_id": "odd_1", "max_interactions": 1.5e300}
    ): "Elasticsearch refuses",
    row_record(
        "agg_interactions_item", "odd_2", {"item_id": "odd_2", "last_interaction": _LONG}
    ): "Elasticsearch refuses",
    row_record(
        "agg_interactions_item", "odd_3", {"item_id": "odd_3", "min_interactions": {"a": 1}}
    ): "'min_interactions' is an object",
}


def _assert_rejected(pipeline: Pipeline) -> None:
    dead_letters = pipeline.read(pipeline.settings.dead_letter_topic)
    reasons = {(m.key(), m.value()): headers_of(m)["dead_letter.reason"] for m in dead_letters}
    assert {(key and key[:50], value and value[:50]) for key, value in _INVALID} == {
        (key and key[:50], value and value[:50]) for key, value in reasons
    }
    for record, reason in _INVALID.items():
        assert reasons[record].startswith(reason), reasons[record]
        assert len(reasons[record]) < 600
