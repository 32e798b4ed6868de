"""The sink's metrics, which Prometheus and the live page read: docs/metrics.md."""

from typing import Final

from prometheus_client import Counter, Histogram

from contract import metric_names as names
from contract.alerts import FIRING as FIRING_STATUS
from contract.alerts import RESOLVED as RESOLVED_STATUS
from contract.dead_letters import REASON_KINDS
from runtime.metrics import LATENCY_SECONDS, WORK_SECONDS, CountedHistogram, Measurement

RECORDS: Final = Counter(names.SINK_RECORDS, "Records processed: indexed, superseded or dead-lettered")
ROWS: Final = Counter("sink_rows_total", "Rows that Elasticsearch has acknowledged", ["index"])
SUPERSEDED: Final = Counter("sink_superseded_rows_total", "Rows of which a newer version was indexed already")
DEAD_LETTERS: Final = Counter("sink_dead_letters_total", "Records written to the dead letter topic", ["reason"])
REFUSED_REPLAYS: Final = Counter("sink_refused_replays_total", "Replayed dead letters that were refused again")
BATCH_SECONDS: Final = Histogram(
    "sink_batch_seconds", "Duration from the poll of a batch to its commit", buckets=WORK_SECONDS
)
PHASE_SECONDS: Final = Histogram(
    "sink_phase_seconds", "Duration of a phase of the work on a batch", ["phase"], buckets=WORK_SECONDS
)
BULK_SECONDS: Final = Histogram(
    "sink_bulk_seconds", "Duration of a bulk request that Elasticsearch has answered", buckets=WORK_SECONDS
)
RETRIES: Final = Counter("sink_elasticsearch_retries_total", "Failed attempts at Elasticsearch that are repeated")
COMMIT_FAILURES: Final = Counter("sink_commit_failures_total", "Commits of offsets that have failed and are repeated")
ALERTS: Final = Counter("sink_alerts_total", "Alerts that fired or were resolved", ["rule", "status"])
FIRING: Final = Measurement("sink_alerts_firing", "Alerts that are firing; absent until they are read")
LAG: Final = Measurement(names.SINK_LAG_RECORDS, "Records of the assigned partitions that are not polled yet")
LAG_SECONDS: Final = Measurement("sink_lag_seconds", "Age of the oldest record that was polled and is not committed")
INDEXING_LATENCY: Final = CountedHistogram(
    "sink_indexing_latency_seconds", "Age of a row, since its append to Kafka, when it was indexed", LATENCY_SECONDS
)
END_TO_END_LATENCY: Final = CountedHistogram(
    "sink_end_to_end_latency_seconds", "Age of a row's latest event when the row was indexed", LATENCY_SECONDS
)
NOTIFICATIONS: Final = Counter("sink_notifications_total", "Notifications of alerts, by outcome", ["outcome"])
NOTIFICATION_RETRIES: Final = Counter(
    "sink_notification_retries_total", "Failed attempts to send a notification that are repeated"
)

for _kind in REASON_KINDS:
    DEAD_LETTERS.labels(_kind)
for _outcome in ("sent", "failed", "dropped"):
    NOTIFICATIONS.labels(_outcome)


def know_rule(rule: str) -> None:
    """Count the alerts of a rule from 0, so that the first one is an increase."""
    for status in (FIRING_STATUS, RESOLVED_STATUS):
        ALERTS.labels(rule, status)
