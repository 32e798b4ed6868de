"""The alert engine over plain objects: an in-memory store, and a data mapper in a file."""

import logging
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert, AlertKey, Deltas, alert_from, past_windows_resolved
from elasticsearch_sink_alert.alerting.change_windows import Samples, delta, with_sample
from elasticsearch_sink_alert.alerting.data_mapper import ReloadingRules
from elasticsearch_sink_alert.alerting.engine import DATA_MAPPER, AlertEngine
from elasticsearch_sink_alert.alerting.rules import Rule
from elasticsearch_sink_alert.indexing.bulk import Outcome, Result
from elasticsearch_sink_alert.kafka.rows import Record, Row, latest_rows
from elasticsearch_sink_alert.kafka.versions import VersionClock

from contract.alerts import FIELDS
from runtime.health import Health

ITEMS = "agg_interactions_item"
HEAD = f"{ITEMS}:\n  id: item_id\n  alerts:\n"
OVER_12 = '[max_interactions, ">", 12]'
FOR_10 = '{field: max_interactions, operator: ">", threshold: 12, for: 10, name: lasting}'
SPIKE = '{field: max_interactions, operator: ">", threshold: 5, within: 60, name: spike}'


class MemoryStore:
    """The store's protocol without a server. `results` and `replayed` are by the ids of rows."""

    def __init__(self) -> None:
        self.firing: dict[AlertKey, Alert] = {}
        self.waiting: dict[AlertKey, Alert] = {}
        self.stored: dict[str, Alert] = {}
        self.results: dict[str, Result] = {}
        self.replayed: set[str] = set()

    def load(self) -> None:
        self.firing = {alert.key: alert for alert in self.stored.values() if alert.status == "firing"}
        self.waiting = {alert.key: alert for alert in self.stored.values() if alert.status == "waiting"}

    def without_replayed(self, changed: Sequence[Alert]) -> list[Alert]:
        return [alert for alert in changed if alert.id not in self.replayed]

    def save(self, changed: Sequence[Alert]) -> list[tuple[Alert, Outcome]]:
        outcomes = [Outcome(self.results.get(alert.id, Result.WRITTEN), "too long") for alert in changed]
        for alert, outcome in zip(changed, outcomes, strict=True):
            if outcome.result is Result.WRITTEN:
                self.stored[alert.alert_id] = alert
        self.load()
        return list(zip(changed, outcomes, strict=True))


class MemoryWindows:
    """The change windows' protocol without a server."""

    def __init__(self) -> None:
        self.samples: dict[AlertKey, Samples] = {}
        self.clears = 0

    def clear_cache(self) -> None:
        self.clears += 1

    def add(self, rules: Mapping[str, Sequence[Rule]], rows: Iterable[Row]) -> Deltas:
        found: dict[AlertKey, Mapping[str, float]] = {}
        for row in rows:
            for rule in rules.get(row.key.table, ()):
                if rule.within and row.fields:
                    key, at = (rule.name, row.key), row.record.timestamp_ms
                    window, value = int(rule.within * 1000), row.fields[rule.field]
                    self.samples[key] = with_sample(self.samples.get(key, []), at, value, window)
                    found[key] = {rule.field: delta(self.samples[key], at, window)}
        return found

    def deltas_at(self, at: int, rules: Mapping[AlertKey, Rule]) -> Deltas:
        return {
            key: {rule.field: delta(self.samples[key], at, int((rule.within or 0) * 1000))}
            for key, rule in rules.items()
        }


class Engine:
    """An alert engine, its collaborators, and what it has notified."""

    def __init__(self, folder: Path, *rules: str) -> None:
        self._mapper = folder / "mapper.yml"
        self.write_rules(*rules)
        self.store, self.windows, self.health = MemoryStore(), MemoryWindows(), Health()
        self.notified: list[tuple[str, str]] = []
        self.calls = 0
        self.engine = AlertEngine(ReloadingRules(self._mapper), self.windows, self.store, self._notify, self.health)

    def _notify(self, changed: Sequence[Alert]) -> None:
        self.calls += 1
        self.notified += [(alert.id, alert.status) for alert in changed if alert.status in ("firing", "resolved")]

    def write_rules(self, *rules: str) -> None:
        self.write_mapper(HEAD + "".join(f"    - {rule}\n" for rule in rules) if rules else f"{HEAD[:-1]} []\n")

    def write_mapper(self, text: str) -> None:
        self._mapper.write_text(text)
        # A change is read once it is a second old.
        old = time.time() - 10 - len(text)
        os.utime(self._mapper, (old, old))

    def process(self, at: float = 1, partition: int = 0, **max_interactions: int) -> None:
        records = [
            Record(
                "t", partition, int(at * 1000), int(at * 1000), f"{ITEMS}-{id_}".encode(),
                orjson.dumps({"item_id": id_, "max_interactions": value}),
            )
            for id_, value in max_interactions.items()
        ]  # fmt: skip
        rows, rejected = latest_rows(records, VersionClock())
        assert rejected == []
        self.engine.evaluate(rows)

    @property
    def firing(self) -> set[str]:
        return {row_key.id for _, row_key in self.store.firing}


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_rows_fire_and_resolve_alerts_which_are_saved_and_notified(tmp_path: Path) -> None:
    engine = Engine(tmp_path, OVER_12)
    engine.process(1, a=13, b=1)
    engine.process(2, a=14)
    engine.process(3, a=1)
    assert engine.notified == [("a", "firing"), ("a", "resolved")]
    assert [alert.status for alert in engine.store.stored.values()] == ["resolved"]


def _logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the engine logs about alerts, without their rules and indices."""
    return [re.sub(r": .* \(\w+ ", " (", text) for text in caplog.messages if text.startswith(("firing", "resolved"))]


def test_the_log_of_a_resolved_alert_shows_the_value_now_and_the_one_that_fired(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine(tmp_path, OVER_12)
    engine.process(1, a=13)
    engine.process(2, a=14)
    engine.process(3, a=1)
    assert _logged(caplog) == ["firing (a, value 13)", "resolved (a, now 1, was 13)"]
    (alert,) = engine.store.stored.values()
    assert (alert.value, set(alert.document())) == (13, set(FIELDS)), "the document is the contract's"


def test_the_log_of_an_alert_about_a_change_shows_the_change_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine(tmp_path, SPIKE)
    engine.process(1, a=1, b=1)
    engine.process(20, a=10, b=10)
    engine.process(90, a=12)
    engine.engine.resolve_idle(_at(90), {0})
    assert _logged(caplog) == [
        "firing (a, value 9)", "firing (b, value 9)", "resolved (a, now 2, was 9)", "resolved (b, now 0, was 9)"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ((), "rule removed"),
        (('{field: max_interactions, operator: ">", threshold: 12, silence: [a]}',), "row silenced"),
    ],
)
def test_the_log_says_that_a_rule_is_gone_or_silenced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rules: tuple[str, ...], reason: str
) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine(tmp_path, OVER_12)
    engine.process(1, a=13)
    engine.write_rules(*rules)
    engine.engine.reload_rules()
    assert _logged(caplog) == ["firing (a, value 13)", f"resolved (a, {reason}, was 13)"]


def test_the_log_says_that_the_row_was_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine(tmp_path, OVER_12)
    engine.process(1, a=13)
    rows, _ = latest_rows([Record("t", 0, 2_000, 2_000, f"{ITEMS}-a".encode(), None)], VersionClock())
    engine.engine.evaluate(rows)
    assert _logged(caplog)[-1] == "resolved (a, row deleted, was 13)"


def test_alerts_that_were_superseded_or_replayed_are_not_notified(tmp_path: Path) -> None:
    engine = Engine(tmp_path, OVER_12)
    engine.store.results = {"a": Result.SUPERSEDED}
    engine.store.replayed = {"b"}
    engine.process(1, a=13, b=13, c=13)
    assert engine.notified == [("c", "firing")]


def test_an_alert_that_is_refused_is_logged_and_notified(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(tmp_path, OVER_12)
    engine.store.results = {"a": Result.REFUSED}
    engine.process(1, a=13)
    assert f"alert {ITEMS}: max_interactions > 12 of {ITEMS} a is not saved: too long" in caplog.text
    assert engine.notified == [("a", "firing")]


def test_due_alerts_fire_by_time_and_only_for_assigned_partitions(tmp_path: Path) -> None:
    engine = Engine(tmp_path, FOR_10)
    engine.process(1, partition=0, a=13)
    engine.process(1, partition=1, b=13)
    assert (engine.notified, {row_key.id for _, row_key in engine.store.waiting}) == ([], {"a", "b"})
    engine.engine.fire_due(_at(10.9), {0, 1})
    assert engine.notified == []
    engine.engine.fire_due(_at(11), {1})
    assert (engine.notified, {row_key.id for _, row_key in engine.store.waiting}) == ([("b", "firing")], {"a"})
    engine.process(5, a=1)
    engine.engine.fire_due(_at(60), {0, 1})
    assert (engine.notified, engine.firing) == ([("b", "firing")], {"b"})


def test_idle_rows_resolve_alerts_about_a_change_and_only_for_assigned_partitions(tmp_path: Path) -> None:
    engine = Engine(tmp_path, SPIKE, OVER_12)
    engine.process(1, a=1)
    engine.process(20, a=10)
    assert engine.notified == [("a", "firing")]
    engine.engine.resolve_idle(_at(70), {0})
    engine.engine.resolve_idle(_at(90), {1})
    assert engine.firing == {"a"}
    engine.engine.resolve_idle(_at(90), {0})
    assert engine.notified == [("a", "firing"), ("a", "resolved")]
    (alert,) = engine.store.stored.values()
    assert alert.resolved_at == "1970-01-01T00:01:30.000Z"


def test_alerts_about_a_value_are_not_resolved_by_time(tmp_path: Path) -> None:
    engine = Engine(tmp_path, OVER_12)
    engine.process(1, a=13)
    engine.engine.resolve_idle(_at(1e9), {0})
    assert engine.firing == {"a"}


def test_loading_takes_over_the_alerts_of_the_store(tmp_path: Path) -> None:
    before, after = Engine(tmp_path, OVER_12, FOR_10), Engine(tmp_path, OVER_12, FOR_10)
    before.process(1, a=13)
    after.store.stored = before.store.stored
    after.engine.load()
    assert after.windows.clears == 1
    after.process(2, a=14)
    assert after.notified == []
    after.process(20, a=14)
    assert after.notified == [("a", "firing")], "the rule with `for`; the other one fired before"


@pytest.mark.parametrize("rules", [(), ('{field: max_interactions, operator: ">", threshold: 12, silence: [a]}',)])
def test_alerts_of_rules_that_are_removed_or_silenced_are_resolved(tmp_path: Path, rules: tuple[str, ...]) -> None:
    engine = Engine(tmp_path, OVER_12, FOR_10)
    engine.process(1, a=13)
    engine.write_rules(*rules)
    engine.engine.reload_rules()
    assert engine.notified == [("a", "firing"), ("a", "resolved")]
    assert sorted(alert.status for alert in engine.store.stored.values()) == ["cancelled", "resolved"]
    engine.process(2, a=14)
    assert engine.firing == set()


def test_alerts_of_rules_that_were_removed_before_the_start_are_resolved(tmp_path: Path) -> None:
    before = Engine(tmp_path, OVER_12)
    before.process(1, a=13)
    after = Engine(tmp_path, FOR_10)
    after.store.stored = before.store.stored
    after.engine.load()
    assert after.notified == [("a", "resolved")]


def test_an_invalid_data_mapper_leaves_the_last_rules_in_force_and_health_says_so(tmp_path: Path) -> None:
    engine = Engine(tmp_path, OVER_12)
    engine.write_rules(OVER_12, "nonsense")
    engine.engine.reload_rules()
    assert "expected [field, operator, threshold]" in engine.health.problems()[DATA_MAPPER]
    engine.process(1, a=13)
    assert engine.firing == {"a"}
    engine.write_rules(OVER_12)
    engine.engine.reload_rules()
    assert engine.health.problems() == {}


def test_summaries_are_sent_without_changed_alerts(tmp_path: Path) -> None:
    engine = Engine(tmp_path, OVER_12)
    engine.engine.send_summaries()
    assert (engine.calls, engine.notified) == (1, [])


def test_the_alerts_of_a_window_are_resolved_when_it_is_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine(tmp_path)
    mapper = "agg_interactions_item_hour:\n  id: [item_id, hour]\n  alerts:\n    - [total_interactions, '>', 12]\n"
    engine.write_mapper(mapper)
    engine.engine.reload_rules()
    row = {"item_id": "a", "hour": "1970-01-01T01:00:00.000Z", "total_interactions": 13}
    record = Record(
        "t", 0, 3_700_000, 3_700_000, b"agg_interactions_item_hour-a|1970-01-01T01:00:00Z", orjson.dumps(row)
    )
    rows, _ = latest_rows([record], VersionClock())
    engine.engine.evaluate(rows)
    for at, partition in ((7_204, 0), (7_206, 1)):
        engine.engine.resolve_past_windows(_at(at), {partition})
        assert engine.firing == {"a|1970-01-01T01:00:00Z"}
    engine.engine.resolve_past_windows(_at(7_206), {0})
    assert engine.firing == set()
    (alert,) = engine.store.stored.values()
    assert (alert.status, alert.resolved_at) == ("resolved", "1970-01-01T02:00:06.000Z")
    assert any("window is over, was 13" in text for text in caplog.messages)


def test_alerts_of_other_rows_are_not_resolved_as_time_passes(tmp_path: Path) -> None:
    engine = Engine(tmp_path, OVER_12)
    engine.process(1, a=13)
    engine.engine.resolve_past_windows(_at(1e9), {0})
    assert engine.firing == {"a"}


@pytest.mark.parametrize("hour", ["9999-12-31T23:00:00.000Z", None])
def test_an_alert_without_an_end_of_its_window_stays(hour: str | None) -> None:
    """None: the table had no window yet when it fired."""
    row = {"item_id": "a"} | ({} if hour is None else {"hour": hour})
    document = {"rule": "viral", "index": "agg_interactions_item_hour", "id": "a", "row": row, "severity": "info"}
    document |= dict.fromkeys(("alert_text", "field", "operator"), "")
    times = {"fired_at": "2026-01-31T13:10:00.000Z"}
    alert = alert_from("id", document | times | {"version": 1, "threshold": 1, "value": 2})
    assert past_windows_resolved([alert], _at(2e9)) == []
    over = replace(alert, row=row | {"hour": "2026-01-31T12:00:00.000Z"})
    assert [each.status for each in past_windows_resolved([over], _at(2e9))] == ["resolved"]


def test_a_waiting_alert_that_would_fire_after_its_window_is_cancelled(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.write_mapper(
        "agg_interactions_item_hour:\n  id: [item_id, hour]\n  alerts:\n"
        "    - {field: total_interactions, operator: '>', threshold: 12, for: 60}\n"
    )
    engine.engine.reload_rules()
    for item, at in (("a", 3_700), ("b", 7_190)):
        row = {"item_id": item, "hour": "1970-01-01T01:00:00.000Z", "total_interactions": 13}
        key = f"agg_interactions_item_hour-{item}|1970-01-01T01:00:00Z".encode()
        rows, _ = latest_rows([Record("t", 0, at, 1_000 * at, key, orjson.dumps(row))], VersionClock())
        engine.engine.evaluate(rows)
    assert len(engine.store.waiting) == 2
    # The sink was busy until then.
    engine.engine.resolve_past_windows(_at(7_300), {0})
    engine.engine.fire_due(_at(7_300), {0})
    assert engine.firing == {"a|1970-01-01T01:00:00Z"}
    assert engine.store.waiting == {}
