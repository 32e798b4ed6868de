"""The sink's loop: take records, index rows, raise alerts, put aside what does not fit, commit. In that order.

Offsets are committed only after Elasticsearch has acknowledged every row and alert, and Kafka every dead
letter, so a kill at any point repeats work and loses none. Repeated work changes nothing: rows and alerts
carry versions, and an alert's id follows from the row that fired it.
"""

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

from elasticsearch_sink_alert import alerts, metrics
from elasticsearch_sink_alert.alerts import Alert
from elasticsearch_sink_alert.bulk import BulkWriter, Fate
from elasticsearch_sink_alert.data_mapper import DataMapper
from elasticsearch_sink_alert.dead_letter_writer import DeadLetterWriter
from elasticsearch_sink_alert.membership import Membership, StoppedError
from elasticsearch_sink_alert.patience import Patience
from elasticsearch_sink_alert.rows import Record, Rejected, Row, latest_rows
from elasticsearch_sink_alert.store import AlertStore, row_documents

logger = logging.getLogger(__name__)


class Sink:
    """Moves records of the aggregated topic into Elasticsearch."""

    def __init__(
        self,
        mapper: DataMapper,
        membership: Membership,
        patience: Patience,
        writer: BulkWriter,
        alert_store: AlertStore,
        dead_letters: DeadLetterWriter,
    ) -> None:
        self._mapper = mapper
        self._membership = membership
        self._patience = patience
        self._writer = writer
        self._alert_store = alert_store
        self._dead_letters = dead_letters

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set."""
        while not stop.is_set():
            records = self._membership.take()
            try:
                if self._membership.has_new_partitions:
                    self._load_alerts()
                if records:
                    self._process(records)
            except StoppedError:
                return  # What was not committed is done again after the next start.
            metrics.LAG.set(self._membership.lag())

    def _process(self, records: Sequence[Record]) -> None:
        rows, rejected = latest_rows(records, self._membership.clock)
        current, refused = self._index(rows)
        rejected += refused
        self._save_alerts(alerts.changes(self._mapper.rules, current, self._alert_store.firing))
        if rejected:
            self._dead_letters.write(rejected)
            metrics.DEAD_LETTERS.inc(len(rejected))
            first = rejected[0]
            logger.warning(
                "%d records went to the dead letters; the first is %s partition %d offset %d: %s",
                len(rejected), first.record.topic, first.record.partition, first.record.offset, first.reason,
            )  # fmt: skip
        self._membership.commit(records)

    def _index(self, rows: Sequence[Row]) -> tuple[list[Row], list[Rejected]]:
        """The rows that are now the newest of their key, and those that Elasticsearch refuses."""
        current, refused = [], []
        for row, outcome in zip(rows, self._writer.write(row_documents(rows)), strict=True):
            match outcome.fate:
                case Fate.WRITTEN:
                    current.append(row)
                    metrics.ROWS.labels(row.key.table).inc()
                case Fate.SUPERSEDED:
                    metrics.SUPERSEDED.inc()
                case Fate.REFUSED:
                    refused.append(Rejected(row.record, outcome.reason))
        return current, refused

    def _save_alerts(self, changed: Sequence[Alert]) -> None:
        for alert, outcome in self._alert_store.save(changed):
            logger.error("alert %s over %s %s was not kept: %s", alert.rule, alert.index, alert.id, outcome.reason)
        for alert in changed:
            metrics.ALERTS.labels(alert.rule, alert.status).inc()
            logger.info("%s: %s (%s %s, value %s)", alert.status, alert.rule, alert.index, alert.id, alert.value)
        metrics.FIRING.set(len(self._alert_store.firing))

    def _load_alerts(self) -> None:
        """Take over the alerts that fire, and resolve those of rules that the data mapper no longer has."""
        self._membership.has_new_partitions = False
        self._patience.call("loading the alerts that fire", self._alert_store.load)
        known = {rule.name for rule in self._mapper.all_rules}
        now = alerts.as_text(datetime.now(UTC))
        orphans = [alert for alert in self._alert_store.firing.values() if alert.rule not in known]
        self._save_alerts([alerts.resolved(alert, alert.version, now) for alert in orphans])
