"""The life cycle of an alert: it fires when a rule becomes true of a row, and is resolved when it no longer is.

Pure functions. The result depends on the row, its version and the alerts that are firing or waiting, so that the same
rows after a crash lead to the same alerts with the same ids.
"""

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from contract.alerts import ALERTS, FIRING, RESOLVED
from contract.declared import TABLES
from contract.keys import RowKey
from elasticsearch_sink_alert.alerting.rules import Rule, Severity, Threshold, parse_time
from elasticsearch_sink_alert.kafka.rows import Row

INDEX: Final = ALERTS
WAITING_INDEX: Final = "alerts_waiting"
"""Alerts of rules with `for` that are true, but not for long enough to fire."""
CHANGE_WINDOWS_INDEX: Final = "alerts_histories"
"""Recent values of fields, for the rules with `within`."""

SILENCED: Final = "row silenced"
RULE_REMOVED: Final = "rule removed"
"""Reasons, for the log, why an alert is resolved whatever the value is."""

_WINDOW_GRACE: Final = timedelta(seconds=5)
"""The time after the end of a window in which its last events arrive."""

_WINDOWS: Final = {table.name: table.key.window for table in TABLES if table.key.window is not None}

Status = Literal["waiting", "cancelled", "firing", "resolved"]
"""`waiting` becomes `firing` after the rule's `for`, or `cancelled` if its rule stops being true before that. The
document of a cancelled alert is deleted, so that no document has this status."""


AlertKey = tuple[str, RowKey]
"""Identifies what can be firing only once at a time: a rule's name and a row."""

Deltas = Mapping[AlertKey, Mapping[str, float]]
"""By how much a field has changed within the window of a rule: by the field's name, like a row."""


@dataclass(frozen=True)
class Alert:
    """One firing period of one rule for one row: a document of the index `alerts`."""

    alert_id: str
    version: int
    """The version of the row that caused the last change."""
    rule: str
    alert_text: str
    severity: Severity
    index: str
    id: str
    field: str
    operator: str
    threshold: Threshold
    value: Any
    """The value that fired; for a rule with `within`, the change that fired."""
    row: dict[str, Any]
    """The row that fired."""
    fired_at: str
    """While the status is `waiting`: when it will fire."""
    partition: int | None = None
    """The partition of the row: the sink that it is assigned to handles the alert."""
    status: Status = FIRING
    resolved_at: str | None = None
    resolved_because: str = dataclass_field(default="", compare=False)
    """For the log, and not in the document: the value that resolved the alert, or what became of its rule or row."""

    @property
    def key(self) -> AlertKey:
        """The rule and the row."""
        return self.rule, RowKey(self.index, self.id)

    @property
    def observed(self) -> str:
        """The value that fired; of an alert that was just resolved, why, and the value that had fired."""
        return f"{self.resolved_because}, was {self.value}" if self.resolved_because else f"value {self.value}"

    def document(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {name: value for name, value in vars(self).items() if name not in ("alert_id", "resolved_because")}


def alert_from(alert_id: str, document: Mapping[str, Any]) -> Alert:
    """Return the alert of a document."""
    return Alert(alert_id=alert_id, **document)


def evaluate(
    rules: Mapping[str, Sequence[Rule]],
    rows: Iterable[Row],
    firing: Mapping[AlertKey, Alert],
    waiting: Mapping[AlertKey, Alert],
    deltas: Deltas,
) -> list[Alert]:
    """Return the alerts that these rows change, with each rule evaluated on its own.

    `firing` and `waiting` hold the alerts before; `rows` has at most one row of each key. Rules with `within` are
    evaluated on `deltas`.
    """
    changed = []
    for row in rows:
        for rule in rules.get(row.key.table, ()):
            key = (rule.name, row.key)
            alert, wait = firing.get(key), waiting.get(key)
            fields = row.fields if rule.within is None else deltas.get(key)
            if alert is not None or wait is not None:
                if (updated := _update(alert, wait, rule, row, fields)) is not None:
                    changed.append(updated)
            elif fields is not None and rule.matches(fields) and not rule.is_silent_about(row.key.id):
                changed.append(_new_alert(rule, row, fields[rule.field]))
    return changed


def _update(
    alert: Alert | None, wait: Alert | None, rule: Rule, row: Row, fields: Mapping[str, Any] | None
) -> Alert | None:
    """Return the alert, firing or waiting before this row, if the row changes it."""
    last = alert or wait
    if last is not None and row.version < last.version:
        # The topic is indexed again, and a later row has been evaluated before.
        return None
    if wait is not None and wait.fired_at <= _time(row):
        # The rule was true until this row, for long enough.
        alert = replace(wait, status=FIRING)
    holds = rule.matches if alert is None else rule.still_holds
    true = fields is not None and holds(fields) and not rule.is_silent_about(row.key.id)
    if alert is not None:
        if true:
            return alert if wait is not None else None
        return resolved(alert, row.version, _time(row), _why_resolved(rule, row, fields))
    if true and wait is not None:
        assert row.fields is not None
        return replace(wait, version=row.version, value=row.fields[rule.field], row=row.fields)
    return None if wait is None else cancelled(wait, row.version)


def idle_resolved(
    firing: Mapping[AlertKey, Alert], rules: Mapping[AlertKey, Rule], deltas: Deltas, at: str
) -> list[Alert]:
    """Return the alerts of idle rows, now resolved: as time passed, the change within the window became too small."""
    return [
        resolved(firing[key], firing[key].version, at, _now(deltas[key].get(rule.field)))
        for key, rule in rules.items()
        if not rule.still_holds(deltas[key])
    ]


def past_windows_resolved(alerts: Iterable[Alert], now: datetime) -> list[Alert]:
    """Return the alerts about windows of time that are over, now resolved: their rows do not change any more.

    Waiting ones that would fire after their window are cancelled.
    """
    past = [alert for alert in alerts if is_of_past_window(alert, now)]
    return [
        resolved(alert, alert.version, format_time(now), "window is over")
        if alert.status == FIRING
        else cancelled(alert, alert.version)
        for alert in past
        if alert.status == FIRING or is_of_past_window(alert, parse_time(alert.fired_at))
    ]


def is_of_past_window(alert: Alert, now: datetime) -> bool:
    """Whether the alert is about a window of time that is over."""
    window = _WINDOWS.get(alert.index)
    # The table may have had no window when the alert fired.
    start = None if window is None else alert.row.get(window.name)
    if window is None or start is None:
        return False
    # In this order: the last window of the year 9999 has no end.
    return parse_time(start) <= now - window.size - _WINDOW_GRACE


def due(waiting: Iterable[Alert], now: datetime, partitions: Container[int | None]) -> list[Alert]:
    """Return the alerts of these partitions, now firing, whose rules have been true for long enough.

    To be called only if no record of the partitions is left to process.
    """
    due_alerts = [alert for alert in waiting if alert.fired_at <= format_time(now) and alert.partition in partitions]
    return [replace(alert, status=FIRING) for alert in due_alerts]


def cancelled(waiting: Alert, version: int) -> Alert:
    """Return the waiting alert as one that will not fire."""
    return replace(waiting, status="cancelled", version=version)


def resolved(alert: Alert, version: int, at: str, because: str) -> Alert:
    """Return the alert as resolved; `because` is for the log."""
    return replace(alert, status=RESOLVED, resolved_at=at, version=version, resolved_because=because)


def _why_resolved(rule: Rule, row: Row, fields: Mapping[str, Any] | None) -> str:
    if row.fields is None:
        return "row deleted"
    if rule.is_silent_about(row.key.id):
        return SILENCED
    return _now(None if fields is None else fields.get(rule.field))


def _now(value: Any) -> str:
    return "now without a value" if value is None else f"now {value}"


def _new_alert(rule: Rule, row: Row, value: Any) -> Alert:
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
        status="waiting" if rule.for_seconds else FIRING,
    )


def _time(row: Row, later: float = 0) -> str:
    # The record's time, not the machine's: the same when the record is processed again.
    return format_time(datetime.fromtimestamp(row.record.timestamp_ms / 1000 + later, UTC))


def format_time(time: datetime) -> str:
    """Return a UTC time as in the documents of alerts: ISO 8601 to the millisecond."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
