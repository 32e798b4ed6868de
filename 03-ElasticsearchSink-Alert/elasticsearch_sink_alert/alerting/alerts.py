"""The life of an alert: it fires when a rule comes true of a row, and is resolved when it no longer is.

Pure code. What decides is the row, its version and the alerts that are firing, so that the same rows after
a crash lead to the same alerts with the same ids.
"""

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from elasticsearch_sink_alert.alerting.rules import Rule, Severity, Threshold
from elasticsearch_sink_alert.kafka.rows import Row

INDEX: Final = "alerts"
WAITING_INDEX: Final = "alerts_waiting"
"""Alerts of rules that are true and have to stay so for a while before they fire."""
HISTORIES_INDEX: Final = "alerts_histories"
"""What fields were a while ago, for the rules with `within`."""

Status = Literal["waiting", "over", "firing", "resolved"]
"""`waiting` may become `firing`, when its time has come, or `over`, when its rule is no longer true before that."""

Period = tuple[str, str, str]
"""What can be firing once at a time: rule, index, id."""


@dataclass(frozen=True)
class Alert:
    """One firing period of one rule for one row: a document of the index `alerts`."""

    alert_id: str
    version: int
    """That of the row that caused the last change."""
    rule: str
    alert_text: str
    severity: Severity
    index: str
    id: str
    field: str
    operator: str
    threshold: Threshold
    value: Any
    """The value that fired; the change that did, for a rule with `within`."""
    row: dict[str, Any]
    """The row that fired."""
    fired_at: str
    """While it is waiting: when it will fire."""
    partition: int | None = None
    """The partition that the row came by: the sink that has it looks after the alert."""
    status: Status = "firing"
    resolved_at: str | None = None

    @property
    def period(self) -> Period:
        """Which rule fires for which row."""
        return self.rule, self.index, self.id

    def document(self) -> dict[str, Any]:
        """The fields of the document."""
        return {name: value for name, value in vars(self).items() if name != "alert_id"}


def alert_from(alert_id: str, document: Mapping[str, Any]) -> Alert:
    """The alert that a document holds."""
    return Alert(alert_id=alert_id, **document)


def changes(
    rules: Mapping[str, Sequence[Rule]],
    rows: Iterable[Row],
    firing: Mapping[Period, Alert],
    waiting: Mapping[Period, Alert],
    moved: Mapping[Period, Mapping[str, float]],
) -> list[Alert]:
    """The alerts that these rows change, each rule on its own.

    `firing` and `waiting` hold the alerts of these statuses before; there is at most one row of a key in `rows`.
    `moved` has what the rules with `within` look at: how much their field has changed.
    """
    return [
        changed
        for row in rows
        for rule in rules.get(row.key.table, ())
        if (changed := _change(rule, row, firing, waiting, moved)) is not None
    ]


def _change(
    rule: Rule,
    row: Row,
    firing: Mapping[Period, Alert],
    waiting: Mapping[Period, Alert],
    moved: Mapping[Period, Mapping[str, float]],
) -> Alert | None:
    period = (rule.name, row.key.table, row.key.id)
    alert, wait = firing.get(period), waiting.get(period)
    last = alert or wait
    if last is not None and row.version < last.version:
        # An index was deleted, and the topic is indexed again: a later row has been judged already.
        return None
    seen: Mapping[str, Any] | None = row.fields if rule.within is None else moved.get(period)
    if wait is not None and wait.fired_at <= _time(row):
        # Its rule was true until this row.
        alert = replace(wait, status="firing")
    holds = rule.matches if alert is None else rule.still_holds
    true = seen is not None and holds(seen) and not rule.is_silent_about(row.key.id)
    if alert is not None:
        if true:
            return alert if wait is not None else None
        return resolved(alert, row.version, _time(row))
    if true and wait is not None:
        assert row.fields is not None
        return replace(wait, version=row.version, value=row.fields[rule.field], row=row.fields)
    if wait is not None:
        return over(wait, row.version)
    return _begun(rule, row, seen[rule.field]) if true and seen is not None else None


def ended(
    firing: Mapping[Period, Alert], rule_of: Mapping[Period, Rule], moved: Mapping[Period, Mapping[str, float]], at: str
) -> list[Alert]:
    """The alerts that are over though no row came: as time went by, their field has changed by less."""
    return [
        resolved(firing[period], firing[period].version, at)
        for period, rule in rule_of.items()
        if not rule.still_holds(moved[period])
    ]


def due(waiting: Iterable[Alert], now: datetime, partitions: Container[int | None]) -> list[Alert]:
    """The alerts that fire, as their rules have stayed true for long enough and no row of these partitions is left."""
    ripe = [alert for alert in waiting if alert.fired_at <= as_text(now) and alert.partition in partitions]
    return [replace(alert, status="firing") for alert in ripe]


def over(waiting: Alert, version: int) -> Alert:
    """The waiting alert as it is when it shall not fire."""
    return replace(waiting, status="over", version=version)


def resolved(alert: Alert, version: int, at: str) -> Alert:
    """The alert as it is once its rule no longer holds."""
    return replace(alert, status="resolved", resolved_at=at, version=version)


def _begun(rule: Rule, row: Row, value: Any) -> Alert:
    assert row.fields is not None
    identity = "\0".join((rule.name, *row.key, str(row.version)))
    return Alert(
        alert_id=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
        version=row.version,
        rule=rule.name,
        alert_text=rule.alert_text,
        severity=rule.severity,
        index=row.key.table,
        id=row.key.id,
        field=rule.field,
        operator=rule.operator,
        threshold=rule.threshold,
        value=value,
        row=row.fields,
        fired_at=_time(row, rule.for_seconds),
        partition=row.record.partition,
        status="waiting" if rule.for_seconds else "firing",
    )


def _time(row: Row, later: float = 0) -> str:
    # The record's time, not the clock's: the same again when the record is processed again.
    return as_text(datetime.fromtimestamp(row.record.timestamp_ms / 1000 + later, UTC))


def as_text(time: datetime) -> str:
    """A time in UTC as alerts have it: ISO 8601 to the millisecond."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
