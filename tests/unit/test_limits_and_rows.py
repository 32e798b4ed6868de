"""Size limits of records and dead letters, the latest row of a key, and rows that are invalid; without a server."""

import json
from datetime import UTC, datetime

import orjson
import pytest
from data_producer.publisher import Publisher
from elasticsearch_sink_alert.kafka.rows import Record, latest_rows
from elasticsearch_sink_alert.kafka.versions import VersionClock
from stream_processing.materialise import read_row

from contract.dead_letters import MAX_BYTES, Capacity, cut_header, truncated
from contract.keys import RowKey, UnknownKeyError, decode_key
from runtime.health import Health

ITEM = RowKey("agg_interactions_item", "i")
ROW = {
    "item_id": "i",
    "min_interactions": 1,
    "max_interactions": 2,
    "last_interaction": "1970-01-01T00:00:01.000Z",
}


def test_a_record_that_the_client_rejects_is_counted_and_not_retried() -> None:
    publisher = Publisher({"bootstrap.servers": "127.0.0.1:1"}, "t", Health("kafka"), max_message_bytes=2_000)
    publisher.publish_records([{"value": b"v" * 5_000}, {"value": b"v"}])
    assert (publisher.accepted, publisher.refused) == (2, 1)


@pytest.mark.parametrize("limit", [1_024, 100_000, 1_048_588, 5 << 20])
def test_a_dead_letter_fits_its_topic_whatever_the_size_of_the_original(limit: int) -> None:
    capacity = Capacity.of(limit)
    whole = b"v" * capacity.max_bytes
    assert Capacity.of(1 << 30) == Capacity.of(MAX_BYTES)
    assert capacity.fit(b"", whole) == (b"", whole, None)
    key, value, cut = capacity.fit(b"key", whole)
    assert cut == cut_header(3, len(whole))
    for original in ((b"k" * (limit + 1), None), (None, b"v" * (limit + 1)), (b"k" * limit, b"v" * limit)):
        key, value, cut = capacity.fit(*original)
        assert cut is not None
        assert (key is None, value is None) == (original[0] is None, original[1] is None)
        assert len(key or b"") + len(value or b"") <= max(capacity.max_bytes, 0) < limit


def test_a_reason_quotes_only_the_start_of_a_long_text() -> None:
    assert truncated("short") == "short"
    assert truncated("a" * 600_000) == "a" * 80 + "... (600000 characters)"
    with pytest.raises(UnknownKeyError) as error:
        decode_key("k" * 600_000)
    assert len(str(error.value)) < 400


def _record(value: object, *, key: str = "agg_interactions_item-i", partition: int = 0, offset: int, at: int) -> Record:
    return Record("t", partition, offset, at, key.encode(), orjson.dumps(value))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_latest_row_is_the_one_that_was_appended_last_in_any_partition(reverse: bool) -> None:
    old = _record(ROW | {"max_interactions": 2}, partition=3, offset=1_000, at=10)
    new = _record(ROW | {"max_interactions": 3}, partition=7, offset=0, at=20)
    rows, rejected = latest_rows([new, old] if reverse else [old, new], VersionClock())
    assert rejected == []
    assert [(row.fields or {})["max_interactions"] for row in rows] == [3]
    assert rows[0].record is new


def test_a_row_is_parsed_into_the_types_of_its_table() -> None:
    assert read_row(ITEM, orjson.dumps(ROW)) == ROW | {"last_interaction": datetime.fromtimestamp(1, UTC)}
    assert read_row(ITEM, b'{"item_id": "i"}') == dict.fromkeys(ROW) | {"item_id": "i"}
    user = read_row(RowKey("agg_interactions_user", "u"), b'{"user_id": "u", "avg_interactions": 5}')
    assert (user["avg_interactions"], type(user["avg_interactions"])) == (5.0, float)
    of_a_day = read_row(ITEM, orjson.dumps(ROW | {"last_interaction": "1970-01-01"}))
    assert of_a_day["last_interaction"] == datetime.fromtimestamp(0, UTC)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"item_id":' * 100_000,
        b"[]",
        b"null",
        b"{}",
        b'{"item_id": "another"}',
        b'{"item_id": "\\ud83d"}',
        b'{"item_id": "i", "max_interactions": ' + b"9" * 10_000 + b"}",
        *(
            json.dumps(ROW | {name: value}).encode()
            for name, values in {
                "max_interactions": ["2", 2.0, True, [], {}, 1 << 63, float("nan"), float("inf")],
                "last_interaction": [1, True, "", "yesterday", "2026-13-01", [], "9" * 100_000],
            }.items()
            for value in values
        ),
        b'{"item_id": "i", "max_interactions": 1e400}',
        '{"item_id": "i"}'.encode("utf-16"),
    ],
)
def test_an_invalid_row_is_rejected(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_row(ITEM, value)


@pytest.mark.parametrize("value", [b'"5"', b"true", b"1e400", b"-1e400", b"1" + b"0" * 400, b"NaN", b"[]"])
def test_a_double_column_accepts_only_numbers_within_its_range(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_row(RowKey("agg_interactions_user", "u"), b'{"user_id":"u","avg_interactions":' + value + b"}")
