"""The sink's metrics, where Prometheus and the live view read them."""

from typing import Final

from prometheus_client import Counter, Gauge

RECORDS: Final = Counter("sink_records", "Records that are done: indexed, superseded or put aside")
ROWS: Final = Counter("sink_rows", "Rows that Elasticsearch has acknowledged", ["index"])
SUPERSEDED: Final = Counter("sink_superseded_rows", "Rows for which a newer version was indexed already")
DEAD_LETTERS: Final = Counter("sink_dead_letters", "Records sent to the dead letter topic")
ALERTS: Final = Counter("sink_alerts", "Alerts that fired or were resolved", ["rule", "status"])
FIRING: Final = Gauge("sink_alerts_firing", "Alerts that are firing")
LAG: Final = Gauge("sink_lag_records", "Records that are not indexed yet")
NOTIFICATIONS: Final = Counter("sink_notifications", "Notifications of alerts, by what became of them", ["outcome"])
