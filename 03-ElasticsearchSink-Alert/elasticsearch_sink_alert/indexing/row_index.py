"""The rows in Elasticsearch: one index per table, in a cluster that has to stay the same."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from elasticsearch_sink_alert import metrics
from elasticsearch_sink_alert.indexing.bulk import (
    WRITTEN,
    BulkRequest,
    BulkWriter,
    Outcome,
    Result,
    bulk_action,
    bulk_requests,
)
from elasticsearch_sink_alert.indexing.cluster import Cluster
from elasticsearch_sink_alert.indexing.retrier import Retrier
from elasticsearch_sink_alert.kafka.rows import Rejected, Row

_CHECK_INTERVAL: Final = 1.0
"""Seconds: no server restarts in less, and a write that fails meanwhile checks the cluster before it is repeated."""


class RowIndex:
    """Indexes rows, and notices when the cluster or an index was replaced."""

    def __init__(self, cluster: Cluster, writer: BulkWriter, retrier: Retrier) -> None:
        self._cluster = cluster
        self._writer = writer
        self._retrier = retrier
        self._checked_at = 0.0

    @property
    def identity(self) -> str:
        """Identifies the cluster with its indices; to be committed with the offsets."""
        return self._cluster.identity

    def prepare(self) -> None:
        """Create or update the indices. Raises `MappingError` and `NotElasticsearchError`."""
        self._retrier.call("preparing the indices", self._cluster.prepare)

    def recover(self) -> None:
        """Recreate missing indices while the service runs, waiting for as long as it takes."""
        self._retrier.call("preparing the indices", self._cluster.recover)

    def require_same_cluster(self) -> None:
        """Raise `ReindexRequiredError` if the cluster or an index was replaced; checks once a second at most."""
        if time.monotonic() >= self._checked_at + _CHECK_INTERVAL:
            self._retrier.call("checking that the cluster is still the same", self._cluster.require_same)
            self._checked_at = time.monotonic()

    def start(self, requests: Sequence[BulkRequest]) -> Callable[[], list[Outcome]]:
        """Send the requests of a batch; the returned function waits for the outcomes, in the order of the rows."""
        return self._writer.start(requests)


def row_requests(rows: Iterable[Row]) -> list[BulkRequest]:
    """Return the bulk requests for rows: index and id from the key, the record's own bytes as the source."""
    return bulk_requests([bulk_action(*row.key, row.version, row.record.value) for row in rows])


def split_by_outcome(rows: Sequence[Row], outcomes: Sequence[Outcome]) -> tuple[list[Row], list[Rejected]]:
    """Return the rows that are now the newest of their key, and the records that Elasticsearch refuses."""
    all_written = outcomes.count(WRITTEN) == len(rows)
    current, refused = (list(rows), []) if all_written else _split(rows, outcomes)
    for table, written in Counter([row.key.table for row in current]).items():
        metrics.ROWS.labels(table).inc(written)
    return current, refused


def _split(rows: Sequence[Row], outcomes: Sequence[Outcome]) -> tuple[list[Row], list[Rejected]]:
    current, refused = [], []
    for row, outcome in zip(rows, outcomes, strict=True):
        match outcome.result:
            case Result.WRITTEN:
                current.append(row)
            case Result.SUPERSEDED:
                metrics.SUPERSEDED.inc()
            case Result.REFUSED:
                refused.append(Rejected(row.record, outcome.reason))
    return current, refused
