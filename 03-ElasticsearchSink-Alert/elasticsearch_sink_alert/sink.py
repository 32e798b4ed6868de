"""The sink's loop: take records, index rows, raise alerts, put aside what does not fit, commit. In that order.

Offsets are committed only after Elasticsearch has acknowledged every row and alert, and Kafka every dead
letter, so a kill at any point repeats work and loses none. Repeated work changes nothing: rows and alerts
carry versions, and an alert's id follows from the row that fired it.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import TopicPartition

from elasticsearch_sink_alert import metrics
from elasticsearch_sink_alert.alerting import alerts
from elasticsearch_sink_alert.alerting.alerts import Alert, Period
from elasticsearch_sink_alert.alerting.change_windows import Histories
from elasticsearch_sink_alert.alerting.data_mapper import DataMapperError, ReloadingRules
from elasticsearch_sink_alert.alerting.notifications import Notifications
from elasticsearch_sink_alert.alerting.rules import Rule
from elasticsearch_sink_alert.alerting.store import AlertStore, row_documents
from elasticsearch_sink_alert.indexing.answers import EmptiedError
from elasticsearch_sink_alert.indexing.bulk import BulkWriter, Fate, Outcome, Request, requests
from elasticsearch_sink_alert.indexing.cluster import Cluster
from elasticsearch_sink_alert.indexing.retrier import Patience
from elasticsearch_sink_alert.kafka.dead_letter_writer import DeadLetterWriter
from elasticsearch_sink_alert.kafka.group_consumer import Membership, StoppedError
from elasticsearch_sink_alert.kafka.rows import Record, Rejected, Row, latest_rows
from runtime.health import Health

logger = logging.getLogger(__name__)

DATA_MAPPER: Final = "data mapper"
_AT_ONCE: Final = 2
"""Batches that are under way while another is read."""
_ASK_AGAIN: Final = 1.0
"""Seconds."""


@dataclass
class _Batch:
    """Records that were taken together, and what is to be committed once they are done."""

    rows: list[Row]
    requests: list[Request]
    rejected: list[Rejected]
    size: int
    following: list[TopicPartition]
    outcomes: Callable[[], list[Outcome]] = list
    """Waits for what becomes of the rows."""


class Sink:
    """Moves records of the aggregated topic into Elasticsearch."""

    def __init__(
        self,
        mapper: ReloadingRules,
        health: Health,
        membership: Membership,
        patience: Patience,
        cluster: Cluster,
        writer: BulkWriter,
        alert_store: AlertStore,
        histories: Histories,
        dead_letters: DeadLetterWriter,
        notifications: Notifications,
    ) -> None:
        self._mapper = mapper
        self._health = health
        self._membership = membership
        self._patience = patience
        self._cluster = cluster
        self._writer = writer
        self._alert_store = alert_store
        self._histories = histories
        self._dead_letters = dead_letters
        self._notifications = notifications
        self._asked_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set. While Elasticsearch is at some batches, the next one is read.

        A row may be written before an older one of its key, which is then superseded and passed over, just as it is
        where both are of one batch.
        """
        try:
            while not stop.is_set():
                try:
                    self._work_until(stop)
                except EmptiedError as error:
                    logger.warning("%s: what is missing is recreated, and the whole topic is indexed again", error)
                    self._patience.call("preparing the indices", self._cluster.recover)
                    self._membership.begin_again(self._cluster.identity)
        except StoppedError:
            pass  # What was not committed is done again after the next start.

    def _work_until(self, stop: threading.Event) -> None:
        under_way: deque[_Batch] = deque()
        while not stop.is_set():
            records = self._membership.take(at_once=bool(under_way))
            batch = self._read(records) if records else None
            self._require_same_cluster()
            if self._membership.has_new_partitions:
                self._finish_all_but(0, under_way)
                self._load_alerts()
            if batch is not None:
                batch.outcomes = self._writer.begin(batch.requests)
                under_way.append(batch)
            self._finish_all_but(_AT_ONCE if batch is not None else 0, under_way)
            self._reload_rules()
            lag = self._membership.lag()
            metrics.LAG.set(lag)
            if lag == 0 and not under_way:
                self._let_fire_what_is_due()
                self._resolve_what_rests()
            self._notifications.notify(())
        self._finish_all_but(0, under_way)

    def _require_same_cluster(self) -> None:
        # No server starts within a second; and a write that fails meanwhile is not repeated without asking.
        if time.monotonic() >= self._asked_at + _ASK_AGAIN:
            self._patience.call("asking whether this is still the same cluster", self._cluster.require_same)
            self._asked_at = time.monotonic()

    def _read(self, records: Sequence[Record]) -> _Batch:
        rows, rejected = latest_rows(records, self._membership.clock)
        return _Batch(rows, requests(row_documents(rows)), rejected, len(records), self._membership.after(records))

    def _finish_all_but(self, most: int, under_way: deque[_Batch]) -> None:
        """Finish batches in their order, until at most so many are under way."""
        while len(under_way) > most:
            self._finish(under_way.popleft())

    def _finish(self, batch: _Batch) -> None:
        """Wait for what becomes of the rows, and do all that follows from it."""
        current, refused = _sorted(batch.rows, batch.outcomes())
        rejected = []
        for each in batch.rejected + refused:
            if each.record.replay_of is None:
                rejected.append(each)
            else:
                logger.warning(
                    "dead letter %s was sent again, and refused again: %s", each.record.replay_of, each.reason
                )
        rules, store = self._mapper.current.rules, self._alert_store
        moved = self._histories.add(rules, current)
        self._save_alerts(store.without_judged(alerts.changes(rules, current, store.firing, store.waiting, moved)))
        if rejected:
            self._dead_letters.write(rejected)
            metrics.DEAD_LETTERS.inc(len(rejected))
            first = rejected[0]
            logger.warning(
                "%d records went to the dead letters; the first is %s partition %d offset %d: %s",
                len(rejected), first.record.topic, first.record.partition, first.record.offset, first.reason,
            )  # fmt: skip
        self._membership.commit(batch.following)
        metrics.RECORDS.inc(batch.size)

    def _save_alerts(self, changed: Sequence[Alert]) -> None:
        saved = self._alert_store.save(changed)
        for alert, outcome in saved:
            if outcome.fate is Fate.REFUSED:
                logger.error("alert %s over %s %s was not kept: %s", alert.rule, alert.index, alert.id, outcome.reason)
        # What is superseded has been said already.
        changed = [alert for alert, outcome in saved if outcome.fate is not Fate.SUPERSEDED]
        for alert in changed:
            if alert.status in ("waiting", "over"):
                continue
            metrics.ALERTS.labels(alert.rule, alert.status).inc()
            logger.info("%s: %s (%s %s, value %s)", alert.status, alert.rule, alert.index, alert.id, alert.value)
        self._notifications.notify(changed)
        metrics.FIRING.set(len(self._alert_store.firing))

    def _let_fire_what_is_due(self) -> None:
        """To be called where no record is left that could say that a rule stopped being true meanwhile."""
        waiting = self._alert_store.waiting
        if waiting:
            self._save_alerts(alerts.due(waiting.values(), datetime.now(UTC), self._membership.partitions))

    def _resolve_what_rests(self) -> None:
        """To be called where no record is left: rows that have not changed for a while need none to resolve alerts."""
        firing = self._alert_store.firing
        if not firing:
            return
        mine, rules = self._membership.partitions, self._mapper.current.by_name
        rule_of: dict[Period, Rule] = {
            period: rule
            for period, alert in firing.items()
            if (rule := rules.get(alert.rule)) is not None and rule.within and alert.partition in mine
        }
        if rule_of:
            now = datetime.now(UTC)
            moved = self._histories.changes_by(int(now.timestamp() * 1000), rule_of)
            self._save_alerts(alerts.ended(firing, rule_of, moved, alerts.as_text(now)))

    def _load_alerts(self) -> None:
        """Take over the alerts that fire or wait."""
        self._membership.has_new_partitions = False
        self._histories.forget()
        self._patience.call("loading the alerts", self._alert_store.load)
        self._resolve_orphans()

    def _reload_rules(self) -> None:
        try:
            if not self._mapper.reload():
                return
        except DataMapperError as error:
            self._health.failing(DATA_MAPPER, f"the rules before the last change go on: {error}")
            logger.error("the data mapper is wrong now, the rules before the change go on:\n%s", error)
            return
        self._health.ok(DATA_MAPPER)
        logger.info("the data mapper has changed: %d rules now", len(self._mapper.current.all_rules))
        self._resolve_orphans()

    def _resolve_orphans(self) -> None:
        """Resolve the alerts of rules that are gone from the data mapper, or are silent about their rows by now."""
        known = self._mapper.current.by_name
        now = alerts.as_text(datetime.now(UTC))

        def is_orphan(alert: Alert) -> bool:
            return alert.rule not in known or known[alert.rule].is_silent_about(alert.id)

        store = self._alert_store
        orphans = [alerts.resolved(alert, alert.version, now) for alert in filter(is_orphan, store.firing.values())]
        orphans += [alerts.over(alert, alert.version) for alert in filter(is_orphan, store.waiting.values())]
        self._save_alerts(orphans)


def _sorted(rows: Sequence[Row], outcomes: Sequence[Outcome]) -> tuple[list[Row], list[Rejected]]:
    """The rows that are now the newest of their key, and those that Elasticsearch refuses."""
    current, refused = [], []
    for row, outcome in zip(rows, outcomes, strict=True):
        match outcome.fate:
            case Fate.WRITTEN:
                current.append(row)
            case Fate.SUPERSEDED:
                metrics.SUPERSEDED.inc()
            case Fate.REFUSED:
                refused.append(Rejected(row.record, outcome.reason))
    for table, written in Counter(row.key.table for row in current).items():
        metrics.ROWS.labels(table).inc(written)
    return current, refused
