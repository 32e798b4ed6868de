"""Ends the traces of sampled interactions: the spans of their rows, and of the bulk requests that index these."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from elasticsearch_sink_alert.indexing.bulk import BulkRequest, Outcome, Result
from elasticsearch_sink_alert.kafka.rows import Row
from runtime.tracing import Attributes, Traces, context_in, context_of

_SERVICE: Final = "elasticsearch-sink-alert"
_MOST: Final = 100
"""Rows of a batch that are traced: spans cost time, and other writers may sample more."""


class RowTraces:
    """The sink's spans, which are recorded when a batch is finished: nothing follows that needs their context."""

    def __init__(self, endpoint: str, topic: str) -> None:
        self._traces = Traces(_SERVICE, endpoint)
        self._topic = topic

    def finished(
        self, rows: Sequence[Row], requests: Sequence[BulkRequest], outcomes: Sequence[Outcome], seconds: float
    ) -> None:
        """Record the rows of a batch that was polled this many seconds ago, and is committed now."""
        start_ns = time.time_ns() - int(seconds * 1e9)
        for row, request, outcome, parent in islice(_sampled(rows, requests, outcomes), _MOST):
            attributes: Attributes = {
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": self._topic,
                "messaging.destination.partition.id": str(row.record.partition),
                "messaging.kafka.offset": row.record.offset,
                "messaging.kafka.message.key": (row.record.key or b"").decode(),
            }
            span = self._traces.start(
                f"process {self._topic}", SpanKind.CONSUMER, attributes, parent=parent, start_ns=start_ns
            )
            of_request: Attributes = {
                "db.system.name": "elasticsearch",
                "db.operation.name": "bulk",
                "db.collection.name": row.key.table,
                "db.operation.batch.size": len(request.actions),
                "sink.outcome": outcome.result.value,
            }
            bulk = self._traces.start(
                "bulk", SpanKind.CLIENT, of_request, parent=context_of(span), start_ns=request.sent_ns
            )
            if outcome.result is Result.REFUSED:
                bulk.set_status(Status(StatusCode.ERROR, outcome.reason))
            bulk.end(request.answered_ns)
            span.end()

    def close(self) -> None:
        """Send the last spans, within a second."""
        self._traces.close()


def _sampled(
    rows: Sequence[Row], requests: Sequence[BulkRequest], outcomes: Sequence[Outcome]
) -> Iterator[tuple[Row, BulkRequest, Outcome, Context]]:
    """Yield the rows of sampled interactions, each with its request, what came of it, and the context of its record."""
    of_rows = (request for request in requests for _ in request.actions)
    for row, request, outcome in zip(rows, of_rows, outcomes, strict=True):
        context = context_in(row.record.traceparent)
        if context is not None:
            yield row, request, outcome, context
