"""The life of an alert: it fires when a rule comes true of a row, and is resolved when it no longer is.

Pure code. What decides is the row, its version and the alerts that are firing, so that the same rows after
a crash lead to the same alerts with the same ids.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from elasticsearch_sink_alert.rows import Row
from elasticsearch_sink_alert.rules import Rule, Severity, Threshold

INDEX: Final = "alerts"

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
    """The value that fired."""
    row: dict[str, Any]
    """The row that fired."""
    fired_at: str
    status: Literal["firing", "resolved"] = "firing"
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


def changes(rules: Mapping[str, Sequence[Rule]], rows: Iterable[Row], firing: Mapping[Period, Alert]) -> list[Alert]:
    """The alerts that these rows let fire or resolve, each rule on its own.

    `firing` holds the alerts that are firing before; there is at most one row of a key in `rows`.
    """
    changed = []
    for row in rows:
        for rule in rules.get(row.key.table, ()):
            alert = firing.get((rule.name, row.key.table, row.key.id))
            holds = rule.matches if alert is None else rule.still_holds
            true = row.fields is not None and holds(row.fields) and not rule.is_silent_about(row.key.id)
            if true and alert is None:
                changed.append(_fired(rule, row))
            elif alert is not None and not true:
                changed.append(resolved(alert, row.version, _time(row)))
    return changed


def resolved(alert: Alert, version: int, at: str) -> Alert:
    """The alert as it is once its rule no longer holds."""
    return replace(alert, status="resolved", resolved_at=at, version=version)


def _fired(rule: Rule, row: Row) -> Alert:
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
        value=row.fields[rule.field],
        row=row.fields,
        fired_at=_time(row),
    )


def _time(row: Row) -> str:
    # The record's time, not the clock's: the same again when the record is processed again.
    return as_text(datetime.fromtimestamp(row.record.timestamp_ms / 1000, UTC))


def as_text(time: datetime) -> str:
    """A time in UTC as alerts have it: ISO 8601 to the millisecond."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
