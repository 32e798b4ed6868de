"""The records of the topics page, the trend and the counterparts of a row, and distributions, without a server."""

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from elasticsearch_sink_alert.kafka import dead_letter_replay

from contract.declared import table_named
from contract.loading import load
from live_page.formatting import format_json
from live_page.histogram import Bucket, bucket_bounds, has_growing_steps
from live_page.pages.records import dead_letter_columns, describe, record_row
from live_page.pages.row import marks_of
from live_page.pages.row_queries import (
    counterparts_of,
    events_of,
    has_trend,
    key_texts,
    kinds_of,
    minutes_of,
    trend,
)
from live_page.settings import PageSettings
from live_page.sources.consumers import Consumers
from live_page.sources.errors import EmptyError, UnavailableError
from live_page.sources.lake import QueryResult
from live_page.sources.producer import ProducerControls, RefusedError
from live_page.sources.records import Found, Record, RecordQuery, _Search, as_time, format_offsets, parse_offsets
from live_page.sources.replays import DeadLetterReplays

AT = datetime(2026, 1, 31, 14, 5, tzinfo=UTC)
USERS, ITEMS = table_named("agg_interactions_user"), table_named("agg_interactions_item")
MINUTES, ITEM_HOURS = table_named("agg_interactions_minute"), table_named("agg_interactions_item_hour")


def _record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "at": AT, "partition": 0, "offset": 3, "key": "user_1", "value": "{}", "size": 2, "is_cut": False,
        "headers": {},
    }  # fmt: skip
    return Record(**{**values, **changes})


def _found(**changes: Any) -> Found:
    values: dict[str, Any] = {
        "records": [], "looked": 0, "skipped": 0, "since": None, "until": None, "next_offsets": (),
        "is_finished": False,
    }  # fmt: skip
    return Found(**{**values, **changes})


# --- Topics ------------------------------------------------------------------------------------------


def test_a_filter_finds_a_whole_key_and_a_part_of_a_text_in_any_case() -> None:
    record = ("user_10", '{"item_id": "Straße"}', {"trace": "ABC"})
    assert RecordQuery("t", key="user_10").matches(*record)
    assert not RecordQuery("t", key="user_1").matches(*record)
    for text in ("straße", "ITEM", "abc", "Trace", "r_1"):
        assert RecordQuery("t", text=text).matches(*record)
    assert not RecordQuery("t", text="nothing").matches(*record)
    assert not RecordQuery("t", key="user_1", text="item").matches(*record)


@pytest.mark.parametrize("text", ["0-1-2", "a-1", "1", "-", "0-1.", "0-" + "9" * 30, "²-1", "0-1..1-2"])
def test_offsets_of_an_address_that_are_none_are_ignored(text: str) -> None:
    assert parse_offsets(text) == ()


def test_the_offsets_at_which_a_page_is_paused_survive_the_address() -> None:
    offsets = ((0, 0), (1, 2**62), (17, 3))
    assert parse_offsets(format_offsets(offsets)) == offsets


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "10000-01-01", "0001-01-01T00:00:00+14:00", "12:00\x00"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    assert as_time(text) is None


def test_the_page_says_what_is_shown_and_how_far_it_has_looked() -> None:
    records = [_record()]
    text = RecordQuery("t", text="a")
    assert describe(RecordQuery("t"), _found(records=records)) == "live: the latest 1 record"
    gap = _found(records=records, skipped=1_200)
    assert describe(RecordQuery("t"), gap).endswith("; 1,200 offsets were skipped: too many arrived")
    whole = _found(records=records, looked=7)
    assert describe(text, whole) == "live: 1 record found in the latest 7 records: the whole topic"
    part = _found(looked=50_000, since=AT)
    assert describe(text, part) == "live: 0 records found in the latest 50,000 records, back to 2026-01-31 14:05:00"
    paused = RecordQuery("t", until=((0, 4),))
    assert describe(paused, _found(records=records)) == "paused: the latest 1 record"
    forward = RecordQuery("t", offset=3, text="a")
    assert describe(forward, _found(looked=9, until=AT, is_finished=True)) == (
        "0 records found in 9 records from there on, to 2026-01-31 14:05:00"
    )


def test_json_is_shown_by_line_with_all_digits_and_what_is_no_json_as_it_is() -> None:
    text = '{"n": 12345678901234567890, "n": 1e400, "s": "a, {b}: \\"c\\"", "e": [], "o": {"x": null}}'
    shown = format_json(text)
    assert shown.splitlines()[:3] == ["{", '  "n": 12345678901234567890,', '  "n": 1e400,']
    assert "".join(shown.split()) == "".join(text.split())
    for other in ("{", "NaN", '{"a": 1} x', "plain", "[" * 100_000, '{"a" 1}'):
        assert format_json(other) == other
    # Spaces of deep nesting are bounded.
    deep = "[" * 500 + "]" * 500
    assert len(format_json(deep)) <= max(4 * len(deep), 10_000)
    numbers = json.dumps(list(range(1_000)))
    assert json.loads(format_json(numbers)) == list(range(1_000))


def test_the_mark_of_a_replay_is_shown_as_such_and_a_hostile_record_as_text() -> None:
    mark = _record(headers={"dead_letter.replayed": "0-5"}, value="(deleted)")
    assert dead_letter_columns(mark)["reason"] == "(dead letter 0-5 was replayed)"
    row = record_row(_record(key="\x1b]0;t\x07", value="\u202ex", size=2_000_000, is_cut=True))
    assert row["record_key"] == "\\x1b]0;t\\x07"
    assert row["value"] == "\\u202ex… (2.0 MB)"
    assert row["key"] == "0-3"


def test_while_a_browser_waits_for_a_broker_that_does_not_answer_another_one_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Search, "_read_further", lambda *_: None)
    monkeypatch.setattr("live_page.sources.records._INTERVAL", 0)
    is_asked, end = threading.Event(), threading.Event()
    end.set()

    class Broker(Consumers):
        answers = True

        @contextmanager
        def borrow(self) -> Iterator[Any]:
            is_asked.set()
            end.wait()
            if not self.answers:
                raise UnavailableError("Kafka does not answer", "Kafka")
            yield None

    broker = Broker(PageSettings())
    search = _Search(RecordQuery("t"))
    found = search.read(broker)
    broker.answers = False
    with pytest.raises(UnavailableError):
        search.read(broker)
    is_asked.clear()
    end.clear()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(search.read, broker)
        try:
            assert is_asked.wait(10)
            with pytest.raises(UnavailableError, match="Kafka does not answer") as failure:
                search.read(broker)
            assert failure.value.server == "Kafka"
        finally:
            end.set()
        assert isinstance(waiting.exception(), UnavailableError)
    broker.answers = True
    assert search.read(broker) == found


def test_offsets_that_are_skipped_while_nobody_looks_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def skip(search: _Search, _: object) -> None:
        search._skipped += 100

    class Broker(Consumers):
        @contextmanager
        def borrow(self) -> Iterator[Any]:
            yield None

    monkeypatch.setattr(_Search, "_read_further", skip)
    monkeypatch.setattr("live_page.sources.records._INTERVAL", 0)
    broker, search = Broker(PageSettings()), _Search(RecordQuery("t"))
    assert [search.read(broker).skipped for _ in range(3)] == [0, 100, 200]
    monkeypatch.setattr("live_page.sources.records._WATCHED_SECONDS", 0)
    assert search.read(broker).skipped == 0


def test_without_controls_no_dead_letter_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_off(_: ProducerControls) -> None:
        raise EmptyError("The producer's controls are off")

    def fails(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ProducerControls, "flow", is_off)
    monkeypatch.setattr(dead_letter_replay, "read_one", fails)
    settings = PageSettings.read({}, {})
    with pytest.raises(RefusedError, match="controls are off"):
        DeadLetterReplays(settings, ProducerControls(settings.producer_url)).replay("0-1")


# --- A row -------------------------------------------------------------------------------------------


def test_the_counterparts_of_a_row_follow_from_the_declaration() -> None:
    def names(table: Any) -> list[tuple[str, str]]:
        return [(each.table.title, each.column) for each in counterparts_of(table)]

    assert names(USERS) == [("Items", "item_id")]
    assert names(ITEMS) == [("Users", "user_id")]
    assert names(MINUTES) == [("Users", "user_id"), ("Items", "item_id")]
    assert names(ITEM_HOURS) == [("Users", "user_id")]


def test_the_trend_has_every_minute_up_to_the_latest_event_and_0_for_those_without() -> None:
    query, parameters = minutes_of(USERS, "user_1")
    assert 'FROM "interactions"' in query
    assert parameters == ["user_1"]
    minute = int(AT.timestamp()) * 1_000

    def trend_since(first: int, kinds: Sequence[str] = ()) -> dict[str, list[tuple[int, int]]]:
        rows: list[list[str | None]] = [
            [str(minute - 120_000), "view", "3", str(first)],
            [str(minute), "like", "1", str(first)],
        ]
        result = QueryResult(["m", "k", "n", "f"], [True, False, True, True], rows, [], 0.1)
        return trend(result, "interactions", kinds)

    found = trend_since(0)
    assert set(found) == {"view", "like"}
    assert len(found["view"]) == 60
    # Of a row that is young, not an hour of nothing.
    assert len(trend_since(minute - 120_000)["view"]) == 10
    assert len(trend_since(minute - 29 * 60_000)["view"]) == 30
    assert found["view"][-3:] == [(minute - 120_000, 3), (minute - 60_000, 0), (minute, 0)]
    assert trend(QueryResult([], [], [], [], 0.1), "interactions") == {}
    # In the order of the other charts, and so in their colours.
    of_kinds = trend_since(0, kinds_of(USERS))
    assert list(of_kinds) == ["click", "like", "view", "purchase"]
    assert {count for _, count in of_kinds["click"]} == {0}
    assert has_trend(ITEM_HOURS)
    assert not has_trend(MINUTES)


def test_the_key_of_a_row_is_in_parameters_and_never_in_the_query() -> None:
    condition, parameters = events_of(USERS, "'; DROP TABLE x; --")
    assert "DROP" not in condition
    assert parameters == ["'; DROP TABLE x; --"]
    assert key_texts(ITEM_HOURS, "a|2026-01-31T14:00:00Z") == {"item_id": "a"}


def test_an_alert_is_on_the_chart_at_the_time_of_the_event_that_fired_it() -> None:
    event_time, clock = AT - timedelta(days=400), AT
    row = {"last_interaction": event_time.isoformat()}
    alert = {"fired_at": clock.isoformat(), "rule": "possible bot", "row": row}
    assert marks_of(USERS, [alert]) == [(event_time.timestamp(), "▲ possible bot")]
    assert marks_of(MINUTES, [alert]) == [(clock.timestamp(), "▲ possible bot")]
    assert marks_of(USERS, [{**alert, "row": {}}]) == [(clock.timestamp(), "▲ possible bot")]
    assert marks_of(USERS, [{**alert, "row": {"last_interaction": "never"}}]) == []
    unnamed = {**alert, "rule": "agg_interactions_user: a > 1"}
    assert marks_of(USERS, [unnamed]) == [(event_time.timestamp(), "▲ a > 1")]


def test_in_another_declaration_a_key_by_two_columns_is_a_counterpart() -> None:
    sensors = load(Path("examples/sensors/pipeline.py"))
    devices, channels, _ = sensors.tables
    (found,) = counterparts_of(devices, sensors.tables)
    assert (found.table, found.column) == (channels, "sensor")
    assert found.row_id({"device_id": "a|b"}, "humidity") == "a\\|b|humidity"
    assert counterparts_of(channels, sensors.tables) == []


# --- Distributions -----------------------------------------------------------------------------------


def test_few_equal_values_have_buckets_of_one_and_skewed_ones_grow_tenfold() -> None:
    assert bucket_bounds(95, 105, 100, is_whole=True) == [float(n) for n in range(95, 107)]
    assert bucket_bounds(7, 7, 7, is_whole=True) == [7.0, 8.0]
    assert bucket_bounds(0, 60_000, 1, is_whole=True)[:5] == [0.0, 1.0, 2.0, 5.0, 10.0]
    assert bucket_bounds(1, 2**62, 1, is_whole=True)[:3] == [1.0, 10.0, 100.0]
    assert len(bucket_bounds(-5, 10_000, 1, is_whole=True)) <= 22


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize(
    ("lowest", "highest", "median"),
    [
        (0, 0, 0),
        (1, 1_300, 2),
        (0.25, 99.5, 1),
        (-3, 50_000, 1),
        (0, 5e12, 3),
        (9.007199254740993e15,) * 3,
        (1e-9, 30, 0.1),
    ],
)
def test_every_value_is_in_one_bucket(lowest: float, highest: float, median: float, is_whole: bool) -> None:
    if is_whole:
        lowest, highest = round(lowest), round(highest)
    bounds = bucket_bounds(lowest, highest, median, is_whole=is_whole)
    assert bounds == sorted(set(bounds))
    assert bounds[0] <= lowest <= highest < bounds[-1]
    assert len(bounds) <= 31


def test_a_bucket_is_named_by_its_values_and_growing_ones_are_known() -> None:
    growing = [Bucket(1, 2, 9, True), Bucket(2, 5, 3, True), Bucket(5, 10, 1, True)]
    assert [each.label for each in growing] == ["1", "2–4", "5–9"]
    assert has_growing_steps(growing)
    assert not has_growing_steps([Bucket(0, 5, 1, True), Bucket(5, 10, 1, True)])
