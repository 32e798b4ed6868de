"""The sink's loop: poll records, index rows, evaluate alerts, write dead letters, commit offsets. In this order.

Each step waits for the acknowledgement of the one before: Elasticsearch has every row and alert, and Kafka every dead
letter, before offsets are committed. A kill at any point repeats work and loses none. Repeated work changes nothing:
rows and alerts carry versions, and an alert's id follows from the row that fired it.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from confluent_kafka import TopicPartition

from contract.dead_letters import kind_of
from elasticsearch_sink_alert import latency, metrics
from elasticsearch_sink_alert.alerting.engine import AlertEngine
from elasticsearch_sink_alert.indexing.bulk import BulkRequest, Outcome
from elasticsearch_sink_alert.indexing.errors import ReindexRequiredError
from elasticsearch_sink_alert.indexing.row_index import RowIndex, row_requests, split_by_outcome
from elasticsearch_sink_alert.kafka.dead_letter_writer import DeadLetterWriter
from elasticsearch_sink_alert.kafka.group_consumer import GroupConsumer
from elasticsearch_sink_alert.kafka.rows import Rejected, Row, latest_rows
from runtime.signals import StoppedError

if TYPE_CHECKING:
    from elasticsearch_sink_alert.tracing import RowTraces

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 2
"""Batches that Elasticsearch may be indexing while the next one is polled."""


@dataclass
class _Batch:
    """Records that were polled together, and the offsets to commit once they are processed."""

    size: int
    rows: list[Row]
    requests: list[BulkRequest]
    rejected: list[Rejected]
    next_offsets: list[TopicPartition]
    assignments: Mapping[int, int]
    """The consumer's assignments before the records were polled."""
    polled_at: float
    """In seconds of the monotonic clock."""
    oldest_ms: int
    """The time of the oldest record, since the epoch."""
    outcomes: Callable[[], list[Outcome]] = list
    """Waits for the outcomes of the rows."""


class Sink:
    """Indexes the records of the aggregated topic, and raises alerts."""

    def __init__(
        self,
        consumer: GroupConsumer,
        row_index: RowIndex,
        alert_engine: AlertEngine,
        dead_letters: DeadLetterWriter,
        traces: "RowTraces | None" = None,
    ) -> None:
        self._consumer = consumer
        self._traces = traces
        self._row_index = row_index
        self._alert_engine = alert_engine
        self._dead_letters = dead_letters
        self._in_flight: deque[_Batch] = deque()
        self._finishing: _Batch | None = None
        self._lag: int | None = None
        """None before it is known."""
        metrics.LAG_SECONDS.set_function(self._lag_seconds)

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set; if the cluster or an index was replaced, index the whole topic again."""
        try:
            while not stop.is_set():
                try:
                    self._run_until_replaced(stop)
                except ReindexRequiredError as error:
                    logger.warning("%s: missing indices are recreated, and the whole topic is indexed again", error)
                    self._in_flight.clear()
                    self._finishing = None
                    self._row_index.recover()
                    self._consumer.rewind(self._row_index.identity)
        except StoppedError:
            pass  # Records whose offsets are not committed are processed again after the next start.

    def _run_until_replaced(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.run_once()
        self._drain_to(0)

    def run_once(self) -> None:
        """Poll a batch, start to index it, and finish batches before it; without a new batch, all of them.

        Raises `ReindexRequiredError`.
        """
        batch = self._poll_batch()
        self._row_index.require_same_cluster()
        if self._consumer.has_new_partitions:
            self._drain_to(0)
            self._load_alerts()
        if batch is not None:
            self._start_indexing(batch)
        self._drain_to(MAX_IN_FLIGHT if batch is not None else 0)
        self._alert_engine.reload_rules()
        self._update_alerts_by_time()
        self._alert_engine.send_summaries()

    def _poll_batch(self) -> _Batch | None:
        # Before the poll: partitions can be revoked while it fills the batch. Records of new ones come later.
        assignments = self._consumer.assignments
        records = self._consumer.poll_batch(wait=not self._in_flight)
        if not records:
            return None
        polled_at = time.monotonic()
        with metrics.PHASE_SECONDS.labels("read").time():
            rows, rejected = latest_rows(records, self._consumer.clock)
            requests = row_requests(rows)
        offsets = self._consumer.next_offsets(records)
        oldest = min(record.timestamp_ms for record in records)
        return _Batch(len(records), rows, requests, rejected, offsets, assignments, polled_at, oldest)

    def _load_alerts(self) -> None:
        self._consumer.has_new_partitions = False
        self._alert_engine.load()

    def _start_indexing(self, batch: _Batch) -> None:
        """Send a batch to Elasticsearch, without waiting for batches before it.

        A row may be indexed before an older one of its key. The older one is then superseded, as it is if both are
        in one batch.
        """
        batch.outcomes = self._row_index.start(batch.requests)
        self._in_flight.append(batch)

    def _drain_to(self, max_in_flight: int) -> None:
        """Finish batches, in their order, until at most this number is in flight."""
        while len(self._in_flight) > max_in_flight:
            self._finish(self._in_flight.popleft())

    def _finish(self, batch: _Batch) -> None:
        """Wait until the rows are indexed, then evaluate alerts, write dead letters, and commit."""
        self._finishing = batch
        with metrics.PHASE_SECONDS.labels("wait for Elasticsearch").time():
            outcomes = batch.outcomes()
        current, refused = split_by_outcome(batch.rows, outcomes)
        latency.observe(current, time.time())
        rejected, offsets = batch.rejected + refused, batch.next_offsets
        if batch.assignments is not self._consumer.assignments:
            # The next owner of a revoked partition processes its records again. It may have evaluated later ones since,
            # and does not know of an alert that would be raised now.
            kept = batch.assignments.items() & self._consumer.assignments.items()
            partitions = {partition for partition, _ in kept}
            current = [row for row in current if row.record.partition in partitions]
            rejected = [each for each in rejected if each.record.partition in partitions]
            offsets = [each for each in offsets if each.partition in partitions]
        with metrics.PHASE_SECONDS.labels("alerts").time():
            self._alert_engine.evaluate(current)
        with metrics.PHASE_SECONDS.labels("dead letters").time():
            self._write_dead_letters(rejected)
        self._consumer.commit(offsets)
        metrics.RECORDS.inc(batch.size)
        seconds = time.monotonic() - batch.polled_at
        metrics.BATCH_SECONDS.observe(seconds)
        if self._traces is not None:
            self._traces.finished(batch.rows, batch.requests, outcomes, seconds)
        self._finishing = None

    def _write_dead_letters(self, rejected: Sequence[Rejected]) -> None:
        """Write dead letters, except for records that are a replay of one."""
        for each in rejected:
            if each.record.replay_of is not None:
                logger.warning(
                    "dead letter %s was replayed, and refused again: %s", each.record.replay_of, each.reason,
                    extra=each.record.coordinates,
                )  # fmt: skip
                metrics.REFUSED_REPLAYS.inc()
        new = [each for each in rejected if each.record.replay_of is None]
        if not new:
            return
        self._dead_letters.write(new)
        for kind, number in Counter(kind_of(each.reason) for each in new).items():
            metrics.DEAD_LETTERS.labels(kind).inc(number)
        first = new[0]
        logger.warning(
            "%d records went to the dead letters; the first is %s partition %d offset %d: %s",
            len(new), first.record.topic, first.record.partition, first.record.offset, first.reason,
            extra=first.record.coordinates,
        )  # fmt: skip

    def _update_alerts_by_time(self) -> None:
        """Let time fire and resolve alerts, if no record is left that may change them."""
        lag = self._lag = self._consumer.lag()
        metrics.LAG.set(lag)
        if lag == 0 and not self._in_flight:
            self._alert_engine.resolve_past_windows(datetime.now(UTC), self._consumer.partitions)
            self._alert_engine.fire_due(datetime.now(UTC), self._consumer.partitions)
            self._alert_engine.resolve_idle(datetime.now(UTC), self._consumer.partitions)

    def _lag_seconds(self) -> float | None:
        """Return the age of the oldest record that is not committed; 0 if none is left, None if that is not known.

        Called from another thread.
        """
        batch = self._finishing or next(iter(tuple(self._in_flight)), None)
        if batch is None:
            return 0.0 if self._lag == 0 else None
        return max(0.0, time.time() - batch.oldest_ms / 1000)
