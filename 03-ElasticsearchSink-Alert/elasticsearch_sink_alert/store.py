"""What the sink keeps in Elasticsearch: the rows, and the alerts that fire or wait."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson
from elasticsearch import Elasticsearch, helpers

from elasticsearch_sink_alert import alerts
from elasticsearch_sink_alert.alerts import Alert, Period
from elasticsearch_sink_alert.answers import require_no_errors
from elasticsearch_sink_alert.bulk import BulkWriter, Document, Fate, Outcome
from elasticsearch_sink_alert.patience import Patience
from elasticsearch_sink_alert.rows import Row
from elasticsearch_sink_alert.versions import appended_at

_IDS_AT_ONCE: Final = 1_000
_CLOCKS_DIFFER: Final = 300_000
"""Milliseconds that the broker's clock may be ahead of this machine's."""


def row_documents(rows: Iterable[Row]) -> list[Document]:
    """The documents of rows: index and id from the key, the record's own bytes as the source."""
    return [Document(row.key.table, row.key.id, row.version, row.record.value) for row in rows]


class AlertStore:
    """The alerts that are firing or waiting, as the indices have them."""

    def __init__(self, client: Elasticsearch, writer: BulkWriter, patience: Patience) -> None:
        self._client = client
        self._writer = writer
        self._patience = patience
        self._replayed_until = 0
        self.firing: dict[Period, Alert] = {}
        self.waiting: dict[Period, Alert] = {}

    def load(self) -> None:
        """Read them; raises what the client does."""
        self.firing = {a.period: a for a in self._read(alerts.INDEX, {"term": {"status": "firing"}})}
        # Records that are in the topic now may come once more, and their alerts may exist already, if any do.
        found = self._client.count(index=alerts.INDEX)
        has_alerts = found["count"] > 0 or found["_shards"]["failed"] > 0
        self._replayed_until = int(time.time() * 1000) + _CLOCKS_DIFFER if has_alerts else 0
        waiting = list(self._read(alerts.WAITING_INDEX, {"match_all": {}}))
        # A kill may have come between an alert's firing and its end as a waiting one.
        ids = [alert.alert_id for alert in waiting]
        fired = self._client.mget(index=alerts.INDEX, body={"ids": ids}, _source=False)["docs"] if ids else []
        require_no_errors(fired)
        there = {document["_id"] for document in fired if document.get("found")}
        self.waiting = {alert.period: alert for alert in waiting if alert.alert_id not in there}

    def _read(self, index: str, query: dict[str, Any]) -> Iterator[Alert]:
        self._client.indices.refresh(index=index)
        hits: Iterable[dict[str, Any]] = helpers.scan(self._client, index=index, query={"query": query}, size=1000)
        return (alerts.alert_from(hit["_id"], hit["_source"]) for hit in hits)

    def without_judged(self, changed: Sequence[Alert]) -> list[Alert]:
        """The changed alerts without those that begin with a row which was judged already.

        When the topic is indexed again because an index of rows was deleted, older rows come by once more, one or
        several at once, and would fire alerts that have long been resolved, or fired with another row of the time.
        """
        known = self.firing.keys() | self.waiting.keys()
        begun = {a.period for a in changed if a.period not in known and appended_at(a.version) < self._replayed_until}
        if not begun:
            return list(changed)
        latest = self._patience.call("looking for alerts of these rows", lambda: self._latest_versions(begun))
        return [a for a in changed if a.period not in begun or latest.get(a.period, -1) < a.version]

    def _latest_versions(self, periods: Iterable[Period]) -> dict[Period, int]:
        ids = sorted({id_ for _, _, id_ in periods})
        latest: dict[Period, int] = {}
        for start in range(0, len(ids), _IDS_AT_ONCE):
            for alert in self._read(alerts.INDEX, {"terms": {"id": ids[start : start + _IDS_AT_ONCE]}}):
                latest[alert.period] = max(alert.version, latest.get(alert.period, -1))
        return latest

    def save(self, changed: Sequence[Alert]) -> list[tuple[Alert, Outcome]]:
        """Write changed alerts, and only then count them as what they are. Gives what became of each."""
        outcomes = self._writer.write([_document(alert) for alert in changed])
        began = [alert for alert in changed if alert.period in self.waiting and alert.status in ("firing", "resolved")]
        self._writer.write([_document(alerts.over(alert, alert.version)) for alert in began])
        for alert, outcome in zip(changed, outcomes, strict=True):
            self.firing.pop(alert.period, None)
            self.waiting.pop(alert.period, None)
            if outcome.fate is Fate.SUPERSEDED:
                continue  # It has been resolved already.
            if alert.status == "firing":
                self.firing[alert.period] = alert
            elif alert.status == "waiting":
                self.waiting[alert.period] = alert
        return list(zip(changed, outcomes, strict=True))


def _document(alert: Alert) -> Document:
    if alert.status == "over":
        return Document(alerts.WAITING_INDEX, alert.alert_id, alert.version, None)
    index = alerts.WAITING_INDEX if alert.status == "waiting" else alerts.INDEX
    return Document(index, alert.alert_id, alert.version, orjson.dumps(alert.document()))
