"""Keys that move to another partition, and what else may be in the aggregated topic."""

import shutil

import orjson
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from contract.interaction import INTERACTION_TYPES, Interaction
from local_stack.services import SINK, STREAM
from tests.pipeline import A_TIME, Pipeline, assert_equal, eventually, headers_of, row_record
from tests.reference import reference_tables


def _interactions(count: int, first: int = 0) -> list[Interaction]:
    return [
        Interaction(f"user_{n % 40}", f"item_{n % 30}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 + n)
        for n in range(first, first + count)
    ]


def test_a_topic_of_rows_may_be_given_partitions_and_be_read_again_from_the_beginning(pipeline: Pipeline) -> None:
    topic = pipeline.settings.aggregated_topic
    before, after = _interactions(2_000), _interactions(400, 2_000)
    with pipeline.running(STREAM, MAX_OFFSETS_PER_BATCH=200):
        # In many batches, so that the old partitions have greater offsets than the new ones will.
        pipeline.send_interactions(before)
        eventually(lambda: pipeline.assert_published(before))
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.create_partitions([NewPartitions(topic, 9)])[topic].result()
    with pipeline.running(STREAM):
        pipeline.send_interactions(after)
        eventually(lambda: pipeline.assert_published(before + after))
        pipeline.assert_in_the_lake(before + after)
    partitions: dict[object, set[int | None]] = {}
    for message in pipeline.read(topic):
        partitions.setdefault(message.key(), set()).add(message.partition())
    assert sum(len(found) > 1 for found in partitions.values()) > 20

    # Without the checkpoint, as documented: the tables are there, and everything is read again.
    shutil.rmtree(pipeline.data / "checkpoints" / "materialise")
    with pipeline.running(STREAM), pipeline.running(SINK):
        expected = reference_tables(before + after)
        eventually(lambda: assert_equal(pipeline.index_tables(), expected))
        eventually(lambda: _assert_materialised(pipeline))
        assert pipeline.lake_tables() == expected
        _send_odd_rows(pipeline)
        more = _interactions(20, 2_400)
        pipeline.send_interactions(more)
        expected = reference_tables(before + after + more)
        del expected["agg_interactions_item"]["item_29"]
        eventually(lambda: assert_equal(pipeline.index_tables(), expected))
        eventually(lambda: assert_equal(pipeline.lake_tables(), expected))
        eventually(lambda: _assert_refused(pipeline))
        # The topic of dead letters takes less than when the sink asked.
        pipeline.set_max_message_bytes(pipeline.settings.dead_letter_topic, 100_000)
        pipeline.publish((b"nothing-2", b"z" * 200_000))
        eventually(lambda: _assert_cut(pipeline, b"nothing-2", 200_000))
        said = pipeline.command(SINK, "dead-letters", "replay", "--reason", "nothing-2")
        assert "is left out, the original has a key of 9 bytes and a value of 200000" in said
    assert f"records of topic {topic} are no rows, and in no table" in pipeline.log(STREAM)


def _assert_cut(pipeline: Pipeline, key: bytes, size: int) -> None:
    letters = [m for m in pipeline.read(pipeline.settings.dead_letter_topic) if m.key() == key]
    assert_equal(len(letters), 1)
    value = letters[0].value()
    assert isinstance(value, bytes)
    assert 0 < len(value) < 100_000
    said = f"the original has a key of {len(key)} bytes and a value of {size}"
    assert headers_of(letters[0])["dead_letter.cut"] == said


def _assert_materialised(pipeline: Pipeline) -> None:
    assert any((pipeline.data / "checkpoints" / "materialise" / "commits").glob("[0-9]*"))


_LONG = "x" * 600_000
_ODD = {
    (b"\xff\xfe", b"{}"): "the key is not UTF-8",
    (b"nothing-1", b"{}"): "key 'nothing-1' names no row",
    (b"k" * 600_000, b"{}"): "key 'kkk",
    (b"agg_interactions_user-odd", b"\xff"): "the value is not JSON",
    (b"agg_interactions_user-odd", b"["): "the value is not JSON",
    (b"agg_interactions_user-odd", b"[" * 100_000): "the value is not JSON",
    (b"agg_interactions_user-odd", b"[]"): "the value is not a JSON object",
    (b"agg_interactions_user-odd", b"{}"): "user_id is None, but the key says 'odd'",
    (b"agg_interactions_user-odd", b'{"user_id":"\\ud83d"}'): "the value is not JSON",
    (b"agg_interactions_user-odd", orjson.dumps({"user_id": _LONG})): "user_id is 'xxx",
    (b"agg_interactions_user-odd", b'{"user_id":' + b"[" * 900 + b"]" * 900 + b"}"): "user_id is an array",
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
    ): "Elasticsearch refuses",
}


def _send_odd_rows(pipeline: Pipeline) -> None:
    for record in _ODD:
        # Each of them on its own, so that no later record of its key hides it.
        pipeline.publish(record)
    row = {"item_id": "item_29", "min_interactions": 1, "max_interactions": 9, "last_interaction": A_TIME}
    pipeline.publish(row_record("agg_interactions_item", "item_29", row), (b"agg_interactions_item-item_29", None))


def _assert_refused(pipeline: Pipeline) -> None:
    letters = pipeline.read(pipeline.settings.dead_letter_topic)
    reasons = {(m.key(), m.value()): headers_of(m)["dead_letter.reason"] for m in letters}
    assert {(key and key[:50], value and value[:50]) for key, value in _ODD} == {
        (key and key[:50], value and value[:50]) for key, value in reasons
    }
    for record, reason in _ODD.items():
        assert reasons[record].startswith(reason), reasons[record]
        assert len(reasons[record]) < 600
