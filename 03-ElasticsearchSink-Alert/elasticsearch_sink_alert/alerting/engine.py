"""The alert engine: evaluates the rules on rows and on time, saves the alerts that change, and notifies."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Final, Protocol

from elasticsearch_sink_alert import metrics
from elasticsearch_sink_alert.alerting import alert_lifecycle
from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert, AlertKey, Deltas
from elasticsearch_sink_alert.alerting.data_mapper import DataMapperError, ReloadingRules
from elasticsearch_sink_alert.alerting.rules import Rule
from elasticsearch_sink_alert.indexing.bulk import Outcome, Result
from elasticsearch_sink_alert.kafka.rows import Row
from runtime.health import Health

logger = logging.getLogger(__name__)

DATA_MAPPER: Final = "data mapper"
"""Name of this part of the service in /health."""


class Store(Protocol):
    """Stores alerts: see `AlertStore`."""

    firing: dict[AlertKey, Alert]
    waiting: dict[AlertKey, Alert]

    def load(self) -> None:
        """Read the alerts that are firing or waiting."""

    def without_replayed(self, changed: Sequence[Alert]) -> list[Alert]:
        """Return the changed alerts without new ones that come from a row which was evaluated before."""

    def save(self, changed: Sequence[Alert]) -> list[tuple[Alert, Outcome]]:
        """Write changed alerts, and return each with its outcome."""


class Windows(Protocol):
    """Computes changes within a window: see `ChangeWindows`."""

    def clear_cache(self) -> None:
        """Read all windows again when they are needed."""

    def add(self, rules: Mapping[str, Sequence[Rule]], rows: Iterable[Row]) -> Deltas:
        """Add the rows' values, and return the changes within the rules' windows."""

    def deltas_at(self, at: int, rules: Mapping[AlertKey, Rule]) -> Deltas:
        """Return the changes until `at` (milliseconds since the epoch) of rows that are idle."""


class AlertEngine:
    """Owns the rules, the change windows, the alerts and their notifications.

    `notify` sends notifications of changed alerts, and the summaries that are due; it does not wait.
    """

    def __init__(
        self,
        rules: ReloadingRules,
        windows: Windows,
        store: Store,
        notify: Callable[[Sequence[Alert]], None],
        health: Health,
    ) -> None:
        self._rules = rules
        self._windows = windows
        self._store = store
        self._notify = notify
        self._health = health
        self._count_alerts_of_all_rules()

    def load(self) -> None:
        """Load the alerts: at the start, and when partitions were assigned, as other sinks may have changed alerts."""
        self._windows.clear_cache()
        self._store.load()
        self._resolve_orphans()

    def evaluate(self, rows: Sequence[Row]) -> None:
        """Evaluate the rules on rows, at most one of each key; returns once the alerts that change are saved."""
        rules, store = self._rules.current.rules, self._store
        deltas = self._windows.add(rules, rows)
        self._save(store.without_replayed(alert_lifecycle.evaluate(rules, rows, store.firing, store.waiting, deltas)))

    def fire_due(self, now: datetime, partitions: AbstractSet[int]) -> None:
        """Fire the waiting alerts of these partitions whose rules have been true for long enough.

        To be called only if no record is left that could make a rule false before `now`.
        """
        waiting = self._store.waiting
        if waiting:
            self._save(alert_lifecycle.due(waiting.values(), now, partitions))

    def resolve_idle(self, now: datetime, partitions: AbstractSet[int]) -> None:
        """Resolve the alerts about a change whose rows, of these partitions, have not changed for a while.

        To be called only if no record is left.
        """
        firing = self._store.firing
        if not firing:
            return
        known = self._rules.current.by_name
        rules: dict[AlertKey, Rule] = {
            key: rule
            for key, alert in firing.items()
            if (rule := known.get(alert.rule)) is not None and rule.within and alert.partition in partitions
        }
        if rules:
            deltas = self._windows.deltas_at(int(now.timestamp() * 1000), rules)
            self._save(alert_lifecycle.idle_resolved(firing, rules, deltas, alert_lifecycle.format_time(now)))

    def resolve_past_windows(self, now: datetime, partitions: AbstractSet[int]) -> None:
        """Resolve the alerts of these partitions about windows of time that are over; cancel those that fire later.

        To be called only if no record is left, and before `fire_due`.
        """
        store = self._store
        alerts = [each for each in (*store.firing.values(), *store.waiting.values()) if each.partition in partitions]
        if alerts:
            self._save(alert_lifecycle.past_windows_resolved(alerts, now))

    def reload_rules(self) -> None:
        """Read the data mapper again if it has changed; if it cannot be used now, the rules before stay in force."""
        try:
            if not self._rules.reload():
                return
        except DataMapperError as error:
            self._health.failing(DATA_MAPPER, f"the rules before the last change stay in force: {error}")
            logger.error("the data mapper cannot be used now, the rules before the change stay in force:\n%s", error)
            return
        self._health.ok(DATA_MAPPER)
        self._count_alerts_of_all_rules()
        logger.info("reloaded the data mapper: %d rules", len(self._rules.current.all_rules))
        self._resolve_orphans()

    def send_summaries(self) -> None:
        """Send the summaries of notifications that are due."""
        self._notify(())

    def _count_alerts_of_all_rules(self) -> None:
        for name in self._rules.current.by_name:
            metrics.know_rule(name)

    def _resolve_orphans(self) -> None:
        """Resolve the alerts of rules that are no longer in the data mapper, or that silence their rows by now."""
        known = self._rules.current.by_name
        now = alert_lifecycle.format_time(datetime.now(UTC))

        def reason(alert: Alert) -> str:
            if alert.rule not in known:
                return alert_lifecycle.RULE_REMOVED
            return alert_lifecycle.SILENCED if known[alert.rule].is_silent_about(alert.id) else ""

        store = self._store
        orphans = [
            alert_lifecycle.resolved(alert, alert.version, now, because)
            for alert in store.firing.values()
            if (because := reason(alert))
        ]
        orphans += [alert_lifecycle.cancelled(alert, alert.version) for alert in filter(reason, store.waiting.values())]
        self._save(orphans)

    def _save(self, changed: Sequence[Alert]) -> None:
        saved = self._store.save(changed)
        for alert, outcome in saved:
            if outcome.result is Result.REFUSED:
                logger.error("alert %s of %s %s is not saved: %s", alert.rule, alert.index, alert.id, outcome.reason)
        # Superseded alerts were reported before.
        changed = [alert for alert, outcome in saved if outcome.result is not Result.SUPERSEDED]
        for alert in changed:
            if alert.status in ("waiting", "cancelled"):
                continue
            metrics.ALERTS.labels(alert.rule, alert.status).inc()
            logger.info("%s: %s (%s %s, %s)", alert.status, alert.rule, alert.index, alert.id, alert.observed)
        self._notify(changed)
        metrics.FIRING.set(len(self._store.firing))
