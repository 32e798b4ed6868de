"""A replay reads recorded files of several formats, maps their columns, and finds where it has to continue."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from data_producer.columns import COLUMNS, InvalidRow, parse
from data_producer.controls import ControlRequest, Controls
from data_producer.errors import ReplayError
from data_producer.events import Event, record_of
from data_producer.pacing import RecordedPacer
from data_producer.position import Identity, Position
from data_producer.recording import Recording
from data_producer.settings import ProducerSettings
from data_producer.topic_tail import rows_in_topic

from examples.replay.generate import shop_events
from live_page.pages.controls import _describe_flow
from local_stack.services import ROOT
from runtime.settings import SettingsError

EXAMPLE = ROOT / "examples/replay/shop_events.csv.gz"
QUERY = "SELECT visitor AS user_id, product AS item_id, action AS interaction_type, event_time AS timestamp FROM source"


def interaction(user: str, item: str, kind: str, timestamp: int) -> Event:
    return {"user_id": user, "item_id": item, "interaction_type": kind, "timestamp": timestamp}


EVENTS = [interaction(f"user_{n}", f"item_{n % 3}", "view", 1_700_000_000 + n) for n in range(50)]
ROW = ("user_1", "item_1", "view", 1_700_000_000)


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def csv_of(events: list[Event]) -> str:
    lines = [",".join(map(str, event.values())) for event in events]
    return "\n".join(["user_id,item_id,interaction_type,timestamp", *lines, ""])


def json_lines_of(events: list[Event]) -> str:
    return "".join(f"{json.dumps(event)}\n" for event in events)


def read_all(path: Path, query: str = "", *, after: int = 0) -> list[Event | InvalidRow]:
    recording = Recording(path, query)
    recording.seek(after)
    rows: list[Event | InvalidRow] = []
    while batch := recording.read(7):
        assert len(batch) <= 7
        rows += batch
    recording.close()
    return rows


# --- Files -----------------------------------------------------------------------------------------


def _zstd(path: Path, text: str) -> None:
    """Write text compressed with zstd."""
    lines = text.splitlines()
    plain = path.with_suffix("")
    plain.write_text(text)
    reader = f"read_csv('{plain}', header=false, delim='\\x01', quote='', escape='', columns={{'line': 'VARCHAR'}})"
    copy = f"COPY (FROM {reader}) TO '{path}' (FORMAT csv, HEADER false, DELIMITER '\\x01', QUOTE '', COMPRESSION zstd)"
    assert duckdb.connect().execute(copy.replace("\\x01", "\x01")).fetchall() == [(len(lines),)]
    plain.unlink()


def _parquet(path: Path) -> None:
    rows = ", ".join(str(tuple(event.values())) for event in EVENTS)
    names = ", ".join(column.name for column in COLUMNS)
    duckdb.connect().execute(f"COPY (SELECT * FROM (VALUES {rows}) t({names})) TO '{path}'")


FILES: dict[str, Callable[[Path], object]] = {
    "events.csv": lambda path: path.write_text(csv_of(EVENTS)),
    "events.tsv": lambda path: path.write_text(csv_of(EVENTS).replace(",", "\t")),
    "events.CSV.GZ": lambda path: path.write_bytes(gzip.compress(csv_of(EVENTS).encode())),
    "events.csv.zst": lambda path: _zstd(path, csv_of(EVENTS)),
    "events.json": lambda path: path.write_text(f"[{','.join(json_lines_of(EVENTS).splitlines())}]"),
    "events.jsonl": lambda path: path.write_text(json_lines_of(EVENTS)),
    "events.ndjson.gz": lambda path: path.write_bytes(gzip.compress(json_lines_of(EVENTS).encode())),
    "events.ndjson.zst": lambda path: _zstd(path, json_lines_of(EVENTS)),
    "events.parquet": _parquet,
    "a file [1] with 'quotes', *.csv": lambda path: path.write_text(csv_of(EVENTS)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_each_format_is_read_in_its_order(name: str, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    assert read_all(tmp_path / name) == EVENTS


@pytest.mark.parametrize("row", [0, 1, 7, 49, 50, 99])
def test_reading_continues_after_any_row(row: int, tmp_path: Path) -> None:
    FILES["events.csv"](tmp_path / "events.csv")
    assert read_all(tmp_path / "events.csv", after=row) == EVENTS[row:]


def test_rows_come_in_the_order_of_the_query(tmp_path: Path) -> None:
    FILES["events.parquet"](tmp_path / "events.parquet")
    query = 'FROM source ORDER BY "timestamp" DESC; -- the latest first'
    assert read_all(tmp_path / "events.parquet", query) == EVENTS[::-1]
    assert read_all(tmp_path / "events.parquet", query, after=45) == EVENTS[4::-1]


def test_the_example_is_what_its_generator_writes_and_every_row_of_it_is_valid() -> None:
    assert gzip.decompress(EXAMPLE.read_bytes()) == shop_events()
    rows = read_all(EXAMPLE, QUERY)
    assert rows[0] == interaction("v0005", "p108", "view", 1_772_442_018)
    assert [row for row in rows if isinstance(row, InvalidRow)] == []
    assert len(rows) == 5_000


def test_a_sort_that_does_not_fit_into_memory_uses_a_folder_beside_the_position(tmp_path: Path) -> None:
    path = tmp_path / "large.parquet"
    duckdb.connect().execute(
        f"COPY (SELECT hash(n)::VARCHAR || repeat('x', 90) AS user_id, 'item' AS item_id, 'view' AS interaction_type,"
        f" n AS timestamp FROM range(1500000) t(n)) TO '{path}'"
    )
    query = "FROM source ORDER BY user_id"
    with pytest.raises(ReplayError, match=r"^PRODUCER_QUERY has failed: .*Out of Memory"):
        read_all(path, query)
    recording = Recording(path, query, tmp_path / "sorting")
    recording.seek(0)
    first = [row["user_id"] for row in recording.read(1_000) if not isinstance(row, InvalidRow)]
    assert len(first) == 1_000
    assert first == sorted(first)
    recording.close()


# --- Columns ---------------------------------------------------------------------------------------


def test_the_columns_are_the_fields_of_the_event_in_their_order() -> None:
    assert tuple(column.name for column in COLUMNS) == tuple(EVENTS[0])


MOMENT = 1_767_261_600
"""2026-01-01T10:00:00Z."""
TIMESTAMPS = {
    "1767261600": MOMENT,
    "1767261600::UBIGINT": MOMENT,
    "'1767261600'": MOMENT,
    "TIMESTAMP '2026-01-01 10:00:00.999'": MOMENT,
    "TIMESTAMPTZ '2026-01-01 12:00:00+02'": MOMENT,
    "'2026-01-01 10:00:00'": MOMENT,
    "'2026-01-01T12:00:00.5+02:00'": MOMENT,
    "DATE '2026-01-01'": MOMENT - 36_000,
    "'1.5'": None,
    "'yesterday'": None,
    "NULL::BIGINT": None,
    "TIMESTAMP 'infinity'": None,
}


@pytest.mark.parametrize(("sql", "seconds"), TIMESTAMPS.items(), ids=list(TIMESTAMPS))
def test_a_timestamp_is_epoch_seconds_or_a_time_in_utc(sql: str, seconds: int | None, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("a\n1\n")
    query = f"SELECT 'u' AS user_id, 7 AS item_id, 'view' AS interaction_type, {sql} AS timestamp FROM source"
    (row,) = read_all(tmp_path / "one.csv", query)
    if seconds is None:
        assert isinstance(row, InvalidRow)
        assert row.reason.startswith("timestamp is missing, or not whole epoch seconds")
    else:
        assert row == interaction("u", "7", "view", seconds)


def test_an_id_of_a_csv_file_keeps_its_leading_zeros(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("user_id,item_id,interaction_type,timestamp\n007,08,view,1\n")
    assert read_all(tmp_path / "ids.csv") == [interaction("007", "08", "view", 1)]


INVALID = {
    "user_id is missing": (None, "item_1", "view", 1),
    "item_id is empty": ("user_1", "", "view", 1),
    "user_id has 513 bytes of UTF-8, more than 512": ("x" * 513, "item_1", "view", 1),
    "item_id has 514 bytes of UTF-8, more than 512": ("user_1", "é" * 257, "view", 1),
    "interaction_type is stare, not one of": ("user_1", "item_1", "stare", 1),
    "interaction_type is missing": ("user_1", "item_1", None, 1),
    "timestamp is 1767261600000, not epoch seconds within": ("user_1", "item_1", "view", 1_767_261_600_000),
    "timestamp is -1, not epoch seconds": ("user_1", "item_1", "view", -1),
    "timestamp is missing": ("user_1", "item_1", "view", None),
}


@pytest.mark.parametrize(("reason", "row"), INVALID.items(), ids=list(INVALID))
def test_an_invalid_row_has_a_reason(reason: str, row: tuple[Any, ...]) -> None:
    parsed = parse(row)
    assert isinstance(parsed, InvalidRow)
    assert parsed.reason.startswith(reason)


@pytest.mark.parametrize("row", [("x" * 512, "é" * 256, "purchase", 0), ("\x00", " ", "click", 253_402_300_799)])
def test_a_row_within_the_limits_is_valid(row: tuple[Any, ...]) -> None:
    assert parse(row) == interaction(*row)


# --- Settings --------------------------------------------------------------------------------------

_COLUMNS_OF_EXAMPLE = "event_time, visitor, product, action"
_HINT = f"the table is called source, its columns are {_COLUMNS_OF_EXAMPLE}"
_FORMATS = "a name that ends with .csv, .tsv, .json, .jsonl, .ndjson (each also with .gz or .zst) or .parquet"
_DISABLED = "file system operations are disabled by configuration"
WRONG: dict[str, tuple[Mapping[str, str], list[str]]] = {
    "no file": (
        {"PRODUCER_SOURCE": "missing.csv"},
        ["PRODUCER_SOURCE=missing.csv does not exist: set it to the path of a recorded file"],
    ),
    "a folder": (
        {"PRODUCER_SOURCE": "folder.csv"},
        ["PRODUCER_SOURCE=folder.csv is a folder: set it to the path of a recorded file"],
    ),
    "an empty file": (
        {"PRODUCER_SOURCE": "empty.csv"},
        ["PRODUCER_SOURCE=empty.csv is empty: set it to the path of a recorded file"],
    ),
    "an unknown format": (
        {"PRODUCER_SOURCE": "events.xlsx"},
        [f"PRODUCER_SOURCE=events.xlsx has an unknown format: expected {_FORMATS}"],
    ),
    "Parquet within gzip": (
        {"PRODUCER_SOURCE": "events.parquet.gz"},
        [f"PRODUCER_SOURCE=events.parquet.gz has an unknown format: expected {_FORMATS}"],
    ),
    "another format than the name says": (
        {"PRODUCER_SOURCE": "text.parquet"},
        ["PRODUCER_SOURCE=text.parquet cannot be read: .*: check that it is what the ending of its name says"],
    ),
    "other columns": (
        {"PRODUCER_SOURCE": "other.csv"},
        [
            "PRODUCER_SOURCE=other.csv has no user_id, item_id, interaction_type, timestamp: map its columns with"
            " PRODUCER_QUERY, such as SELECT ... AS user_id, ... FROM source; the columns of the file are a, b"
        ],
    ),
    "a column less": (
        {"PRODUCER_SOURCE": str(EXAMPLE), "PRODUCER_QUERY": QUERY.replace("AS item_id", "AS item")},
        [
            "PRODUCER_QUERY has no item_id: name them with AS, such as SELECT ... AS item_id, ... FROM source; the"
            f" columns of the file are {_COLUMNS_OF_EXAMPLE}"
        ],
    ),
    "columns of other types": (
        {
            "PRODUCER_SOURCE": str(EXAMPLE),
            "PRODUCER_QUERY": "SELECT 1.5::DOUBLE AS user_id, [1] AS item_id, 'view' AS interaction_type,"
            " 1.5::DOUBLE AS timestamp FROM source",
        },
        [
            "PRODUCER_QUERY has a column user_id of type DOUBLE: CAST it in PRODUCER_QUERY to text or a whole number",
            r"PRODUCER_QUERY has a column item_id of type INTEGER\[\]: CAST it .*",
            "PRODUCER_QUERY has a column timestamp of type DOUBLE: CAST it in PRODUCER_QUERY to whole epoch.*",
        ],
    ),
    "an error of syntax": (
        {"PRODUCER_SOURCE": str(EXAMPLE), "PRODUCER_QUERY": "SELEC 1"},
        ['PRODUCER_QUERY has failed: Parser Error: syntax error at or near "SELEC": correct it'],
    ),
    "an unknown column": (
        {"PRODUCER_SOURCE": str(EXAMPLE), "PRODUCER_QUERY": "SELECT nothing FROM source"},
        [f'PRODUCER_QUERY has failed: Binder Error: Referenced column "nothing" .*: {_HINT}'],
    ),
    "two statements": (
        {"PRODUCER_SOURCE": str(EXAMPLE), "PRODUCER_QUERY": f"{QUERY}; {QUERY}"},
        ["PRODUCER_QUERY has 2 statements: set it to one SELECT"],
    ),
    "no statement": (
        {"PRODUCER_SOURCE": str(EXAMPLE), "PRODUCER_QUERY": "-- nothing"},
        ["PRODUCER_QUERY has 0 statements: set it to one SELECT"],
    ),
    "a query without a file": (
        {"PRODUCER_QUERY": "SELECT 1", "PRODUCER_SPEED": "2"},
        [
            "PRODUCER_QUERY=SELECT 1 has no effect without PRODUCER_SOURCE: set that to a recorded file, or remove"
            " PRODUCER_QUERY",
            "PRODUCER_SPEED=2.0 has no effect without PRODUCER_SOURCE: set that to a recorded file, or remove"
            " PRODUCER_SPEED",
        ],
    ),
    "a position that is another file": (
        {"PRODUCER_SOURCE": str(EXAMPLE), "PRODUCER_QUERY": QUERY, "PRODUCER_POSITION": "other.csv"},
        ["PRODUCER_POSITION=other.csv is no position of a replay: choose another path"],
    ),
}


@pytest.mark.parametrize(("values", "lines"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_replayed_is_reported_by_setting_with_the_remedy(
    values: Mapping[str, str], lines: list[str], tmp_path: Path
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "text.parquet").write_text("a,b\n1,2\n" * 100)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SettingsError) as error:
        ProducerSettings.read({}, values)
    found = str(error.value).splitlines()
    assert len(found) == len(lines)
    for line, pattern in zip(found, lines, strict=True):
        assert line == pattern or re.fullmatch(pattern, line), line


FORBIDDEN = {
    "read another file": "SELECT * FROM read_csv('{other}')",
    "read text": "SELECT * FROM read_text('{other}')",
    "list files": "SELECT * FROM glob('/*')",
    "reach the network": "SELECT * FROM read_csv('http://127.0.0.1:1/a.csv')",
    "write a file": "COPY source TO '{new}'",
    "attach a database": "ATTACH '{new}'",
    "load an extension": "LOAD httpfs",
    "change the configuration": "SET enable_external_access=true",
}


@pytest.mark.parametrize("query", FORBIDDEN.values(), ids=list(FORBIDDEN))
def test_a_query_can_only_read_the_recorded_file(query: str, tmp_path: Path) -> None:
    other, new = tmp_path / "other.csv", tmp_path / "new"
    other.write_text(csv_of(EVENTS))
    with pytest.raises(ReplayError, match=r"^PRODUCER_QUERY (has failed|is a statement of type)"):
        Recording(EXAMPLE, query.format(other=other, new=new))
    assert not new.exists()


def test_a_malformed_line_is_reported_by_its_number_once_it_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    many = [interaction(f"user_{n}", "item" * 25, "view", n) for n in range(60_000)]
    path.write_text(csv_of(many) + "one,two,three,four,five\n")
    recording = Recording(path, "")
    recording.seek(0)
    assert recording.read(5_000) == many[:5_000]
    with pytest.raises(ReplayError, match=r"^PRODUCER_SOURCE=.*events.csv has failed: .*Line: 60002"):
        recording.read(60_000)


# --- Pace ------------------------------------------------------------------------------------------


def test_events_are_due_at_a_multiple_of_the_recorded_pace() -> None:
    pacer, recorded = RecordedPacer(speed=60, start=500.0), [1_000, 1_060, 1_180]
    assert pacer.due(recorded, now=500.0) == 1
    assert pacer.pause(1_060, now=500.0) == pytest.approx(1.0)
    assert pacer.due(recorded[1:], now=500.99) == 0
    assert pacer.due(recorded[1:], now=501.0) == 1
    assert pacer.pause(1_180, now=501.0) == pytest.approx(2.0)


def test_an_event_before_its_predecessor_is_due_at_once_and_the_later_ones_keep_the_pace() -> None:
    pacer = RecordedPacer(speed=1, start=0.0)
    assert pacer.due([100, 110, 90, 105, 111], now=10.0) == 4
    assert pacer.pause(111, now=10.0) == pytest.approx(1.0)


def test_after_a_delay_all_events_of_that_time_are_due() -> None:
    pacer = RecordedPacer(speed=1, start=0.0)
    assert pacer.due([0], now=0.0) == 1
    assert pacer.due([1, 2, 3, None, 4, 60], now=4.5) == 5


# --- Continuing ------------------------------------------------------------------------------------


def hashes(*events: Event) -> "Counter[int]":
    records = map(record_of, events)
    return Counter(hash((record["key"], record["value"])) for record in records)


def test_rows_that_are_in_the_topic_are_found_in_any_order_and_equal_ones_by_their_number() -> None:
    rows: list[Event | InvalidRow] = [EVENTS[0], InvalidRow("bad"), EVENTS[1], EVENTS[0], EVENTS[2], EVENTS[0]]
    assert rows_in_topic(rows, 11, hashes(EVENTS[2], EVENTS[0], EVENTS[0])) == {11, 14, 15}
    assert rows_in_topic(rows, 11, hashes(EVENTS[9])) == set()


def test_a_stored_position_is_read_back_and_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "position.json"
    assert Position.load(path) is None
    identity = Identity("a.csv", 10, 1_795_749_628_569_254_231, "", "topic")
    for row in (1, 2):
        position = Position(identity=identity, row=row, sent=row, ends={0: 10, 3: 7}, finished=row == 2)
        position.store(path)
        assert Position.load(path) == position
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_position_that_cannot_be_written_is_reported_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "position.json"
    with pytest.raises(ReplayError, match=r"^PRODUCER_POSITION=.* cannot be written: File exists: choose"):
        Position(identity=Identity("a", 1, 1, "", "t"), ends={}).store(path)


def test_the_identity_of_a_recording_changes_with_file_query_and_topic(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    identities = []
    for content, query, topic in (
        (EVENTS, "", "a"), (EVENTS, "", "b"), (EVENTS, "FROM source LIMIT 3", "a"), (EVENTS[1:], "", "a"),
    ):  # fmt: skip
        path.write_text(csv_of(content))
        recording = Recording(path, query)
        assert recording.identity(topic) == recording.identity(topic)
        identities.append(recording.identity(topic))
    assert len(set(identities)) == 4


# --- Controls --------------------------------------------------------------------------------------


def test_controls_that_have_no_effect_on_a_replay_say_so() -> None:
    values = {"PRODUCER_SOURCE": str(EXAMPLE), "PRODUCER_QUERY": QUERY, "PRODUCER_RATE": "0.02"}
    at_interval = Controls.of(ProducerSettings.read({}, values))
    assert at_interval.describe() == {
        "rate": 0.02,
        "paused": False,
        "replay": EXAMPLE.name,
        "without_effect": ["users", "items", "wave", "burst", "malformed", "viral_interactions"],
    }
    assert at_interval.refusal(ControlRequest(rate=1, paused=True)) == ""
    assert at_interval.refusal(ControlRequest(rate=1, users=3, burst=1)) == (
        f"users: no effect while {EXAMPLE.name} is replayed; burst: no effect while {EXAMPLE.name} is replayed"
    )
    at_recorded_pace = Controls.of(ProducerSettings.read({}, values | {"PRODUCER_SPEED": "60"}))
    assert at_recorded_pace.refusal(ControlRequest(rate=1)) == "rate: no effect while PRODUCER_SPEED is the pace"
    assert at_recorded_pace.refusal(ControlRequest(paused=True)) == ""
    assert _describe_flow(at_interval.describe()) == f"replaying {EXAMPLE.name} at 50 interactions per second"
    at_recorded_pace.apply(ControlRequest(paused=True))
    shown = _describe_flow(at_recorded_pace.describe())
    assert shown == f"paused; replaying {EXAMPLE.name} at 60 times the recorded pace"
