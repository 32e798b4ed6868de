"""No record stops the job: an interaction counts, any other record becomes a dead letter with a reason."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from itertools import product
from typing import Any

import polars as pl
from confluent_kafka import KafkaError, Producer
from deltalake import write_deltalake
from mirakuru import HTTPExecutor
from stream_processing.lake import EVENT_FRAME, Lake

from contract.dead_letters import OTHER, kind_of
from local_stack.services import SINK, STREAM
from observer.services import read_service
from tests.interaction import Interaction
from tests.pipeline import Pipeline, assert_equal, eventually, headers_of
from tests.reference import reference_tables

_TEMPLATES = (
    b'{"user_id":"%s","item_id":"%s","interaction_type":"view","timestamp":1}',
    b'{"user_id": "%s", "item_id": "%s", "interaction_type": "like", "timestamp": 2}',
    b'{"item_id":"%s" , "user_id":"%s","timestamp":3,"interaction_type":"click"}',
)
_COMPACT = _TEMPLATES[0] % (b"u", b"i")

# Valid and invalid parts of a JSON string.
_PARTS: list[bytes] = [
    *(text.encode() for text in ("?", "u", "/", "%", " ", "é", "e\u0301", "😀", "\ufffd", "\uffff", "\ufeff", "\x7f")),
    *(text.encode() for text in ("\u2028", "\u0130", "-", "#", "A")),
    rb"\ud83d", rb"\uD83E", rb"\ude00", rb"\uDE00", rb"\ud83d\ude00", rb"\\", rb"\\ud83d", rb"\\\ud83d", rb"\"", rb"\/",
    rb"\u0000", rb"\ufffd", rb"\u0041", rb"\u00e9", rb"\u00E9", rb"\n", rb"\u12", rb"\x", b"\x00", b"\x1f",
    b"\xff", b"\xc0\x80", b"\xed\xa0\xbd", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf5\x80\x80\x80",
]  # fmt: skip


def _with(**fields: bytes) -> bytes:
    """Return an interaction with these fields, which are raw JSON."""
    fields = {"user_id": b'"u"', "item_id": b'"i"', "interaction_type": b'"view"', "timestamp": b"1"} | fields
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in fields.items()) + b"}"


_MALFORMED: dict[bytes | None, str] = {
    None: "the value is empty",
    b"": "not one JSON object",
    b"null": "not one JSON object",
    b'"' * 1_000_000: "not one JSON object",
    b"," * 1_000_000: "not one JSON object",
    b"[" * 100_000: "not one JSON object",
    b'{"a":' * 100_000: "not one JSON object",
    _with(x=b"[" * 100_000 + b"]" * 100_000): "not one JSON object",
    _with(timestamp=b"9" * 900_000): "not one JSON object",
    _with(x=b'"a\nb"'): "not one JSON object",
    b"\xef\xbb\xbf" + _COMPACT: "not one JSON object",
    _COMPACT + b"\x00": "not one JSON object",
    _COMPACT.decode().encode("utf-16-le"): "not one JSON object",
    _COMPACT.decode().encode("utf-16"): "not UTF-8",
    b"\xff" * 900_000: "not UTF-8",
    _with(**{"x\\ud83d": b"1"}): "not text: \\ud83d is half of a surrogate pair",
    _with(x=rb'"\uDE00"'): "not text: \\uDE00 is half of a surrogate pair",
    _with(user_id=b'"%s"' % (b"u" * 513)): "user_id has 513 bytes of UTF-8, more than 512",
    _with(user_id=b'"%s"' % (rb"\u0041" * 513)): "user_id has 513 bytes of UTF-8, more than 512",
    _with(item_id=b'"%s"' % ("ü" * 257).encode()): "item_id has 514 bytes of UTF-8, more than 512",
    _with(user_id=b'"%s"' % (b"u" * 900_000)): "user_id has 900000 bytes of UTF-8, more than 512",
    _with(user_id=b"[" * 900 + b"]" * 900): "user_id is not a string",
    _with(interaction_type=b'"%s"' % (b"v" * 600_000)): (
        f"interaction_type is {'v' * 80}... (600000 characters), not one of click, like, view, purchase"
    ),
    _with(timestamp=b'"%s"' % (b"9" * 600_000)): (
        f"timestamp is {'9' * 80}... (600000 characters), not a whole number of seconds"
    ),
    _with(timestamp=b"9" * 500): f"timestamp is {'9' * 80}... (500 characters), not a whole number of seconds",
    _with(timestamp=b"1e400"): 'timestamp is "Infinity", not a whole number of seconds',
    _with(timestamp=b"1e999999999"): 'timestamp is "Infinity", not a whole number of seconds',
    _with(timestamp=b"9223372036854775808"): (
        "timestamp 9223372036854775808 is not epoch seconds within the years 1970 to 9999"
    ),
    _with(timestamp=b"-123456789012345678901234567890"): (
        "timestamp -123456789012345678901234567890 is not epoch seconds within the years 1970 to 9999"
    ),
    _with(timestamp=b"9223372036854775807"): (
        "timestamp 9223372036854775807 is not epoch seconds within the years 1970 to 9999"
    ),
    _with(timestamp=b"-9223372036854775808"): (
        "timestamp -9223372036854775808 is not epoch seconds within the years 1970 to 9999"
    ),
    _with()[:-1] + b',"user_id":"v"}': "user_id occurs more than once",
    _with()[:-1] + rb',"user\u005fid":"v"}': "user_id occurs more than once",
    _with()[:-1] + b',"timestamp":"x"}': "timestamp occurs more than once",
    _with(user_id=b'5,"user_id":"5"'): "user_id occurs more than once",
}

_VALID = [
    _with(x=b"[" * 900 + b"]" * 900),
    _with(x=b'"%s"' % (b"x" * 900_000)),
    _with(x=b'{"user_id":"nested","timestamp":2}'),
    _with(user_id=b'"%s"' % (b"u" * 512), item_id=b'"%s"' % ("ü" * 256).encode()),
    _with(user_id=b'"%s"' % (rb"\u0001" * 512)),
    _with(timestamp=b"-0"),
    _with().replace(b"user_id", rb"user\u005fid"),
]


def _texts() -> list[bytes]:
    """Return records with every part beside every other one in their ids."""
    pairs = list(product(_PARTS, repeat=2))
    return [
        _TEMPLATES[n % len(_TEMPLATES)] % (b"ann" + first + second, second + first)
        for n, (first, second) in enumerate(pairs)
    ]


def _read(value: bytes) -> Interaction | None:
    """Parse a value with Python's own parser; None if it is not an interaction."""
    try:
        fields = json.loads(value.decode())
        fields["user_id"].encode()
        fields["item_id"].encode()
    except ValueError:
        return None
    return Interaction(*(fields[name] for name in ("user_id", "item_id", "interaction_type", "timestamp")))


def _send(pipeline: Pipeline, records: Sequence[tuple[bytes | None, bytes | None]], **arguments: Any) -> None:
    """Send records to the topic with compression."""
    refused: list[KafkaError] = []
    producer = Producer(
        {
            "bootstrap.servers": pipeline.kafka,
            "message.max.bytes": 50 << 20,
            "compression.type": "lz4",
            "on_delivery": lambda error, _: refused.append(error) if error else None,
        }
    )
    for key, value in records:
        producer.produce(pipeline.topic, key=key, value=value, **arguments)
    assert producer.flush(60) == 0
    assert refused == []


def _dead_letters(pipeline: Pipeline, service: str) -> list[tuple[bytes | None, bytes | None, dict[str, str]]]:
    found = []
    for message in pipeline.read(pipeline.settings.dead_letter_topic):
        headers = headers_of(message)
        if headers["dead_letter.service"] == service:
            key, value = message.key(), message.value()
            assert not isinstance(key, str)
            assert not isinstance(value, str)
            found.append((key, value, headers))
    return found


def test_every_record_is_an_interaction_or_a_dead_letter_and_the_job_continues(pipeline: Pipeline) -> None:
    texts = _texts()
    interactions = [found for value in texts + _VALID if (found := _read(value)) is not None]
    assert len(_PARTS) ** 2 > len(interactions) > len(_PARTS) ** 2 / 4
    malformed = [value for value in texts if _read(value) is None]
    keys: list[bytes | None] = [None, b"", b"\xff\xfe", b"k" * 50_000]
    with pipeline.running(STREAM) as job, pipeline.running(SINK):
        pipeline.send(pipeline.topic, [(keys[n % 4], value) for n, value in enumerate(texts + _VALID)])
        _send(pipeline, [(keys[n % 4], value) for n, value in enumerate(_MALFORMED)])
        pipeline.assert_everywhere(interactions)
        expected = sorted([value or b"" for value in [*malformed, *_MALFORMED]])
        eventually(
            lambda: assert_equal(sorted(v or b"" for _, v, _ in _dead_letters(pipeline, "stream-processing")), expected)
        )
        dead_letters = _dead_letters(pipeline, "stream-processing")
        reasons = {value: headers["dead_letter.reason"] for _, value, headers in dead_letters}
        assert {value: reasons[value] for value in _MALFORMED} == _MALFORMED
        assert {reasons[value] for value in malformed} <= {
            "not UTF-8", "not one JSON object", *(f"not text: {half} is half of a surrogate pair" for half in _HALVES),
        }  # fmt: skip
        assert {key for key, _, _ in dead_letters} == {*keys}
        kinds = Counter(kind_of(headers["dead_letter.reason"]) for _, _, headers in dead_letters)
        assert len(kinds) > 5
        assert OTHER not in kinds
        eventually(lambda: assert_equal(_counted(job), kinds))
        assert all("dead_letter.cut" not in headers for _, _, headers in dead_letters)

        # The topic accepts larger records than the dead letter topic: dead letters have the start of the largest ones.
        dead_letter_topic = pipeline.settings.dead_letter_topic
        pipeline.set_max_message_bytes(pipeline.topic, 10 << 20)
        pipeline.set_max_message_bytes(dead_letter_topic, 2 << 20)
        whole = _with(x=b'"%s"' % (b"x" * 1_500_000))
        large = _with(x=b'"%s"' % (b"x" * 5_000_000))
        compressed = b"y" * 30_000_000
        _send(
            pipeline,
            [(b"whole", b"n" + whole), (b"large", large), (b"compressed", compressed), (b"l" * 3_000_000, b"v")],
        )
        _send(pipeline, [(None, whole)], headers=[(f"header-{n}", b"v" * 100) for n in range(5_000)])
        eventually(lambda: assert_equal(len(_dead_letters(pipeline, "stream-processing")), len(expected) + 4))
        by_key = {
            (key or b"")[:10]: (key, value, h) for key, value, h in _dead_letters(pipeline, "stream-processing")[-4:]
        }
        assert by_key[b"whole"][:2] == (b"whole", b"n" + whole)
        assert "dead_letter.cut" not in by_key[b"whole"][2]
        for key, value in ((b"large", large), (b"compressed", compressed), (b"l" * 3_000_000, b"v")):
            cut_key, cut_value, headers = by_key[key[:10]]
            assert (cut_key, cut_value) == (key[:1024], value[: 64 << 10])
            header = f"the original has a key of {len(key)} bytes and a value of {len(value)}"
            assert headers["dead_letter.cut"] == header
            original = next(m for m in pipeline.read(pipeline.topic) if m.key() == key)
            origin = (headers["dead_letter.partition"], headers["dead_letter.offset"])
            assert origin == (str(original.partition()), str(original.offset()))
        assert by_key[b"large"][2]["dead_letter.reason"] == f"the value has {len(large)} bytes, more than 4194304"
        pipeline.assert_everywhere([*interactions, Interaction("u", "i", "view", 1)])

    # From before ids were limited: such an interaction is in the lake and counts, and its row is not published.
    unbounded = Interaction("u" * 600_000, "i", "view", 1)
    _append(pipeline, unbounded)
    expected_tables = reference_tables([*interactions, Interaction("u", "i", "view", 1), unbounded])
    del expected_tables["agg_interactions_user"][unbounded.user_id]
    with pipeline.running(STREAM):
        eventually(lambda: assert_equal(pipeline.topic_tables(), expected_tables))
        eventually(lambda: assert_equal(pipeline.lake_tables(), expected_tables))
    assert "1 changed rows are in the lake and not published" in pipeline.log(STREAM)


def _append(pipeline: Pipeline, interaction: Interaction) -> None:
    lake = Lake(str(pipeline.data / "warehouse"))
    row = (*astuple(interaction)[:3], datetime.fromtimestamp(interaction.timestamp, UTC))
    write_deltalake(lake.interactions, pl.DataFrame([row], schema=EVENT_FRAME, orient="row"), mode="append")


def _counted(job: HTTPExecutor) -> dict[str, float]:
    """Return the dead letters that the job's metrics count, by kind of reason."""
    metrics, prefix = read_service(job.url.geturl().removesuffix("/health"))[1], "stream_dead_letters_total/"
    return {name.removeprefix(prefix): n for name, n in metrics.items() if name.startswith(prefix) and n}


_HALVES = {rb"\ud83d".decode(), rb"\uD83E".decode(), rb"\ude00".decode(), rb"\uDE00".decode()}
