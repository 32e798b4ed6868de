"""Ids of rows in keys, addresses, queries and pages: each is that of one row, and none is read as anything else."""

import asyncio
import json
import re
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from contract.declaration import Event, Table, choice, count, epoch_seconds, every, flag, text, whole
from contract.declared import TABLES, table_named
from contract.fields import MAX_TIMESTAMP
from contract.keys import RowKey, UnknownKeyError, decode_key, encode_key
from contract.tables import decode_row_id, encode_row_id
from live_page.formatting import format_json, format_text, format_time, format_value
from live_page.guard import Guard
from live_page.pages.alert_rows import alert_row
from live_page.pages.links import KEYED, decode_id, encode_id, row_href, row_label, table_href
from live_page.pages.row_queries import events_of
from live_page.pages.topics import _dead_letter_row
from live_page.sources.errors import EmptyError
from live_page.sources.records import Record, as_time, format_offsets, parse_offsets
from live_page.sources.sql_worker import run_query
from tests.properties.hostile import any_texts, assert_one_line, is_one_line, number_of_examples, texts

_KIND: Final = choice("kind", "a", "b|c", "\\")
_EVENT: Final = Event(
    "events", text("who"), _KIND, whole("size"), flag("is_new"), epoch_seconds("at"), time="at", partition_by="who"
)
_MEASURES: Final = {"n": count()}
_HOUR: Final = every(hours=1)
_TABLES: Final = {
    "a text": Table("t", _EVENT, ("who",), _MEASURES),
    "a whole number": Table("t", _EVENT, ("size",), _MEASURES),
    "a flag": Table("t", _EVENT, ("is_new",), _MEASURES),
    "a window": Table("t", _EVENT, (_HOUR,), _MEASURES),
    "two texts": Table("t", _EVENT, ("who", "kind"), _MEASURES),
    "all": Table("t", _EVENT, (_HOUR, "is_new", "size", "kind", "who"), _MEASURES),
}
_CONTROLS: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202f\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""What a page shows as an escape: in a cell, a line break and a tab do no harm."""

_hours = st.integers(0, MAX_TIMESTAMP // 3_600).map(lambda n: datetime(1970, 1, 1, tzinfo=UTC) + n * timedelta(hours=1))
_values: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "who": texts,
    "kind": st.sampled_from(_KIND.choices),
    "size": st.integers(-(10**15), 10**15),
    "is_new": st.booleans(),
    "hour": _hours,
}
_rows = st.fixed_dictionaries(dict(_values))


# --- Keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _TABLES)
@given(row=_rows, other=_rows)
def test_a_row_has_one_id_and_an_id_is_of_one_row(name: str, row: dict[str, Any], other: dict[str, Any]) -> None:
    table = _TABLES[name]
    row_id = table.row_id(row)
    assert row_id is not None
    assert table.key_values(row_id) == [row[column] for column in table.key]
    is_same = all(row[column] == other[column] for column in table.key)
    assert (table.row_id(other) == row_id) == is_same
    # As in a record, where a time is a text.
    written = {column: _in_json(row[column]) for column in table.key}
    assert table.row_id(written) == row_id
    assert table.key_problem(written, row_id) == ""
    problem = table.key_problem({column: _in_json(other[column]) for column in table.key}, row_id)
    assert is_same if problem == "" else is_one_line(problem)


def _in_json(value: Any) -> Any:
    return f"{value:%Y-%m-%dT%H:%M:%S}.000Z" if isinstance(value, datetime) else value


@pytest.mark.parametrize("name", _TABLES)
@given(row_id=any_texts | st.text("0123456789-+_ |\\a٣", max_size=6) | st.text("2026-01-31T12:00:00Z|\\", max_size=24))
# These were taken for the numbers 5, and the page of a row that does not exist showed the events of another one.
@example(row_id="05")
@example(row_id="+5")
@example(row_id="5_0")
@example(row_id="٣")
@example(row_id=" 5")
# More digits than Python parses.
@example(row_id="1" * 5_000)
# An escape where none is needed, and one of nothing.
@example(row_id="\\a|b")
@example(row_id="a|b\\")
# It has an empty second part, which was lost.
@example(row_id="a|")
@example(row_id="|")
@example(row_id="a|b\n")
@example(row_id="0001-01-01T00:00:00+14:00")
@example(row_id="9999-12-31T23:00:00Z")
def test_a_text_is_the_id_of_a_row_or_refused(name: str, row_id: str) -> None:
    table = _TABLES[name]
    try:
        values = table.key_values(row_id)
    except ValueError as error:
        assert_one_line(error)
    else:
        assert encode_row_id([table._id_value(*each) for each in zip(table.key, values, strict=True)]) == row_id


@given(st.lists(texts | st.just(""), min_size=2, max_size=4))
@example(["a", ""])
@example(["", "", ""])
@example(["\\", "|"])
def test_the_parts_of_an_id_are_found_again(parts: list[str]) -> None:
    assert decode_row_id(encode_row_id([*parts])) == parts


@given(st.sampled_from(KEYED), texts)
def test_a_key_has_table_and_id(table: Table, row_id: str) -> None:
    assert decode_key(encode_key(table.name, row_id)) == RowKey(table.name, row_id)


@given(any_texts | st.tuples(st.sampled_from([table.name for table in TABLES]), any_texts).map("".join))
def test_any_other_key_is_refused_in_one_line(key: str) -> None:
    try:
        table, row_id = decode_key(key)
    except UnknownKeyError as error:
        assert_one_line(error)
    else:
        assert key == (encode_key(table, row_id) if table_named(table).key else row_id)


# --- Addresses ------------------------------------------------------------------------------------------


@given(texts)
def test_an_id_is_one_segment_of_a_path_however_often_that_is_percent_encoded(row_id: str) -> None:
    segment = encode_id(row_id)
    assert re.fullmatch(r"[A-Za-z0-9_~-]+", segment)
    assert decode_id(segment) == decode_id(unquote(segment)) == decode_id(quote(segment)) == row_id
    for table in KEYED:
        assert row_href(table, row_id) == f"{table_href(table)}/{segment}"


@given(any_texts | st.text("~%FfE0c3", max_size=12))
def test_any_segment_of_a_path_is_some_text(segment: str) -> None:
    decode_id(segment).encode()


def _status(host: str, origin: str | None) -> int:
    sent: list[MutableMapping[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {}

    headers = [("host", host)] + ([] if origin is None else [("origin", origin)])
    encoded = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
    scope = {"type": "http", "headers": encoded, "extensions": {}}
    asyncio.run(Guard(app, ["page.example.com"])(scope, receive, send))
    status = sent[0]["status"]
    assert isinstance(status, int)
    return status


_hosts = st.sampled_from(("localhost:8090", "page.example.com", "[::1]:8090", "evil.example.com", "[", "]", "a:b", "@"))


@settings(max_examples=number_of_examples(0.6))
@given(_hosts | any_texts, st.none() | any_texts | _hosts.map(lambda host: f"http://{host}"))
# The page answered 500: no address with half of the brackets of IPv6 can be split.
@example("localhost:8090", "http://[")
@example("localhost:8090", "http://]")
@example("localhost:8090", "http://[x]")
def test_the_page_answers_or_refuses_any_host_and_origin(host: str, origin: str | None) -> None:
    status = _status(host, origin)
    assert status in (200, 400, 403)
    names = "|".join(("localhost", r"127\.0\.0\.1", r"\[::1\]", r"page\.example\.com"))
    if status == 200:
        assert re.fullmatch(rf"(.*@)?({names})(:.*)?([/?#].*)?", host, re.IGNORECASE | re.DOTALL), host


# --- Queries ----------------------------------------------------------------------------------------------

_IDS: Final = ("user_1", "a' OR '1'='1", '"; DROP TABLE interactions; --', "?", "a\x00b", "é😀", "%", "_", "\\", "a|b")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("lake")
    rows = [(who, item, at) for who in _IDS for item in _IDS[:3] for at in (0, 3_599, 3_600)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "at"], orient="row")
    time = pl.from_epoch("at", "s").dt.replace_time_zone("UTC").alias("timestamp")
    frame.select("user_id", "item_id", pl.lit("view").alias("interaction_type"), time).write_parquet(
        folder / "a.parquet"
    )
    return {"interactions": [str(folder / "a.parquet")]}


@settings(max_examples=number_of_examples(0.25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(who=st.sampled_from(_IDS) | texts)
@example(who="a' OR '1'='1")
@example(who="a\x00b")
def test_the_events_of_a_row_are_those_with_its_id_and_no_others(files: dict[str, list[str]], who: str) -> None:
    expected = {
        "agg_interactions_user": 9 if who in _IDS else 0,
        "agg_interactions_item_hour": 20 if who in _IDS[:3] else 0,
    }
    ids = {"agg_interactions_user": who, "agg_interactions_item_hour": encode_row_id([who, "1970-01-01T00:00:00Z"])}
    for table, row_id in ids.items():
        condition, parameters = events_of(table_named(table), decode_id(encode_id(row_id)))
        assert re.fullmatch(r"[A-Za-z_\" ().?<>=]+", condition)
        found = _query(f"SELECT * FROM interactions WHERE {condition}", parameters, files)
        assert len(found["rows"]) == expected[table], row_id


@given(any_texts | st.text("2026-01-31T12:00:00Z|\\", max_size=24))
def test_any_id_in_an_address_has_events_or_is_that_of_no_row(row_id: str) -> None:
    for table in KEYED:
        try:
            condition, parameters = events_of(table, row_id)
        except EmptyError as error:
            assert_one_line(error)
        else:
            assert condition.count("?") == len(parameters)


_WORDS: Final = (
    "SELECT", "FROM", "interactions", "WHERE", "*", "1", "'a", "'a'", '"user_id"', "(", ")", ",", ";", "--", "/*", "*/",
    "$$", "?", "$1", "EXPLAIN", "ATTACH", "COPY", "TO", "'/tmp/x'", "PRAGMA", "SET", "read_csv('/etc/passwd')", "UNION",
    "ORDER BY", "LIMIT", "\n", "\x00", "é", "\ufeff", "::", "INTERVAL", "count(*)", "WITH", "AS", "e'\\x'", "DESCRIBE",
    "INSTALL", "LOAD", "CREATE", "DROP TABLE", "getenv('HOME')", "glob('/*')", "error('\x1b[31m')", "CALL", "VALUES",
)  # fmt: skip


@settings(max_examples=number_of_examples(0.6), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(_WORDS) | st.text(max_size=3), max_size=7))
@example(words=["SELECT", "error('\x1b[31m')"])
@example(words=["SELECT 1 AS a, 2 AS a; -- ;"])
@example(words=["SELECT", "'é;'", ";"])
@example(words=["SELECT", "read_csv('/etc/passwd')"])
@example(words=["FROM glob('/*')"])
@example(words=[])
def test_any_query_has_a_result_or_is_refused(files: dict[str, list[str]], words: list[str]) -> None:
    before = Path(files["interactions"][0]).read_bytes()
    try:
        result = _query(" ".join(words), [], files)
    # What the query's process reports in one line.
    except (duckdb.Error, ValueError) as error:
        shown = format_text(" ".join(str(error).split()))
        assert not _CONTROLS.search(shown)
    else:
        assert all(cell is None or isinstance(cell, str) for row in result["rows"] for cell in row)
        assert "root:" not in str(result["rows"])
    assert Path(files["interactions"][0]).read_bytes() == before


def _query(sql: str, parameters: list[str], files: dict[str, list[str]]) -> dict[str, Any]:
    return run_query(sql, parameters, files, str(Path(files["interactions"][0]).parent))


# --- Pages --------------------------------------------------------------------------------------------------


@given(any_texts, st.none() | st.integers(1, 40))
def test_text_is_shown_without_control_characters(value: str, max_length: int | None) -> None:
    shown = format_text(value, max_length)
    assert not _CONTROLS.search(shown)
    if max_length is not None and len(value) > max_length:
        assert f"({len(value):,} characters)" in shown


@given(any_texts | st.text("2026-01-31T12:00:00Z+:.", max_size=28))
@example("12:00\x00")
def test_what_is_typed_as_a_filter_of_records_is_used_or_nothing(value: str) -> None:
    at = as_time(value)
    assert at is None or at.utcoffset() == timedelta(0)
    assert parse_offsets(format_offsets(parse_offsets(value))) == parse_offsets(value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_texts, inner, max_size=4),
    max_leaves=20,
)


@given(_json, st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " :\r")]), st.booleans())
def test_json_that_is_shown_by_line_has_the_same_values_and_digits(
    value: object, separators: tuple[str, str], is_ascii: bool
) -> None:
    text = json.dumps(value, separators=separators, ensure_ascii=is_ascii)
    shown = format_json(text)
    assert json.loads(shown, parse_float=str, parse_int=str) == json.loads(text, parse_float=str, parse_int=str)


@given(any_texts | st.text("2026-01-31T12:00:00Z+:", max_size=28), any_texts)
@example("0001-01-01T00:00:00+14:00", "")
def test_the_cells_of_a_page_have_no_control_characters_whatever_a_record_has(value: str, other: str) -> None:
    record = Record(
        at=datetime.now(UTC), partition=0, offset=0, key=value, value=other, size=0, is_cut=False,
        headers={"dead_letter.topic": other, "dead_letter.partition": value, "dead_letter.reason": value},
    )  # fmt: skip
    cells = [format_time(value), format_time(value, is_day=True), format_value(value)]
    cells += [str(cell) for cell in _dead_letter_row("topic", record, is_replayed=True).values()]
    cells.append(format_text(format_json(value)))
    for table in TABLES:
        cells.append(format_text(row_label(table, value)))
        alert = {
            "rule": value, "alert_text": other, "index": table.name, "id": value, "value": other, "status": "firing",
            "fired_at": "2026-01-31T12:00:00Z", "resolved_at": None,
        }  # fmt: skip
        shown = alert_row(alert)
        cells += [str(shown[name]) for name in ("fired", "state", "rule", "id", "value", "lasted")]
        assert re.fullmatch(r"(/[A-Za-z0-9_~-]+/[A-Za-z0-9_~-]*)?", shown["href"])
    assert not any(_CONTROLS.search(cell) for cell in cells), cells
