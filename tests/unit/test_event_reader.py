"""Records that are read without Spark: only such as are certainly valid."""

import json

import pytest
from stream_processing.event_reader import read

ORDINARY = {"user_id": "user_1", "item_id": "item_2", "interaction_type": "view", "timestamp": 1_736_404_972}


@pytest.mark.parametrize(
    "value",
    [
        json.dumps(ORDINARY).encode(),
        json.dumps(ORDINARY, separators=(",", ":")).encode(),
        json.dumps(dict(reversed(ORDINARY.items())), indent=1).encode(),
        json.dumps(ORDINARY | {"user_id": "ü-日本-🙂"}, ensure_ascii=False).encode(),
        json.dumps(ORDINARY | {"user_id": "u" * 512, "timestamp": 0}).encode(),
        json.dumps(ORDINARY | {"timestamp": 253_402_300_799}).encode(),
    ],
)
def test_an_ordinary_record_is_read(value: bytes) -> None:
    fields = json.loads(value)
    expected = (fields["user_id"], fields["item_id"], fields["interaction_type"], fields["timestamp"] * 1_000_000)
    assert read([value]) == ([expected], [])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        json.dumps([ORDINARY]).encode(),
        json.dumps(ORDINARY).encode() + b"x",
        json.dumps(ORDINARY).encode() * 2,
        json.dumps(ORDINARY | {"user_id": "ü"}).encode(),
        json.dumps(ORDINARY | {"user_id": ""}).encode(),
        json.dumps(ORDINARY | {"user_id": None}).encode(),
        json.dumps(ORDINARY | {"user_id": 7}).encode(),
        json.dumps(ORDINARY | {"item_id": ["item"]}).encode(),
        json.dumps(ORDINARY | {"item_id": "i" * 513}).encode(),
        json.dumps(ORDINARY | {"item_id": "ü" * 257}, ensure_ascii=False).encode(),
        json.dumps(ORDINARY | {"interaction_type": "share"}).encode(),
        json.dumps(ORDINARY | {"interaction_type": {"view": 1}}).encode(),
        json.dumps(ORDINARY | {"timestamp": -1}).encode(),
        json.dumps(ORDINARY | {"timestamp": 253_402_300_800}).encode(),
        *(json.dumps(ORDINARY | {"timestamp": n}).encode() for n in (2**63 - 1, 2**63, -(2**63), -(2**63) - 1)),
        json.dumps(ORDINARY | {"timestamp": 1.0}).encode(),
        json.dumps(ORDINARY | {"timestamp": True}).encode(),
        json.dumps(ORDINARY | {"timestamp": "1"}).encode(),
        json.dumps(ORDINARY | {"page": "home"}).encode(),
        json.dumps({name: value for name, value in ORDINARY.items() if name != "timestamp"}).encode(),
        json.dumps(ORDINARY).encode().replace(b'"item_id"', b'"user_id": "user_2", "item_id"'),
        json.dumps(ORDINARY).encode().replace(b"1736404972", b"NaN"),
        json.dumps(ORDINARY).encode().replace(b"1736404972", b"01"),
    ],
)
def test_every_other_record_is_left_to_spark(value: bytes) -> None:
    ordinary = json.dumps(ORDINARY).encode()
    interactions, others = read([ordinary, value, ordinary])
    assert (len(interactions), others) == (2, [1])
