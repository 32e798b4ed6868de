"""The names of the metrics that one part of the project exposes and another one reads.

[docs/metrics.md](../docs/metrics.md) has all metrics.
"""

from typing import Final

INGEST: Final = "ingest"
"""The value of the label `query` of the stream job's first query."""

LAKE_INTERACTIONS: Final = "stream_lake_interactions"
LAKE_FILES: Final = "stream_lake_files"
AGGREGATED_INTERACTIONS: Final = "stream_aggregated_interactions"
STATE_ROWS: Final = "stream_state_rows"
"""By table."""
FINISHED_BATCH: Final = "stream_finished_batch_id"
LAST_BATCH_ROWS: Final = "stream_last_batch_rows"
LAST_BATCH_SECONDS: Final = "stream_last_batch_seconds"
BATCH_SECONDS: Final = "stream_batch_seconds"
"""By query: a histogram, whose samples end with _bucket, _sum and _count."""
PHASE_SECONDS: Final = "stream_phase_seconds"
"""By phase: a histogram."""
STREAM_LAG_RECORDS: Final = "stream_lag_records"
"""By query."""
SINK_RECORDS: Final = "sink_records_total"
SINK_LAG_RECORDS: Final = "sink_lag_records"
PROCESS_MEMORY_BYTES: Final = "process_resident_memory_bytes"
PROCESS_START_SECONDS: Final = "process_start_time_seconds"
"""Both of prometheus_client itself."""
