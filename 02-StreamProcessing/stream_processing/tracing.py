"""Continues the traces of sampled interactions, from their records to the rows that they change.

An interaction of a small batch has a span for ingest, one for its aggregation, and one for each changed row, whose
record has the header with which the sink continues the trace. Of a batch that Spark writes there is one span, a trace
of its own: its records stay in Spark.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import polars as pl
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind
from pyspark.sql import Row

from contract.declared import EVENT, TABLES
from contract.topics import TRACEPARENT
from runtime.tracing import Attributes, Traces, context_in, context_of, header_of
from stream_processing.engines import POLARS, group_columns
from stream_processing.event_reader import frame, read
from stream_processing.measures import record_key
from stream_processing.settings import StreamProcessingSettings

_SERVICE: Final = "stream-processing"
_MOST: Final = 100
"""Sampled records of a batch that are traced: spans cost time, and other producers may sample more."""
_KAFKA: Final[Attributes] = {"messaging.system": "kafka"}


@dataclass(frozen=True)
class TracedEvents:
    """Sampled events of an append, and the contexts of their spans."""

    events: pl.DataFrame
    contexts: Sequence[Context]


class JobTraces:
    """The stream job's spans. Times are in nanoseconds since the epoch."""

    def __init__(self, settings: StreamProcessingSettings, endpoint: str) -> None:
        self._topic = settings.kafka_topic
        self._aggregated_topic = settings.aggregated_topic
        self._traces = Traces(_SERVICE, endpoint)

    def ingested(self, records: Sequence[Row], start_ns: int) -> TracedEvents | None:
        """Record that a batch of collected records is in the lake; returns what is sampled of it, if anything."""
        found = ((row, context_in(row[TRACEPARENT])) for row in records if row[TRACEPARENT])
        sampled = [(row, context) for row, context in found if context is not None][:_MOST]
        if not sampled:
            return None
        # Apart from the batch, so that its own way to the lake is the same with and without traces.
        events, others = read([row.value for row, _ in sampled])
        not_read = set(others)
        contexts = []
        for number, (row, parent) in enumerate(sampled):
            attributes: Attributes = {
                "messaging.operation.name": "ingest",
                "messaging.operation.type": "process",
                "messaging.destination.name": self._topic,
                "messaging.destination.partition.id": str(row.partition),
                "messaging.kafka.offset": row.offset,
                "messaging.batch.message_count": len(records),
            }
            span = self._traces.start(
                f"ingest {self._topic}", SpanKind.CONSUMER, _KAFKA | attributes, parent=parent, start_ns=start_ns
            )
            span.end()
            if number not in not_read:
                contexts.append(context_of(span))
        return TracedEvents(frame(events), contexts) if events else None

    def written_by_spark(self, rows: int, start_ns: int) -> None:
        """Record that Spark has appended a batch to the lake."""
        attributes: Attributes = {
            "messaging.operation.name": "ingest",
            "messaging.operation.type": "process",
            "messaging.destination.name": self._topic,
            "messaging.batch.message_count": rows,
        }
        name = f"ingest {self._topic} by Spark"
        self._traces.start(name, SpanKind.CONSUMER, _KAFKA | attributes, start_ns=start_ns).end()

    @contextmanager
    def publishing(self, appends: Sequence[TracedEvents]) -> Iterator[Mapping[str, str]]:
        """Record the publication of the rows that these events change; yields the header of each row by topic key.

        A row that several of them change continues the trace of the last one, with links to the others.
        """
        aggregated = [
            self._traces.start("aggregate", SpanKind.INTERNAL, {"lake.table": EVENT.name}, parent=context)
            for append in appends
            for context in append.contexts
        ]
        changes = _changes(pl.concat([append.events for append in appends]))
        spans = []
        for key, numbers in changes.items():
            *others, last = (context_of(aggregated[number]) for number in numbers)
            attributes: Attributes = {
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": self._aggregated_topic,
                "messaging.kafka.message.key": key,
            }
            span = self._traces.start(
                f"send {self._aggregated_topic}", SpanKind.PRODUCER, _KAFKA | attributes, parent=last, links=others
            )
            spans.append(span)
        yield dict(zip(changes, map(header_of, spans), strict=True))
        for span in (*spans, *aggregated):
            span.end()

    def close(self) -> None:
        """Send the last spans, within a second."""
        self._traces.close()


def _changes(events: pl.DataFrame) -> dict[str, list[int]]:
    """Return the topic keys of the rows that events change, each with the numbers of its events."""
    changes: dict[str, list[int]] = {}
    for table in TABLES:
        groups = [column.alias(name) for name, column in group_columns(POLARS, EVENT, table.key).items()]
        keys = events.select(groups) if groups else events
        # Not by `select`: the key of a table with a single row is a literal.
        for number, key in enumerate(keys.with_columns(record_key(POLARS, table).alias(TRACEPARENT))[TRACEPARENT]):
            changes.setdefault(key, []).append(number)
    return changes
