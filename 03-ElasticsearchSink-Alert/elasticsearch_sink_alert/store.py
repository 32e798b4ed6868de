"""What the sink keeps in Elasticsearch: the rows, and the alerts that fire."""

from collections.abc import Iterable, Mapping, Sequence
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
    """The alerts that are firing, as the index `alerts` has them."""

    def __init__(self, client: Elasticsearch, writer: BulkWriter) -> None:
        self._client = client
        self._writer = writer
        self.firing: Mapping[Period, Alert] = {}

    def load(self) -> None:
        """Read the firing alerts; raises what the client does."""
        self._client.indices.refresh(index=alerts.INDEX)
        query = {"query": {"term": {"status": "firing"}}}
        hits: Iterable[dict[str, Any]] = helpers.scan(self._client, index=alerts.INDEX, query=query, size=1000)
        found = [alerts.alert_from(hit["_id"], hit["_source"]) for hit in hits]
        self.firing = {alert.period: alert for alert in found}

    def save(self, changed: Sequence[Alert]) -> list[tuple[Alert, Outcome]]:
        """Write changed alerts, and only then count them as firing or not. Gives those that were refused."""
        documents = [
            Document(alerts.INDEX, alert.alert_id, alert.version, orjson.dumps(alert.document())) for alert in changed
        ]
        outcomes = self._writer.write(documents)
        firing = dict(self.firing)
        for alert in changed:
            if alert.status == "firing":
                firing[alert.period] = alert
            else:
                firing.pop(alert.period, None)
        self.firing = firing
        return [(a, o) for a, o in zip(changed, outcomes, strict=True) if o.fate is Fate.REFUSED]
