"""Stores alerts in Elasticsearch: those that fire, wait, or are resolved."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson
from elasticsearch import Elasticsearch, helpers

from contract.alerts import FIRING, RESOLVED
from elasticsearch_sink_alert.alerting import alert_lifecycle
from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert, AlertKey
from elasticsearch_sink_alert.alerting.rules import parse_time
from elasticsearch_sink_alert.indexing.bulk import BulkWriter, Outcome, Result, bulk_action
from elasticsearch_sink_alert.indexing.errors import require_no_errors
from elasticsearch_sink_alert.indexing.retrier import Retrier
from elasticsearch_sink_alert.kafka.versions import appended_at

_IDS_PER_SEARCH: Final = 1_000
_MAX_CLOCK_DIFFERENCE: Final = 300_000
"""Milliseconds by which the broker's clock may be ahead of this machine's."""


class AlertStore:
    """The alerts in Elasticsearch, and in memory those that are firing or waiting."""

    def __init__(self, client: Elasticsearch, writer: BulkWriter, retrier: Retrier) -> None:
        self._client = client
        self._writer = writer
        self._retrier = retrier
        self._replayed_until = 0
        self.firing: dict[AlertKey, Alert] = {}
        self.waiting: dict[AlertKey, Alert] = {}

    def load(self) -> None:
        """Read the alerts that are firing or waiting, waiting for as long as it takes."""
        self._retrier.call("loading the alerts", self._load)

    def _load(self) -> None:
        self.firing = {a.key: a for a in self._read(alert_lifecycle.INDEX, {"term": {"status": FIRING}})}
        # Records that are in the topic by now may be read again, and then their alerts may exist already, if any do.
        found = self._client.count(index=alert_lifecycle.INDEX)
        has_alerts = found["count"] > 0 or found["_shards"]["failed"] > 0
        self._replayed_until = int(time.time() * 1000) + _MAX_CLOCK_DIFFERENCE if has_alerts else 0
        waiting = list(self._read(alert_lifecycle.WAITING_INDEX, {"match_all": {}}))
        # A kill may have come after the firing alert was written, and before the waiting one was deleted.
        ids = [alert.alert_id for alert in waiting]
        fired = self._client.mget(index=alert_lifecycle.INDEX, body={"ids": ids}, _source=False)["docs"] if ids else []
        require_no_errors(fired)
        existing = {document["_id"] for document in fired if document.get("found")}
        self.waiting = {alert.key: alert for alert in waiting if alert.alert_id not in existing}

    def _read(self, index: str, query: dict[str, Any]) -> Iterator[Alert]:
        self._client.indices.refresh(index=index)
        hits: Iterable[dict[str, Any]] = helpers.scan(self._client, index=index, query={"query": query}, size=1000)
        return (alert_lifecycle.alert_from(hit["_id"], hit["_source"]) for hit in hits)

    def without_replayed(self, changed: Sequence[Alert]) -> list[Alert]:
        """Return the changed alerts without new ones that come from a row which was evaluated before.

        When the topic is indexed again because an index of rows was deleted, older rows are read again, one by one or
        several in a batch, and would fire alerts that were resolved long ago, or fired with another row back then.

        Of a window of time that is over, a row fires once: later rows are corrections by late events.
        """
        known = self.firing.keys() | self.waiting.keys()
        new = [alert for alert in changed if alert.key not in known]
        past = {a.key for a in new if alert_lifecycle.is_of_past_window(a, parse_time(a.fired_at))}
        replayed = {a.key for a in new if appended_at(a.version) < self._replayed_until}
        doubtful = past | replayed
        if not doubtful:
            return list(changed)
        latest = self._retrier.call("reading earlier alerts of these rows", lambda: self._latest_versions(doubtful))
        return [
            a
            for a in changed
            if a.key not in doubtful or a.key not in latest or (a.key not in past and latest[a.key] < a.version)
        ]

    def _latest_versions(self, keys: Iterable[AlertKey]) -> dict[AlertKey, int]:
        ids = sorted({row_key.id for _, row_key in keys})
        latest: dict[AlertKey, int] = {}
        for start in range(0, len(ids), _IDS_PER_SEARCH):
            for alert in self._read(alert_lifecycle.INDEX, {"terms": {"id": ids[start : start + _IDS_PER_SEARCH]}}):
                latest[alert.key] = max(alert.version, latest.get(alert.key, -1))
        return latest

    def save(self, changed: Sequence[Alert]) -> list[tuple[Alert, Outcome]]:
        """Write changed alerts, and only then update those in memory. Returns each with its outcome."""
        outcomes = self._writer.write([_action(alert) for alert in changed])
        fired = [alert for alert in changed if alert.key in self.waiting and alert.status in (FIRING, RESOLVED)]
        self._writer.write([_action(alert_lifecycle.cancelled(alert, alert.version)) for alert in fired])
        for alert, outcome in zip(changed, outcomes, strict=True):
            self.firing.pop(alert.key, None)
            self.waiting.pop(alert.key, None)
            if outcome.result is Result.SUPERSEDED:
                continue  # It was resolved before.
            if alert.status == FIRING:
                self.firing[alert.key] = alert
            elif alert.status == "waiting":
                self.waiting[alert.key] = alert
        return list(zip(changed, outcomes, strict=True))


def _action(alert: Alert) -> bytes:
    if alert.status == "cancelled":
        return bulk_action(alert_lifecycle.WAITING_INDEX, alert.alert_id, alert.version, None)
    index = alert_lifecycle.WAITING_INDEX if alert.status == "waiting" else alert_lifecycle.INDEX
    return bulk_action(index, alert.alert_id, alert.version, orjson.dumps(alert.document()))
