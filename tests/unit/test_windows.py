"""Windows of event time over a real Delta table, without Spark: rows leave the memory, and late events lose nothing."""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
from stream_processing import event_time
from stream_processing.counts import Counts
from stream_processing.engines import POLARS, SKETCH_SIZE
from stream_processing.kafka_io import RowProducer
from stream_processing.keyed_state import KeyedState, select_rows
from stream_processing.lake import EVENT_FRAME, AppendInfo, Lake, append_rows, scan_events
from stream_processing.lake_log import LakeLog
from stream_processing.measures import KEYS, row_columns
from stream_processing.retention import Retention
from stream_processing.row_publisher import RowPublisher
from stream_processing.snapshots import Snapshots
from stream_processing.table_writer import TableWriter

from contract.declaration import Event, Table, count, epoch_seconds, flag
from contract.declaration import text as text_field
from contract.declared import EVENT, TABLES, table_named
from contract.keys import decode_key
from contract.windows import Window, every, hours, minutes
from tests.interaction import INTERACTION_TYPES, Interaction, InteractionType
from tests.reference import Tables, as_epoch_seconds, reference_tables

MINUTES, HOURS = table_named("agg_interactions_minute"), table_named("agg_interactions_item_hour")
_START = 1_700_000_000
_HOUR = 3_600
_DAY = 86_400


@dataclass
class _Topic:
    """The latest row of each key, as of the records that were sent."""

    rows: Tables = field(default_factory=lambda: {table.name: {} for table in TABLES})

    def send(self, records: Iterable[tuple[str, str | None]]) -> None:
        for key, value in records:
            row_key = decode_key(key)
            if value is None:
                self.rows[row_key.table].pop(row_key.id, None)
            else:
                self.rows[row_key.table][row_key.id] = as_epoch_seconds(json.loads(value))


class _Job:
    """What follows the lake, step by step instead of in threads; a new one is a restart."""

    def __init__(self, lake: Lake, topic: _Topic) -> None:
        self.lake, self._topic = lake, topic
        self.is_killed_at_deletion = False
        log = LakeLog(lake.interactions, lambda path: Path(path).read_text() if Path(path).exists() else None)
        self._snapshots = Snapshots(str(Path(lake.warehouse).with_name("state")), lake, log)
        self.counts = Counts(lake)
        self._publisher = RowPublisher(cast(RowProducer, topic))
        self._writer = TableWriter(lake, self._snapshots, Retention(lake, self.delete))
        current = lake.version()
        for key in KEYS:
            snapshot, files = self._snapshots.load(key, current)
            self.counts.restore(snapshot.state(key), snapshot.clock, scan_events(files, {}), current)
        self.counts.version = current
        self.publish()

    def add(self, interactions: Sequence[Interaction]) -> None:
        """Append to the lake, and count."""
        rows = _frame(interactions)
        self.counts.add(append(self.lake, interactions), rows.lazy())

    def publish(self) -> None:
        for key, rows in self.counts.take_unpublished().items():
            self._publisher.publish(key, rows, self.counts.clock)

    def write(self) -> None:
        """Do what materialise does at its interval."""
        self.publish()
        counted = self.counts.take_unwritten()
        self.counts.remove_closed(counted)
        self._writer.write(counted, lambda: None)

    def in_memory(self, table: str) -> int:
        return self.counts.sizes[table_named(table).key]

    def delete(self, keys: Sequence[str]) -> None:
        self._topic.send((key, None) for key in keys)
        if self.is_killed_at_deletion:
            raise _KilledError


class _KilledError(Exception):
    pass


def append(lake: Lake, interactions: Sequence[Interaction]) -> int:
    table = lake.table(EVENT.name)
    append_rows(table, _frame(interactions), AppendInfo("query", 0, "topic", {}))
    return table.version()


def _frame(interactions: Sequence[Interaction]) -> pl.DataFrame:
    rows = [(i.user_id, i.item_id, i.interaction_type, datetime.fromtimestamp(i.timestamp, UTC)) for i in interactions]
    return pl.DataFrame(rows, schema=EVENT_FRAME, orient="row")


def _tables(lake: Lake) -> Tables:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for table in TABLES:
        rows = pl.scan_parquet([f"{lake.path(table.name)}/{path}" for path in _paths(lake, table.name)])
        found[table.name] = {
            table.row_id(row) or table.name: as_epoch_seconds(row)
            for row in (rows.collect().to_dicts() if _paths(lake, table.name) else [])
        }
    return found


def _paths(lake: Lake, table: str) -> list[str]:
    return list(lake.table(table).get_add_actions(flatten=True)["path"].to_pylist())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "warehouse"))
    lake.create_missing_tables()
    return lake


def _at(second: int, user: str = "u", item: str = "i", kind: InteractionType = "view") -> Interaction:
    return Interaction(user, item, kind, _START + second)


def test_closed_windows_leave_the_memory_and_stay_in_tables_and_topic(lake: Lake) -> None:
    topic = _Topic()
    job = _Job(lake, topic)
    sent: list[Interaction] = []
    for minute in range(40):
        batch = [_at(60 * minute + n, f"user_{n}") for n in range(5)]
        job.add(batch)
        sent += batch
        if minute % 3 == 0:
            job.write()
    # Those of the last 10 minutes, and some that wait until they are worth a copy of all others.
    assert 11 <= job.in_memory(MINUTES.name) <= 16
    assert topic.rows == reference_tables(sent) == _tables(lake)


def test_a_late_event_brings_its_window_back_from_the_lake(lake: Lake) -> None:
    topic = _Topic()
    job = _Job(lake, topic)
    sent = [_at(0, "user_1"), _at(5, "user_2", kind="purchase")]
    job.add(sent)
    for hour in range(1, 4):
        job.write()
        sent.append(_at(_HOUR * hour))
        job.add(sent[-1:])
    job.write()
    job.write()
    assert job.in_memory(MINUTES.name) == job.in_memory(HOURS.name) == 1
    late = [_at(7, "user_1", kind="like"), _at(8, "user_3"), _at(_HOUR, "user_9")]
    job.add(late)
    job.publish()
    assert topic.rows == reference_tables([*sent, *late])
    # More of them find the window in memory.
    more = [_at(9, "user_4"), _at(10, "user_1")]
    job.add(more)
    job.write()
    assert topic.rows == reference_tables([*sent, *late, *more]) == _tables(lake)


def test_a_longer_time_until_windows_are_closed_brings_none_back_half(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = _Topic()
    job = _Job(lake, topic)
    sent = [_at(n * _HOUR, f"user_{n}") for n in range(4)]
    for each in sent:
        job.add([each])
        job.write()
    job.write()
    assert job.in_memory(MINUTES.name) == 1
    assert MINUTES.key.window is not None
    monkeypatch.setattr(Window, "lifetime", timedelta(days=2))
    job = _Job(lake, topic)
    sent.append(_at(0, "late"))
    job.add(sent[-1:])
    job.write()
    assert topic.rows == reference_tables(sent) == _tables(lake)


def test_only_files_of_the_window_are_read_for_a_late_event(lake: Lake) -> None:
    for hour in range(5):
        append(lake, [_at(_HOUR * hour), _at(_HOUR * hour + 60)])
    starts = [datetime.fromtimestamp(_START - _START % 60 + _HOUR * 2, UTC)]
    found = lake.events_of_windows(starts, timedelta(minutes=1), lake.version()).collect()
    assert sorted(int(time.timestamp()) - _START for time in found[EVENT.time]) == [2 * _HOUR, 2 * _HOUR + 60]
    assert len(lake.events_of_windows(starts, timedelta(minutes=1), 2).collect()) == 0


@pytest.mark.parametrize("seed", range(6))
def test_rows_are_exact_whatever_comes_late_and_whenever_the_job_is_killed(lake: Lake, seed: int) -> None:
    rng = random.Random(seed)
    topic = _Topic()
    job = _Job(lake, topic)
    sent: list[Interaction] = []
    now = 0
    for _ in range(40):
        now += rng.choice([0, 10, 100, 3_000])
        lateness = rng.choice([0, 0, 60, 2_000, 20_000])
        batch = [
            _at(
                now - rng.randint(0, lateness),
                f"user_{rng.randrange(4)}",
                f"item {rng.choice('ab|')}",
                rng.choice(INTERACTION_TYPES),
            )
            for _ in range(rng.randint(1, 8))
        ]
        sent += batch
        match rng.randrange(6):
            case 0:
                # Killed after the append was committed, and before it was counted.
                append(lake, batch)
                job = _Job(lake, topic)
            case 1:
                job.add(batch)
                job = _Job(lake, topic)
            case 2:
                job.add(batch)
                job.publish()
            case 3:
                job.add(batch)
                lake.compact(1 << 20)
            case _:
                job.add(batch)
                job.write()
    job.write()
    assert topic.rows == reference_tables(sent)
    assert _tables(lake) == reference_tables(sent)


@pytest.mark.parametrize("seed", range(3))
def test_old_rows_are_deleted_everywhere_although_the_job_is_killed(lake: Lake, seed: int) -> None:
    rng = random.Random(seed)
    topic = _Topic()
    job = _Job(lake, topic)
    sent: list[Interaction] = []
    for day in range(45):
        batch = [_at(_DAY * day - rng.choice([0, 2 * _HOUR, 6 * _DAY, 29 * _DAY]), f"u{n}") for n in range(6)]
        sent += batch
        job.add(batch)
        job.publish()
        if rng.random() < 0.3:
            job = _Job(lake, topic)
        if rng.random() < 0.5:
            # Between the topic and the table.
            job.is_killed_at_deletion = rng.random() < 0.2
            try:
                job.write()
            except _KilledError:
                job = _Job(lake, topic)
    job.is_killed_at_deletion = False
    job.write()
    expected = reference_tables(sent)
    assert 0 < len(expected[MINUTES.name]) < 40
    # An event can be in a window that was deleted when it came: that window is not brought back.
    assert topic.rows == _tables(lake) == expected


def test_an_event_from_the_future_closes_no_window(lake: Lake) -> None:
    topic = _Topic()
    job = _Job(lake, topic)
    sent = [_at(0), Interaction("u", "i", "view", 253_402_300_799)]
    job.add(sent)
    job.write()
    assert job.counts.clock == datetime.fromtimestamp(_START, UTC)
    assert topic.rows == reference_tables(sent) == _tables(lake)
    assert "9999-12-31T23:59:00Z" in topic.rows[MINUTES.name]


@pytest.mark.parametrize("ahead", [5, 2 * _HOUR])
def test_windows_close_although_the_clocks_of_the_producers_are_ahead(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """5 s: clocks differ. 2 h: local time is sent as UTC."""
    now = [datetime(2023, 11, 14, tzinfo=UTC)]

    class _Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override] # noqa: ARG003
            return now[0]

    monkeypatch.setattr(event_time, "datetime", _Clock)
    job = _Job(lake, _Topic())
    for hour in range(0, 24 * 9, 6):
        now[0] = datetime.fromtimestamp(_START + _HOUR * hour, UTC)
        job.add([_at(_HOUR * hour + ahead)])
        job.write()
    assert job.in_memory(MINUTES.name) < 5
    assert len(_tables(lake)[MINUTES.name]) <= 7 * 4 + 1


def test_an_event_from_the_future_deletes_nothing_with_rocksdb(lake: Lake) -> None:
    topic = _Topic()
    job = _Job(lake, topic)
    sent = [_at(0), _at(60), Interaction("u", "i", "view", 253_402_300_799)]
    job.add(sent)
    job.write()
    Retention(lake, job.delete).apply_at_latest_window()
    assert topic.rows == reference_tables(sent) == _tables(lake)


def test_a_row_that_a_longer_keep_brings_back_has_all_events(lake: Lake) -> None:
    topic = _Topic()
    job = _Job(lake, topic)
    job.add([_at(60 * n) for n in range(40)])
    job.add([_at(8 * _DAY)])
    job.add([_at(1)])
    job.write()
    object.__setattr__(MINUTES, "keep", timedelta(days=30))
    try:
        job = _Job(lake, topic)
        job.add([_at(2)])
        job.write()
        assert topic.rows[MINUTES.name]["2023-11-14T22:13:00Z"]["total_interactions"] == 3
    finally:
        object.__setattr__(MINUTES, "keep", timedelta(days=7))


def test_a_topic_that_was_created_again_gets_the_rows_of_closed_windows_too(lake: Lake) -> None:
    job = _Job(lake, _Topic())
    sent = [_at(_HOUR * hour) for hour in range(5)]
    for each in sent:
        job.add([each])
        job.write()
    assert job.in_memory(MINUTES.name) < 5
    log = LakeLog(lake.interactions, lambda path: Path(path).read_text())
    snapshots = Snapshots(str(Path(lake.warehouse).with_name("state")), lake, log)
    for key in KEYS:
        snapshot, files = snapshots.load(key, lake.version(), all_rows=True)
        assert (snapshot.version is None, len(files) == 5) == (bool(key.window), bool(key.window))


def _distinct_users(batches: Sequence[Sequence[str]]) -> int:
    state = KeyedState(MINUTES.key)
    for users in batches:
        state.add(_frame([Interaction(user, "i", "view", _START) for user in users]).lazy())
    rows = select_rows(state.rows, MINUTES.key).select(**row_columns(POLARS, MINUTES))
    (number,) = rows["users"]
    return int(number)


def test_different_values_are_counted_exactly_while_there_are_few() -> None:
    few = [f"user_{n}" for n in range(1024)]
    assert _distinct_users([few]) == 1024
    assert _distinct_users([few[:600], few[400:], few]) == 1024
    assert _distinct_users([["a"], ["a"], ["b"]]) == 2


@pytest.mark.parametrize("number", [2_000, 50_000])
def test_many_different_values_are_estimated_within_the_stated_error(number: int) -> None:
    errors = []
    for sample in range(10):
        users = [f"{sample} user {n}" for n in range(number)]
        whole = _distinct_users([users])
        assert _distinct_users([users[: number // 2], users[number // 3 :]]) == whole
        errors.append(whole / number - 1)
    # Of ten, the root of the mean square is within 1.7 standard errors but once in a thousand.
    assert (sum(error**2 for error in errors) / len(errors)) ** 0.5 < 1.7 / (SKETCH_SIZE - 2) ** 0.5
    assert any(errors)


@pytest.mark.parametrize(
    ("window", "name", "at", "start"),
    [
        (every(minutes=1), "minute", "2026-01-31T12:34:56Z", "2026-01-31T12:34:00Z"),
        (every(minutes=15), "minutes_15", "2026-01-31T12:34:56Z", "2026-01-31T12:30:00Z"),
        (every(hours=1, closes_after=minutes(1)), "hour", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        (every(days=1, closes_after=hours(2)), "day", "1970-01-01T00:00:01Z", "1970-01-01T00:00:00Z"),
        (every(hours=6, name="quarter"), "quarter", "2026-01-31T23:59:59Z", "2026-01-31T18:00:00Z"),
        (every(seconds=10), "seconds_10", "2026-01-31T00:00:09Z", "2026-01-31T00:00:00Z"),
    ],
)
def test_a_time_is_in_the_window_that_starts_at_or_before_it(window: Any, name: str, at: str, start: str) -> None:
    assert window.name == name
    frame = pl.DataFrame({EVENT.time: [datetime.fromisoformat(at)]}, schema={EVENT.time: pl.Datetime("us", "UTC")})
    (found,) = frame.select(POLARS.window_start(EVENT.time, window.size)).to_series()
    assert window.text(found) == start
    assert window.start(start) == found


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00+14:00", "2026-01-31T12:34:01Z", "2026-01-31T12:34:00+00:00", "2026-01-31", "x", ""]
)
def test_an_id_that_is_no_start_of_a_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"window|isoformat"):
        MINUTES.key_values(text)


@pytest.mark.parametrize("text", ["yes", "", "True"])
def test_an_id_that_is_no_flag_is_refused(text: str) -> None:
    event = Event("e", text_field("u"), flag("f"), epoch_seconds("at"), time="at", partition_by="u")
    table = Table("t", event, ("f",), {"n": count()})
    with pytest.raises(ValueError, match="neither true nor false"):
        table.key_values(text)
    assert table.key_values("false") == [False]


def test_the_id_of_a_row_has_the_start_of_its_window() -> None:
    row = {"item_id": "a|b", "hour": "2026-01-31T12:00:00.000Z"}
    row_id = HOURS.row_id(row)
    assert row_id == r"a\|b|2026-01-31T12:00:00Z"
    assert HOURS.key_values(row_id) == ["a|b", datetime(2026, 1, 31, 12, tzinfo=UTC)]
