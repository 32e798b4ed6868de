"""Records of the aggregated topic: each is a row, a deletion or a dead letter with a reason, whatever its bytes are.

Both readers of the topic: the sink, and the stream job's update of the aggregate tables.
"""

import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

import orjson
import polars as pl
from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert, AlertKey, evaluate, past_windows_resolved
from elasticsearch_sink_alert.alerting.rules import COMPARABLE, OPERATORS, Rule
from elasticsearch_sink_alert.indexing.bulk import bulk_action
from elasticsearch_sink_alert.indexing.errors import classify_error, describe_error
from elasticsearch_sink_alert.indexing.row_index import row_requests
from elasticsearch_sink_alert.kafka.rows import Record, latest_rows
from elasticsearch_sink_alert.kafka.versions import VersionClock
from hypothesis import example, given
from hypothesis import strategies as st
from stream_processing.engines import polars_type
from stream_processing.materialise import _by_table, _convert

from contract.declared import TABLES, table_named
from contract.fields import MAX_ID_BYTES, ColumnType
from contract.keys import RowKey, encode_key
from contract.tables import Column, Table
from tests.properties.hostile import RAW_JSON, any_texts, is_one_line, mostly, mutated, objects, raw, texts

_KEYED: Final = [table for table in TABLES if table.key]
_START: Final = "2026-01-31T12:00:00Z"
_WINDOW_SIZES: Final = {"minute": 60, "hour": 3_600}

Expected = Literal["row", "deletion", "rejection"]
Pair = tuple[bytes | None, bytes | None]

_FOUND: Final[dict[str, Pair]] = {
    # The sink ended: the writer of JSON takes 254 levels, its parser 1,024, and a line break made it write again.
    "nested, on two lines": (
        b"agg_interactions_item-a",
        b'{"item_id": "a",\n "x": ' + b"[" * 300 + b"]" * 300 + b"}",
    ),
    # Its number was changed on the way to Elasticsearch.
    "a large number, on two lines": (
        b"agg_interactions_item-a",
        b'{"item_id": "a",\n "max_interactions": 9007199254740993000000}',
    ),
    # It became a document without an id in it, and a row of the Delta table with a null key at each change.
    "no key column": (b"agg_interactions_item-None", b"{}"),
    "a null key column": (b"agg_interactions_item-None", b'{"item_id": null, "max_interactions": 50}'),
    "a number as a text": (b"agg_interactions_item-5", b'{"item_id": 5}'),
    "a list as a text": (b"agg_interactions_item-[]", b'{"item_id": []}'),
    # Its alert ended the sink, when it asked whether the window was over.
    "a window without a time zone": (
        b"agg_interactions_minute-2026-01-31T12:00:00Z",
        b'{"minute": "2026-01-31T12:00:00", "total_interactions": 900}',
    ),
    "a window as a number": (b"agg_interactions_minute-5", b'{"minute": 5, "total_interactions": 900}'),
    "a time within a window": (b"agg_interactions_minute-2026-01-31T12:00:01Z", b'{"minute": "2026-01-31T12:00:01Z"}'),
    # In the year 0 in UTC.
    "a time before the first year": (
        b"agg_interactions_item-a",
        b'{"item_id": "a", "last_interaction": "0001-01-01T00:00:00+14:00"}',
    ),
    "an id of another one": (b"agg_interactions_item-a", b'{"item_id": "\\u001b[31m"}'),
    "a deletion": (b"agg_interactions_item-a", None),
    "an empty id": (b"agg_interactions_item-", b'{"item_id": ""}'),
    "no key": (None, b"{}"),
}  # fmt: skip


# --- Records --------------------------------------------------------------------------------------

_ids = st.sampled_from(("a", "user-1", "None", "5", "true", "[]", _START, "é" * 256, "é" * 257, "x" * 513)) | texts


@st.composite
def _rows(draw: st.DrawFn) -> Pair:
    """Return a record that is often a row, and otherwise nearly one."""
    table = draw(st.sampled_from(TABLES))
    item = draw(_ids)
    values = dict.fromkeys(table.key, item)
    if table.key.window is not None:
        values[table.key.window.name] = draw(st.sampled_from((_START, _START, _START, item)))
    row_id = "|".join(
        (text.replace("\\", "\\\\").replace("|", "\\|") if len(values) > 1 else text) for text in values.values()
    )
    key = encode_key(table.name, row_id if table.key else None).encode()
    members = [(column.name, _value(column.type, values.get(column.name))) for column in table.columns]
    changed_key = draw(mutated(st.just(key))) if draw(st.integers(0, 9)) == 0 else key
    return changed_key, draw(st.none() | mutated(objects(members)) if draw(st.booleans()) else objects(members))


def _value(type: ColumnType, key_value: str | None) -> st.SearchStrategy[str]:
    usual: dict[ColumnType, st.SearchStrategy[Any]] = {
        ColumnType.LONG: st.integers(0, 200),
        ColumnType.DOUBLE: st.floats(0, 200),
        ColumnType.DATE: st.just(_START),
        ColumnType.KEYWORD: any_texts,
        ColumnType.FLAG: st.booleans(),
        ColumnType.DECIMAL: st.integers(0, 200),
    }
    right = usual[type].map(raw) if key_value is None else st.just(raw(key_value))
    return mostly(right, st.sampled_from(RAW_JSON), one_in=12)


_keys = st.none() | st.binary(max_size=12) | _ids.map(lambda id_: f"{_KEYED[0].name}-{id_}".encode())
_other_values = st.none() | st.binary(max_size=12) | st.sampled_from(RAW_JSON).map(str.encode)
_pairs = st.one_of(_rows(), _rows(), _rows(), st.tuples(_keys, _other_values))
_batches = st.lists(_pairs, min_size=1, max_size=8)


# --- What is expected, in plain words -----------------------------------------------------------------


def _expected(key: bytes | None, value: bytes | None) -> Expected:
    found = _row_key(key)
    if found is None:
        return "rejection"
    if value is None:
        return "deletion"
    fields = _object(value)
    if fields is None or any(isinstance(each, list | dict) for each in fields.values()):
        return "rejection"
    table, row_id = found
    return "row" if not table.key or row_id == _row_id(table, fields) else "rejection"


def _row_key(key: bytes | None) -> tuple[Table, str] | None:
    try:
        text = (key or b"").decode()
    except UnicodeDecodeError:
        return None
    name, separator, row_id = text.partition("-")
    for table in TABLES:
        if table.key and table.name == name and row_id and len(row_id.encode()) <= MAX_ID_BYTES:
            return table, row_id
        if not table.key and table.name == name and not separator:
            return table, text
    return None


def _object(value: bytes) -> dict[str, Any] | None:
    """Parse a JSON object with Python's own parser; None if it is none."""

    def number(text: str) -> float:
        found = float(text)
        if not math.isfinite(found):
            raise ValueError(text)
        return found

    def whole(text: str) -> int | float:
        # A number beyond 64 bits is a double.
        return int(text) if -(1 << 63) <= number(text) < 1 << 63 else number(text)

    try:
        found = json.loads(value.decode(), parse_float=number, parse_int=whole, parse_constant=number)
        # Half of a surrogate pair is no text.
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _row_id(table: Table, fields: dict[str, Any]) -> str | None:
    parts = []
    for name in table.key:
        value = fields.get(name)
        if not isinstance(value, str):
            return None
        if table.key.window is not None and name == table.key.window.name:
            start = _window_start(name, value)
            if start is None:
                return None
            value = start
        parts.append(value)
    return parts[0] if len(parts) == 1 else "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)


def _window_start(name: str, text: str) -> str | None:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            return None
        seconds = (time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    is_start = seconds % _WINDOW_SIZES[name] == 0
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if is_start else None


# --- The sink -----------------------------------------------------------------------------------------


def _records(pairs: Sequence[Pair]) -> list[Record]:
    return [Record("t", 0, n, 1_000 + n, key, value) for n, (key, value) in enumerate(pairs)]


def _examples() -> Iterator[list[Pair]]:
    for pair in _FOUND.values():
        yield [pair]
    yield list(_FOUND.values())


@given(_batches)
def test_every_record_is_a_row_a_deletion_or_a_dead_letter_with_a_reason(pairs: list[Pair]) -> None:
    for pair in pairs:
        _assert_processed([pair])
    _assert_processed(pairs)


for _found in _examples():
    test_every_record_is_a_row_a_deletion_or_a_dead_letter_with_a_reason = example(_found)(
        test_every_record_is_a_row_a_deletion_or_a_dead_letter_with_a_reason
    )


def _assert_processed(pairs: Sequence[Pair]) -> None:
    records = _records(pairs)
    rows, rejected = latest_rows(records, VersionClock())
    expected = {record.offset: _expected(record.key, record.value) for record in records}
    # None is dropped: a row that is not the latest of its key is superseded by that.
    latest = {_row_key(record.key): record.offset for record in records if expected[record.offset] != "rejection"}
    assert sorted(row.record.offset for row in rows) == sorted(latest.values()), pairs
    offsets = [each.record.offset for each in rejected]
    assert offsets == [offset for offset, kind in expected.items() if kind == "rejection"], pairs
    for each in rejected:
        _assert_reason(each.reason, each.record)
    actions = [action for request in row_requests(rows) for action in request.actions]
    assert len(actions) == len(rows)
    for row, action in zip(rows, actions, strict=True):
        assert row.fields is None or row.fields == orjson.loads(row.record.value or b"")
        _assert_action(action, row.key, row.record)
    _assert_alerts(rows)


def _assert_reason(reason: str, record: Record) -> None:
    assert is_one_line(reason), (reason, record)
    assert len(reason) <= 500, (reason, record)


def _assert_action(action: bytes, key: RowKey, record: Record) -> None:
    """Check that a bulk request has the lines of one document: the record's own values, in the place of its key."""
    lines = action.split(b"\n")
    assert lines.pop() == b""
    (operation, metadata), *others = orjson.loads(lines[0]).items()
    assert others == []
    assert (metadata["_index"], metadata["_id"]) == (f"{key.table}-sink", key.id)
    if record.value is None:
        assert (operation, lines[1:]) == ("delete", [])
        return
    (source,) = lines[1:]
    assert operation == "index"

    def numbers_as_text(value: bytes) -> Any:
        return json.loads(value, parse_int=str, parse_float=str)

    assert numbers_as_text(source) == numbers_as_text(record.value)


def _threshold(type: ColumnType) -> int | str:
    if type is ColumnType.DATE:
        return _START
    return "a" if type is ColumnType.KEYWORD else 12


_RULES: Final = {
    table.name: [
        Rule(table.name, column.name, operator, _threshold(column.type), column.type, for_seconds=for_seconds)
        for column in table.columns
        if COMPARABLE[column.type]
        for operator in OPERATORS
        for for_seconds in (0, 60)
    ]
    for table in TABLES
}


def _assert_alerts(rows: Sequence[Any]) -> None:
    """Evaluate a rule of each kind on the rows; the alerts can be saved, and asked whether their windows are over."""
    alerts: dict[AlertKey, Alert] = {}
    for _ in range(2):
        changed = evaluate(_RULES, rows, alerts, {}, {})
        alerts |= {alert.key: alert for alert in changed}
    past_windows_resolved(alerts.values(), datetime(2026, 2, 1, tzinfo=UTC))
    for alert in alerts.values():
        bulk_action(alert.index, alert.alert_id, alert.version, orjson.dumps(alert.document()))


@given(st.dictionaries(st.sampled_from(("type", "reason", "caused_by", "other")), any_texts, max_size=4), st.integers())
@example({"type": "mapper_parsing_exception", "reason": "failed to parse field [x] with value '\x1b[31m'"}, 400)
def test_an_error_of_elasticsearch_that_quotes_a_record_is_one_line_in_the_dead_letter(
    error: dict[str, Any], status: int
) -> None:
    nested = error | ({"caused_by": {"reason": error["caused_by"]}} if "caused_by" in error else {})
    classify_error(status, str(error.get("type")), str(error.get("reason")))
    assert describe_error(status, nested).isprintable()


# --- The aggregate tables -------------------------------------------------------------------------------


@given(_batches)
@example(list(_FOUND.values()))
def test_every_record_that_updates_a_delta_table_is_a_row_of_it(pairs: list[Pair]) -> None:
    rejections: list[str] = []
    changed, deleted = _by_table(pairs, rejections)
    assert sum(map(len, changed.values())) + sum(map(len, deleted.values())) + len(rejections) == len(pairs)
    for name, rows in changed.items():
        table = table_named(name)
        # What the merge does with them.
        schema = {column.name: polars_type(column.type, column.places) for column in table.columns}
        frame = pl.DataFrame(rows, schema=schema)
        assert all(frame.get_column(column).null_count() == 0 for column in table.key), pairs
    for name, ids in deleted.items():
        table = table_named(name)
        if table.key:
            schema = {column.name: polars_type(column.type) for column in table.columns if column.name in table.key}
            pl.DataFrame([table.key_values(row_id) for row_id in ids], schema=schema, orient="row")


@given(st.integers() | st.floats() | st.sampled_from((True, "1", None)), st.integers(1, 17))
# The stream job ended.
@example(1e300, 2)
@example(1e-101, 2)
# The row had null.
@example(1e36, 2)
@example(-(10**36), 2)
@example(10**400, 2)
def test_a_number_is_a_decimal_of_the_column_or_refused(value: Any, places: int) -> None:
    try:
        found = _convert(Column("revenue", ColumnType.DECIMAL, places=places), value)
    except ValueError:
        return
    (stored,) = pl.Series([found], dtype=polars_type(ColumnType.DECIMAL, places)).to_list()
    assert (stored is None) == (value is None)
    assert value is None or abs(stored - Decimal(repr(value))) <= Decimal(1).scaleb(-places)
