"""The stream job's metrics, which Prometheus and the live page read: docs/metrics.md."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from contract import metric_names as names
from contract.dead_letters import REASON_KINDS
from runtime.metrics import WORK_SECONDS, Measurement

INTERACTIONS: Final = Counter("stream_interactions_total", "Interactions appended to the lake")
LAKE_ROWS: Final = Measurement(names.LAKE_INTERACTIONS, "Rows of the interactions table")
_LAKE_FILES: Final = Measurement(names.LAKE_FILES, "Files of the interactions table, updated every 20 seconds")
_LAKE_BYTES: Final = Measurement(
    "stream_lake_bytes", "Size of the interactions table's files, updated every 20 seconds"
)
AGGREGATED: Final = Measurement(
    names.AGGREGATED_INTERACTIONS, "Interactions that the published aggregates cover; absent before the first batch"
)
STATE_ROWS: Final = Gauge(names.STATE_ROWS, "Rows of a table in the state, without closed windows", ["table"])
STATE_BYTES: Final = Measurement("stream_state_bytes", "Estimated memory of the counts per key")
PUBLISHED_ROWS: Final = Counter("stream_published_rows_total", "Changed rows of keys that were published")
DEAD_LETTERS: Final = Counter("stream_dead_letters_total", "Records sent to the dead letter topic", ["reason"])
LAG: Final = Gauge(names.STREAM_LAG_RECORDS, "Records of the source that are not processed yet", ["query"])
LAG_SECONDS: Final = Measurement(
    "stream_lag_seconds", "Age of the oldest record in Kafka that ingest has not finished, updated every 5 seconds"
)
FINISHED_BATCH: Final = Gauge(names.FINISHED_BATCH, "Id of the last batch that a query has finished", ["query"])
LAST_BATCH_ROWS: Final = Gauge(names.LAST_BATCH_ROWS, "Rows of the last batch", ["query"])
LAST_BATCH_SECONDS: Final = Gauge(names.LAST_BATCH_SECONDS, "Duration of the last batch, with its waiting", ["query"])
BATCH_SECONDS: Final = Histogram(
    names.BATCH_SECONDS, "Duration of the work on a batch, without waiting", ["query"], buckets=WORK_SECONDS
)
PHASE_SECONDS: Final = Histogram(
    names.PHASE_SECONDS, "Duration of a phase of the work on a batch", ["phase"], buckets=WORK_SECONDS
)
MAINTENANCE_SECONDS: Final = Histogram(
    "stream_maintenance_seconds", "Duration of a round of maintenance of the lake", buckets=WORK_SECONDS
)
MAINTENANCE_FAILURES: Final = Counter("stream_maintenance_failures_total", "Rounds of maintenance that have failed")

for _kind in REASON_KINDS:
    DEAD_LETTERS.labels(_kind)


def set_lake_size(files: Sequence[int]) -> None:
    """Publish the number and the total size of the interactions table's files, from the bytes of each."""
    _LAKE_FILES.set(len(files))
    _LAKE_BYTES.set(sum(files))
