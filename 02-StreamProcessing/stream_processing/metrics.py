"""The stream job's metrics, which Prometheus and the live page read."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Gauge, Summary

LAKE_ROWS: Final = Gauge("stream_lake_interactions", "Rows of the interactions table")
_LAKE_FILES: Final = Gauge("stream_lake_files", "Files of the interactions table, updated every 20 seconds")
_LAKE_BYTES: Final = Gauge("stream_lake_bytes", "Size of the interactions table, updated every 20 seconds")
AGGREGATED: Final = Gauge(
    "stream_aggregated_interactions", "Interactions that the published aggregates cover; NaN before the first batch"
)
ROWS: Final = Gauge("stream_rows", "Rows of a table, without closed windows", ["table"])
DEAD_LETTERS: Final = Counter("stream_dead_letters", "Records sent to the dead letter topic since the start")
LAG: Final = Gauge("stream_lag_records", "Records of the source that are not processed yet", ["query"])
BATCHES: Final = Gauge("stream_batches", "Batches that the query has finished", ["query"])
BATCH_SECONDS: Final = Gauge("stream_batch_seconds", "Duration of the last batch", ["query"])
PHASE_SECONDS: Final = Summary("stream_phase_seconds", "Duration of a phase of the work on a batch", ["phase"])
BATCH_ROWS: Final = Gauge("stream_batch_rows", "Rows of the last batch", ["query"])

for unknown in (LAKE_ROWS, _LAKE_FILES, _LAKE_BYTES, AGGREGATED):
    unknown.set(float("nan"))


def set_lake_size(files: Sequence[int]) -> None:
    """Publish the number and the total size of the interactions table's files, from the bytes of each."""
    _LAKE_FILES.set(len(files))
    _LAKE_BYTES.set(sum(files))
