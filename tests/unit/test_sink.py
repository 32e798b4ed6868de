"""Alert rules, alert life cycle, rows, versions and the data mapper, without a server."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from elasticsearch_sink_alert.alerting import alert_lifecycle, data_mapper
from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert, AlertKey, alert_from, evaluate
from elasticsearch_sink_alert.alerting.change_windows import delta, with_sample
from elasticsearch_sink_alert.alerting.data_mapper import DataMapperError, ReloadingRules
from elasticsearch_sink_alert.alerting.notifications.rate_limit import RateLimiter
from elasticsearch_sink_alert.alerting.rules import Rule
from elasticsearch_sink_alert.indexing.bulk import bulk_action
from elasticsearch_sink_alert.indexing.index_templates import mappings
from elasticsearch_sink_alert.kafka.rows import Record, Row, latest_rows
from elasticsearch_sink_alert.kafka.versions import VersionClock
from elasticsearch_sink_alert.settings import SinkSettings

from contract.declared import TABLES, table_named
from contract.fields import ColumnType
from contract.keys import RowKey, encode_key

ITEMS = "agg_interactions_item"


def _record(key: str | bytes | None, value: Any, *, offset: int = 0, partition: int = 0, at: int = 1_000) -> Record:
    encoded = value if isinstance(value, bytes) or value is None else orjson.dumps(value)
    return Record("t", partition, offset, at, key.encode() if isinstance(key, str) else key, encoded)


def _item(id: str, max_interactions: int, offset: int = 0) -> Record:
    return _record(
        f"{ITEMS}-{id}", {"item_id": id, "max_interactions": max_interactions}, offset=offset, at=1_000 + offset
    )


def _rows(*records: Record) -> list[Row]:
    rows, rejected = latest_rows(records, VersionClock())
    assert rejected == []
    return rows


RULE = Rule(ITEMS, "max_interactions", ">", 12, ColumnType.LONG)


class AlertsInMemory:
    """Evaluates rules and keeps the alerts, without a server."""

    def __init__(self, *rules: Rule) -> None:
        self.rules: dict[str, tuple[Rule, ...]] = {ITEMS: rules}
        self.by_status: dict[str, dict[AlertKey, Alert]] = defaultdict(dict)
        self.documents: dict[str, Alert] = {}
        self.deltas: dict[AlertKey, dict[str, float]] = {}

    def process(self, *records: Record) -> list[str]:
        rows = _rows(*records)
        return self._save(evaluate(self.rules, rows, self.by_status["firing"], self.by_status["waiting"], self.deltas))

    def wait_until(self, seconds: float, partitions: Sequence[int] = (0,)) -> list[str]:
        now = datetime.fromtimestamp(seconds, UTC)
        return self._save(alert_lifecycle.due(self.by_status["waiting"].values(), now, partitions))

    def _save(self, changed: Sequence[Alert]) -> list[str]:
        for alert in changed:
            self.documents[alert.alert_id] = alert
            for of_status in self.by_status.values():
                of_status.pop(alert.key, None)
            self.by_status[alert.status][alert.key] = alert
        return [alert.status for alert in changed]


def test_a_rule_that_stays_true_alerts_once() -> None:
    state = AlertsInMemory(RULE)
    assert [state.process(_item("a", value, n)) for n, value in enumerate((12, 13, 14, 15))] == [[], ["firing"], [], []]


def test_an_alert_is_resolved_when_its_rule_stops_being_true_and_a_new_one_fires_later() -> None:
    state = AlertsInMemory(RULE)
    changed = [state.process(_item("a", value, n)) for n, value in enumerate((13, 12, 13))]
    assert changed == [["firing"], ["resolved"], ["firing"]]
    assert sorted(alert.status for alert in state.documents.values()) == ["firing", "resolved"]


def test_an_alert_with_a_resolve_threshold_keeps_firing_until_the_value_has_passed_it() -> None:
    state = AlertsInMemory(replace(RULE, resolve=10))
    changed = [state.process(_item("a", value, n)) for n, value in enumerate((13, 12, 11, 13, 10, 11, 12, 13))]
    assert changed == [["firing"], [], [], [], ["resolved"], [], [], ["firing"]]


def test_a_rule_with_for_fires_once_it_has_been_true_for_that_time() -> None:
    state = AlertsInMemory(replace(RULE, for_seconds=10))
    assert state.process(_item("a", 13, 0), _item("b", 13, 0), _item("c", 13, 0)) == ["waiting"] * 3
    assert state.process(_item("a", 14, 4_000), _item("b", 12, 5_000)) == ["waiting", "cancelled"]
    assert state.wait_until(10.999) == []
    assert state.wait_until(11, partitions=[1]) == []
    assert state.wait_until(11) == ["firing", "firing"]
    assert state.wait_until(60) == []
    (alert,) = [alert for alert in state.documents.values() if alert.id == "a"]
    assert (alert.value, alert.fired_at) == (14, "1970-01-01T00:00:11.000Z")
    # True again for a moment, twice.
    assert [
        state.process(_item("b", value, at)) for at, value in ((20_000, 13), (25_000, 1), (28_000, 13), (31_000, 2))
    ] == [
        ["waiting"],
        ["cancelled"],
        ["waiting"],
        ["cancelled"],
    ]


def test_an_alert_that_became_due_between_two_rows_fires_by_their_times() -> None:
    state = AlertsInMemory(replace(RULE, for_seconds=10))
    assert state.process(_item("a", 13, 0), _item("b", 13, 0)) == ["waiting", "waiting"]
    # A backlog: no record-free moment in between at which due alerts would have fired.
    assert state.process(_item("a", 14, 60_000), _item("b", 1, 60_000)) == ["firing", "resolved"]
    assert {a.id: (a.fired_at[17:23], a.resolved_at) for a in state.documents.values()} == {
        "a": ("11.000", None),
        "b": ("11.000", "1970-01-01T00:01:01.000Z"),
    }


def test_a_rule_with_within_is_about_the_change_and_is_resolved_when_nothing_changes() -> None:
    rule = replace(RULE, threshold=5, resolve=2, within=60)
    state = AlertsInMemory(rule)
    key = (rule.name, RowKey(ITEMS, "a"))
    fired = []
    for at, (value, change) in enumerate([(100, 0), (105, 5), (106, 6), (107, 3)]):
        state.deltas = {key: {"max_interactions": change}}
        fired.append(state.process(_item("a", value, at)))
    assert fired == [[], [], ["firing"], []]
    firing = state.by_status["firing"]
    assert (firing[key].value, firing[key].alert_text) == (6, "max_interactions > 5 within 60 s")
    assert alert_lifecycle.idle_resolved(firing, {key: rule}, {key: {"max_interactions": 3}}, "later") == []
    (alert,) = alert_lifecycle.idle_resolved(firing, {key: rule}, {key: {"max_interactions": 2}}, "later")
    assert (alert.status, alert.resolved_at, alert.version) == ("resolved", "later", firing[key].version)
    assert alert.observed == "now 2, was 6"


def test_the_change_within_a_window_is_exact_to_a_twentieth_of_the_window() -> None:
    random = Random(5)
    window, values, samples = 10_000, [(0, 0.0)], [(0, 0.0)]
    for _ in range(3_000):
        at = values[-1][0] + int(random.expovariate(1 / random.choice([30, 300, 20_000])))
        values.append((at, values[-1][1] + 1))
        samples = with_sample(samples, *values[-1], window)

        def value_at(time_ms: int) -> float:
            return next((value for since, value in reversed(values) if since <= time_ms), 0.0)

        least, most = values[-1][1] - value_at(at - window), values[-1][1] - value_at(at - window - window // 20)
        assert least <= delta(samples, at, window) <= most
        assert len(samples) <= 23
    # Later, when nothing more has come.
    assert delta(samples, at + window, window) == 0


def test_a_record_that_is_processed_again_does_not_change_its_samples() -> None:
    samples = with_sample(with_sample([], 1_000, 5, 10_000), 2_000, 7, 10_000)
    assert with_sample(samples, 2_000, 7, 10_000) == samples
    assert with_sample(samples, 1_500, 8, 10_000) == [(1_000, 5), (2_000, 8)]


@pytest.mark.parametrize(("field", "value"), [("max_interactions", "13"), ("last_interaction", "soon")])
def test_a_value_of_another_type_meets_no_rule(field: str, value: str) -> None:
    column = table_named(ITEMS).column(field)
    assert column is not None
    threshold = "2026-01-31T12:00:00Z" if column.type is ColumnType.DATE else 12
    assert not Rule(ITEMS, field, ">", threshold, column.type).matches({field: value})


def test_a_silenced_row_does_not_alert_and_is_resolved_if_it_did() -> None:
    state = AlertsInMemory(RULE)
    assert state.process(_item("test_1", 13, 0), _item("b", 13, 1)) == ["firing", "firing"]
    state.rules = {ITEMS: (replace(RULE, silence=("test_*", "c?")),)}
    assert state.process(_item("test_1", 14, 2), _item("b", 14, 3), _item("c1", 14, 4), _item("c", 14, 5)) == [
        "resolved",
        "firing",
    ]
    assert replace(RULE, silence=("[a]*",)).is_silent_about("[a]b")
    assert not replace(RULE, silence=("[a]*",)).is_silent_about("ab")


def test_alerts_beyond_the_rate_limit_of_a_rule_come_as_a_summary_at_the_end_of_the_minute() -> None:
    now = [100.0]
    limiter = RateLimiter(2, clock=lambda: now[0])
    alert = _any_alert()
    allowed = [limiter.allow(each) for each in (*[alert] * 4, replace(alert, status="resolved"))]
    other = replace(alert, rule="another")
    assert (allowed, limiter.allow(other), limiter.summaries()) == ([True, True, False, False, False], True, [])
    now[0] = 160
    (summary,) = limiter.summaries()
    assert summary == (alert.rule, {"firing": 2, "resolved": 1}, 2)
    assert (limiter.summaries(), limiter.allow(alert)) == ([], True)


def test_every_rule_that_matches_fires() -> None:
    critical = Rule(ITEMS, "max_interactions", ">=", 13, ColumnType.LONG, "critical", "very popular")
    state = AlertsInMemory(RULE, critical)
    assert state.process(_item("a", 13)) == ["firing", "firing"]
    assert {a.rule for a in state.documents.values()} == {f"{ITEMS}: max_interactions > 12", "very popular"}


def test_each_row_has_alerts_of_its_own() -> None:
    state = AlertsInMemory(RULE)
    assert state.process(_item("a", 13, 0), _item("b", 14, 1), _item("c", 1, 2)) == ["firing", "firing"]


def test_an_alert_holds_the_rule_and_the_row_that_fired() -> None:
    state = AlertsInMemory(RULE)
    state.process(_item("a", 13, offset=5))
    (alert,) = state.documents.values()
    document = alert.document()
    assert document["alert_text"] == "max_interactions > 12"
    assert (document["index"], document["id"]) == (ITEMS, "a")
    assert (document["field"], document["operator"], document["threshold"], document["value"]) == (
        "max_interactions",
        ">",
        12,
        13,
    )
    assert document["row"] == {"item_id": "a", "max_interactions": 13}
    assert (document["status"], document["fired_at"], document["resolved_at"]) == (
        "firing",
        "1970-01-01T00:00:01.005Z",
        None,
    )
    assert alert_from(alert.alert_id, document) == alert


def test_the_same_records_again_lead_to_the_same_alert_ids() -> None:
    one, two = AlertsInMemory(RULE), AlertsInMemory(RULE)
    for state in (one, two):
        state.process(_item("a", 13, 3))
    assert one.documents == two.documents


def test_a_deleted_row_resolves_its_alerts() -> None:
    state = AlertsInMemory(RULE)
    state.process(_item("a", 13))
    assert state.process(_record(f"{ITEMS}-a", None, offset=1)) == ["resolved"]


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        (">", 12, False),
        (">", 13, True),
        ("<", 12, False),
        ("<", 11.9, True),
        ("==", 12, True),
        ("==", 12.0, True),
        ("==", 13, False),
        (">=", 12, True),
        ("<=", 12, True),
        ("<=", 13, False),
        ("!=", 12, False),
        ("!=", 11, True),
        (">", None, False),
        ("!=", None, False),
    ],
)
def test_operators_compare_the_value_with_the_threshold(operator: str, value: float | None, expected: bool) -> None:
    rule = Rule(ITEMS, "max_interactions", operator, 12, ColumnType.LONG)
    assert rule.matches({"max_interactions": value}) is expected


def test_dates_are_compared_as_points_in_time() -> None:
    rule = Rule(ITEMS, "last_interaction", "<", "2026-01-01T00:00:00+01:00", ColumnType.DATE)
    assert rule.matches({"last_interaction": "2025-12-31T22:59:59.000Z"})
    assert not rule.matches({"last_interaction": "2025-12-31T23:00:00.000Z"})


def test_the_latest_row_of_each_key_is_kept() -> None:
    rows = _rows(_item("a", 1, 0), _item("b", 2, 1), _item("a", 3, 2))
    assert {row.key.id: row.fields["max_interactions"] for row in rows if row.fields} == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (_record(None, {}), "no key"),
        (_record(b"\xff", {}), "not UTF-8"),
        (_record("table-1", {}), "names no row"),
        (_record(f"{ITEMS}-a", b"{"), "not JSON"),
        (_record(f"{ITEMS}-a", []), "not a JSON object"),
        (_record(f"{ITEMS}-a", {"item_id": "b"}), "item_id is 'b', but the key says 'a'"),
        (_record(f"{ITEMS}-{'x' * 513}", {}), "longer than the 512 bytes"),
    ],
)
def test_a_record_that_is_not_a_row_is_rejected_with_the_reason(record: Record, reason: str) -> None:
    rows, rejected = latest_rows([record], VersionClock())
    assert rows == []
    assert reason in rejected[0].reason
    assert rejected[0].record is record


def test_a_later_record_has_a_greater_version_also_when_the_clock_is_set_back() -> None:
    clock = VersionClock()
    times = [1_000, 1_000, 1_001, 400, 400, 1_002]
    versions = [clock.version(0, at, offset) for offset, at in enumerate(times)]
    assert versions == sorted(set(versions))


def test_a_replay_gives_the_same_versions() -> None:
    def versions(clock: VersionClock) -> list[int]:
        return [clock.version(0, at, offset) for offset, at in enumerate([10, 10, 5, 11])]

    assert versions(VersionClock()) == versions(VersionClock())


def test_a_recreated_topic_continues_with_greater_versions() -> None:
    clock = VersionClock()
    before = clock.version(0, timestamp_ms=1_000, offset=900_000)
    assert VersionClock().version(0, timestamp_ms=2_000, offset=0) > before


def test_the_clock_continues_from_the_metadata_of_the_commit() -> None:
    clock = VersionClock()
    last = clock.version(3, 1_000, 7)
    restored = VersionClock()
    restored.restore(3, clock.metadata(3))
    assert restored.version(3, 500, 8) == last + 1
    restored.restore(3, None)
    assert restored.version(3, 500, 8) < last


def test_a_row_of_several_lines_becomes_one_line_of_the_bulk_request() -> None:
    lines = bulk_action(ITEMS, "a", 1, b'{\n "item_id": "a"\n}').splitlines()
    assert len(lines) == 2
    assert orjson.loads(lines[1]) == {"item_id": "a"}


def test_every_column_is_mapped_and_other_fields_are_refused() -> None:
    mapped = dict(mappings())
    for table in TABLES:
        assert mapped[table.name]["dynamic"] == "strict"
        assert set(mapped[table.name]["properties"]) == {column.name for column in table.columns}
    assert set(mapped["alerts"]["properties"]) == set(_any_alert().document())


def _any_alert() -> Alert:
    (alert,) = evaluate({ITEMS: [RULE]}, _rows(_item("a", 13)), {}, {}, {})
    return alert


def test_the_default_data_mapper_holds_the_rules_of_the_contract() -> None:
    mapper = data_mapper.load(SinkSettings().data_mapper)
    assert {(rule.table, rule.alert_text) for rule in mapper.all_rules} == {
        ("agg_interactions_item", "max_interactions > 12"),
        ("agg_interactions_user", "total_interactions > 100"),
        ("agg_interactions_user", "avg_interactions < 40"),
        ("agg_interactions_minute", "total_purchase > 20"),
        ("agg_interactions_item_hour", "total_interactions > 400"),
    }


def test_a_rule_may_have_a_name_and_a_severity(tmp_path: Path) -> None:
    mapper = tmp_path / "mapper.yml"
    mapper.write_text(
        "agg_interactions_user:\n  id: user_id\n  alerts:\n"
        '  - {field: user_id, operator: "==", threshold: user_1, name: watched, severity: info}\n'
    )
    (rule,) = data_mapper.load(mapper).all_rules
    assert (rule.name, rule.severity, rule.matches({"user_id": "user_1"})) == ("watched", "info", True)


HEAD = "agg_interactions_item:\n  id: item_id\n  alerts:\n"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("agg_interactions:\n  id: x\n", 1, "unknown table 'agg_interactions': expected agg_interactions_user, "),
        ("agg_interactions_item:\n  id: user_id\n", 2, "id is 'user_id': expected 'item_id'"),
        ("agg_interactions_item:\n  alerts: []\n", 1, "id is None: expected 'item_id'"),
        ("agg_interactions_item:\n  id: item_id\n  rules: []\n", 3, "unknown entry 'rules': expected id, alerts"),
        (HEAD + '  - [max, ">", 12]\n', 4, "unknown field 'max': expected item_id, min_interactions, "),
        (HEAD + '  - [max_interactions, "=>", 12]\n', 4, "unknown operator '=>': expected >, >=, <, <=, ==, !="),
        (HEAD + '  - [max_interactions, ">", "12"]\n', 4, "threshold '12' is of the wrong type"),
        (HEAD + '  - [max_interactions, ">", true]\n', 4, "threshold True is of the wrong type"),
        (HEAD + '  - [item_id, "==", 5]\n', 4, "item_id is a keyword, expected text"),
        (HEAD + '  - [last_interaction, ">", "today"]\n', 4, "is not a timestamp"),
        (HEAD + '  - [max_interactions, ">"]\n', 4, "expected [field, operator, threshold]"),
        (HEAD + '  - {field: max_interactions, operator: ">"}\n', 4, "expected [field, operator, threshold]"),
        (
            HEAD + '  - {field: max_interactions, operator: ">", threshold: 1, severity: loud}\n',
            4,
            "unknown severity 'loud': expected info, warning, critical",
        ),
        *[
            (HEAD + f"  - {{field: max_interactions, operator: {written}}}\n", 4, problem)
            for written, problem in {
                '">", threshold: 12, resolve: 13': "resolve 13 is on the wrong side of 12",
                '"<", threshold: 12, resolve: 11': "resolve 11 is on the wrong side of 12",
                '"==", threshold: 12, resolve: 12': "resolve goes with >, >=, < and <=, not with ==",
                '">", threshold: 12, resolve: low': "resolve 'low' is of the wrong type",
                '">", threshold: 12, for: a minute': "for is 'a minute': expected seconds",
                '">", threshold: 12, silence: user_1': "silence is 'user_1': expected a list",
                '">", threshold: 12, silence: [1]': "silence is [1]: expected a list",
                '">", threshold: 12, within: soon': "within is 'soon': expected seconds, from 1 to 86400",
                '"==", threshold: 12, within: 60': "within goes with >, >=, < and <=, not with ==",
                '">=", threshold: 0, within: 60': "a change of 0 must not meet the condition: expected a rise",
                '"<", threshold: 12, within: 60': "a change of 0 must not meet the condition: expected a rise",
                '">=", threshold: 12, resolve: 0, within: 60': "a change of 0 must not meet the condition",
                '">", threshold: 12, within: 60, for: 10': "for does not go with within",
            }.items()
        ],
        (
            HEAD + '  - [max_interactions, ">", 1]\n  - [max_interactions, ">", 1]\n',
            5,
            "is already on line 4",
        ),
        (HEAD + "  - [max_interactions, >, 12]\n", 4, "not YAML"),
        ("- 1\n", 1, "expected tables"),
        ("", 1, "expected tables"),
    ],
)
def test_a_problem_in_a_data_mapper_is_reported_with_file_line_and_what_is_allowed(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    mapper = tmp_path / "mapper.yml"
    mapper.write_text(text)
    with pytest.raises(DataMapperError) as raised:
        data_mapper.load(mapper)
    assert f"{mapper}:{line}: " in str(raised.value)
    assert problem in str(raised.value)


def test_all_problems_in_a_data_mapper_are_reported_at_once(tmp_path: Path) -> None:
    mapper = tmp_path / "mapper.yml"
    mapper.write_text(HEAD + '  - [max, ">", 12]\n  - [max_interactions, "~", 12]\nnothing: {}\n')
    with pytest.raises(DataMapperError) as raised:
        data_mapper.load(mapper)
    assert re.findall(r":(\d+): ", str(raised.value)) == ["4", "5", "6"]


def test_a_changed_data_mapper_is_reloaded_and_an_invalid_one_leaves_the_last_rules_in_force(tmp_path: Path) -> None:
    def write(text: str, seconds_ago: float) -> None:
        mapper.write_text(text)
        os.utime(mapper, (time.time() - seconds_ago,) * 2)

    mapper = tmp_path / "mapper.yml"
    write(HEAD + '  - [max_interactions, ">", 12]\n', 60)
    rules = ReloadingRules(mapper)
    assert not rules.reload()
    write(HEAD + '  - [max_interactions, ">", 13]\n', 0)
    assert not rules.reload(), "it may still be being written"
    write(HEAD + '  - [max_interactions, ">", 13]\n', 10)
    assert rules.reload()
    assert [rule.threshold for rule in rules.current.all_rules] == [13]
    write(HEAD + '  - [max, ">", 13]\n', 5)
    with pytest.raises(DataMapperError, match="unknown field 'max'"):
        rules.reload()
    assert not rules.reload(), "it is reported once"
    assert [rule.threshold for rule in rules.current.all_rules] == [13]
    mapper.unlink()
    with pytest.raises(DataMapperError, match=f"^{mapper} does not exist$"):
        rules.reload()


def test_a_missing_data_mapper_is_reported_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataMapperError, match=r"nowhere\.yml does not exist$"):
        data_mapper.load(tmp_path / "nowhere.yml")


def test_rows_decode_the_keys_that_encode_key_makes() -> None:
    (row,) = _rows(_record(encode_key("avg_interactions", None), {"avg_interactions": 2.5}))
    assert row.key == RowKey("avg_interactions", "avg_interactions")
