"""The sink's metrics, as Prometheus and the live page read them."""

from typing import Final

from prometheus_client import Counter, Gauge

RECORDS: Final = Counter("sink_records", "Records processed: indexed, superseded or dead-lettered")
ROWS: Final = Counter("sink_rows", "Rows that Elasticsearch has acknowledged", ["index"])
SUPERSEDED: Final = Counter("sink_superseded_rows", "Rows of which a newer version was indexed already")
DEAD_LETTERS: Final = Counter("sink_dead_letters", "Records written to the dead letter topic")
ALERTS: Final = Counter("sink_alerts", "Alerts that fired or were resolved", ["rule", "status"])
FIRING: Final = Gauge("sink_alerts_firing", "Alerts that are firing")
LAG: Final = Gauge("sink_lag_records", "Records that are not indexed yet")
NOTIFICATIONS: Final = Counter("sink_notifications", "Notifications of alerts, by outcome", ["outcome"])
