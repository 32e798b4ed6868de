"""What the sink keeps in Elasticsearch: the rows, and the alerts that fire or wait."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson
from elasticsearch import Elasticsearch, helpers

from elasticsearch_sink_alert import alerts
from elasticsearch_sink_alert.alerts import Alert, Period
from elasticsearch_sink_alert.bulk import BulkWriter, Document, Fate, Outcome
from elasticsearch_sink_alert.rows import Row


def row_documents(rows: Iterable[Row]) -> list[Document]:
    """The documents of rows: index and id from the key, the record's own bytes as the source."""
    return [Document(row.key.table, row.key.id, row.version, row.record.value) for row in rows]


class AlertStore:
    """The alerts that are firing or waiting, as the indices have them."""

    def __init__(self, client: Elasticsearch, writer: BulkWriter) -> None:
        self._client = client
        self._writer = writer
        self.firing: dict[Period, Alert] = {}
        self.waiting: dict[Period, Alert] = {}

    def load(self) -> None:
        """Read them; raises what the client does."""
        self.firing = {a.period: a for a in self._read(alerts.INDEX, {"term": {"status": "firing"}})}
        waiting = list(self._read(alerts.WAITING_INDEX, {"match_all": {}}))
        # A kill may have come between an alert's firing and its end as a waiting one.
        ids = [alert.alert_id for alert in waiting]
        fired = self._client.mget(index=alerts.INDEX, body={"ids": ids}, _source=False)["docs"] if ids else []
        there = {document["_id"] for document in fired if document.get("found")}
        self.waiting = {alert.period: alert for alert in waiting if alert.alert_id not in there}

    def _read(self, index: str, query: dict[str, Any]) -> Iterator[Alert]:
        self._client.indices.refresh(index=index)
        hits: Iterable[dict[str, Any]] = helpers.scan(self._client, index=index, query={"query": query}, size=1000)
        return (alerts.alert_from(hit["_id"], hit["_source"]) for hit in hits)

    def save(self, changed: Sequence[Alert]) -> list[tuple[Alert, Outcome]]:
        """Write changed alerts, and only then count them as what they are. Gives those that were refused."""
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
        return [(a, o) for a, o in zip(changed, outcomes, strict=True) if o.fate is Fate.REFUSED]


def _document(alert: Alert) -> Document:
    if alert.status == "over":
        return Document(alerts.WAITING_INDEX, alert.alert_id, alert.version, None)
    index = alerts.WAITING_INDEX if alert.status == "waiting" else alerts.INDEX
    return Document(index, alert.alert_id, alert.version, orjson.dumps(alert.document()))
