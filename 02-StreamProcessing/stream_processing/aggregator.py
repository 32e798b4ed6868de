"""Follows the lake: counts what each append added, and publishes the changed rows to Kafka.

The counts are a function of the lake's version. A snapshot has both; after a start, the later appends are added, and
every row that they change is published again. So nothing has to be committed together with Kafka, and every published
row is computed from committed interactions.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import polars as pl
from confluent_kafka import KafkaException
from pyspark.sql import SparkSession

from contract.declared import TABLES
from runtime.health import Health
from runtime.signals import StoppedError
from stream_processing import metrics, spark_internals, state_memory
from stream_processing.counts import Counts
from stream_processing.kafka_io import RowProducer, max_message_bytes
from stream_processing.lake import Lake, scan_events
from stream_processing.lake_log import LakeLog
from stream_processing.measures import KEYS
from stream_processing.poisoning_lock import PoisonedError, PoisoningLock
from stream_processing.published_topic import PublishedTopic
from stream_processing.retention import Retention
from stream_processing.row_publisher import RowPublisher
from stream_processing.settings import StreamProcessingSettings
from stream_processing.snapshots import Snapshots, snapshots_folder
from stream_processing.storage import modified_at, read_text_if_exists
from stream_processing.table_writer import TableWriter, run_every

if TYPE_CHECKING:
    from stream_processing.tracing import JobTraces, TracedEvents

NAME: Final = "aggregate"
_MATERIALISE: Final = "materialise"
logger = logging.getLogger(__name__)

_QUEUED: Final = 2
"""Appends that can wait to be counted: ingest is at most that far ahead."""
_PUBLICATION_SHARE: Final = 0.2
"""The maximum share of the time in which rows are published during a backlog: this costs more than counting, and a row
that changes again before the next publication is published once."""
_STOP_TIMEOUT: Final = 5.0
"""Seconds for each thread to end."""
_REPLACEABLE: Final = 10.0
"""Seconds after which a version of the lake is final; an append needs milliseconds to replace a compaction."""
_POLL: Final = 0.5
"""Seconds between checks for the end of the job."""


@dataclass(frozen=True)
class Append:
    """An append to the interactions table: its version, and the interactions in memory or in files."""

    version: int
    interactions: pl.DataFrame | None = None
    files: Sequence[str] = ()
    more: bool = False
    """Whether the next append follows at once, because of a backlog."""
    traced: "TracedEvents | None" = None
    """The interactions whose traces go on, if there are any."""

    def scan(self, storage_options: dict[str, str]) -> pl.LazyFrame:
        """Return the interactions."""
        if self.interactions is not None:
            return self.interactions.lazy()
        return scan_events(self.files, storage_options)


class Aggregator:
    """Keeps the counts in the memory of this process, and follows the lake in threads of its own."""

    def __init__(
        self,
        session: SparkSession,
        settings: StreamProcessingSettings,
        lake: Lake,
        require_held: Callable[[], None],
        traces: "JobTraces | None" = None,
    ) -> None:
        """`require_held` is called before rows are published, and before tables are written."""
        self._session = session
        self._require_held = require_held
        self._traces = traces
        self._traced: list[TracedEvents] = []
        """Of appends that are counted, and whose rows are not published yet."""
        self._settings = settings
        self._lake = lake
        self._stop = threading.Event()
        limit = max_message_bytes(settings, settings.aggregated_topic)
        self._producer = RowProducer(settings, settings.aggregated_topic, limit, self._stop)
        self._publisher = RowPublisher(self._producer)
        self._published = PublishedTopic(session, settings)
        self._lock = PoisoningLock()
        """Held while an append is counted, and while rows are handed to the producer: an error meanwhile leaves counts
        of no version."""
        self._counts = Counts(lake)
        self._log = LakeLog(lake.interactions, partial(read_text_if_exists, session))
        self._snapshots = Snapshots(snapshots_folder(settings), lake, self._log)
        self._snapshot_version = -1
        self._memory: tuple[int, int] | None = (state_memory.memory_limit(), spark_internals.max_heap_bytes(session))
        """The bytes for this process and Java, and for Java's heap; None after a warning."""
        self._next_publication = 0.0
        self._writer = TableWriter(lake, self._snapshots, Retention(lake, self._delete))
        self._appends: queue.Queue[Append] = queue.Queue(_QUEUED)
        self._error: BaseException | None = None
        self._threads = [self._thread(NAME, self._follow), self._thread(_MATERIALISE, self._materialise)]

    def start(self) -> None:
        """Bring the counts to the lake's current version, publish what that changed, and follow it from there."""
        self._restore()
        for thread in self._threads:
            thread.start()

    def put(self, append: Append) -> None:
        """Take over an append; waits while others are waiting."""
        while self._error is None and not self._stop.is_set():
            try:
                self._appends.put(append, timeout=_POLL)
                return
            except queue.Full:
                continue

    def first_needed_version(self) -> int:
        """Return the first version of the lake that no snapshot covers."""
        return self._snapshot_version + 1

    def report(self, state: Health) -> None:
        """Publish the health of the threads."""
        if self._error is None:
            state.ok(NAME)
        else:
            state.failing(NAME, str(self._error))

    def failures(self) -> dict[str, str]:
        """Return the error that has ended a thread."""
        return {} if self._error is None else {NAME: f"{type(self._error).__name__}: {self._error}"}

    def stop(self) -> None:
        """Stop following; counts that no snapshot has yet are computed again at the next start."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT)

    def _thread(self, name: str, run: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                run()
            except (StoppedError, PoisonedError):
                pass
            except BaseException as error:
                self._error = error

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _restore(self) -> None:
        current = self._lake.version()
        versions = []
        has_all_rows = self._published.has_all_rows()
        for key in KEYS:
            snapshot, files = self._snapshots.load(key, current, all_rows=not has_all_rows)
            later = scan_events(files, self._lake.storage_options)
            self._counts.restore(snapshot.state(key), snapshot.clock, later, current)
            versions.append(-1 if snapshot.version is None else snapshot.version)
        self._counts.version, self._snapshot_version = current, min(versions)
        if not has_all_rows:
            self._counts.publish_all()
        self._publish()
        self._producer.flush()
        self._published.store()

    def _follow(self) -> None:
        while not self._stop.is_set():
            append = self._next_append(self._pause() if self._counts.has_unpublished else _POLL)
            started, published = time.monotonic(), 0
            with self._lock:
                if append is not None:
                    if not append.more:
                        self._next_publication = 0.0
                    with metrics.PHASE_SECONDS.labels("count").time():
                        self._counts.add(append.version, append.scan(self._lake.storage_options))
                    if append.traced is not None:
                        self._traced.append(append.traced)
                if self._counts.has_unpublished and not self._pause():
                    published = self._publish()
            if append is not None or published:
                _report(NAME, started, published)

    def _next_append(self, timeout: float) -> Append | None:
        try:
            return self._appends.get(timeout=timeout)
        except queue.Empty:
            return None

    def _pause(self) -> float:
        """Return the seconds until the next publication."""
        return max(0.0, self._next_publication - time.monotonic())

    def _publish(self) -> int:
        """Publish the rows that have changed since the last publication; returns their number."""
        self._require_held()
        started = time.monotonic()
        with metrics.PHASE_SECONDS.labels("publish").time(), self._trace_contexts() as contexts:
            changed = self._counts.take_unpublished()
            for key, rows in changed.items():
                self._publisher.publish(key, rows, self._counts.clock, contexts)
        metrics.AGGREGATED.set(self._counts.events)
        self._report_rows()
        finished = time.monotonic()
        self._next_publication = finished + (finished - started) * (1 / _PUBLICATION_SHARE - 1)
        published = sum(map(len, changed.values()))
        metrics.PUBLISHED_ROWS.inc(published)
        return published

    def _trace_contexts(self) -> AbstractContextManager[Mapping[str, str] | None]:
        """Record the publication of traced interactions, with the header of each row by topic key."""
        traced, self._traced = self._traced, []
        return self._traces.publishing(traced) if self._traces is not None and traced else nullcontext()

    def _report_rows(self) -> None:
        sizes = self._counts.sizes
        for table in TABLES:
            metrics.STATE_ROWS.labels(table.name).set(sizes[table.key])

    def _materialise(self) -> None:
        def write() -> None:
            started = time.monotonic()
            with self._lock:
                self._cover_compactions()
                if self._counts.has_unpublished:
                    self._publish()
                counted = self._counts.take_unwritten()
                self._counts.remove_closed(counted)
                self._report_rows()
            self._require_held()
            if self._writer.write(counted, self._flush):
                self._snapshot_version = counted.version
            self._check_memory()
            _report(_MATERIALISE, started, sum(map(len, counted.changed.values())))

        run_every(self._settings.materialise_interval, self._stop, write)

    def _delete(self, keys: Sequence[str]) -> None:
        with self._lock:
            self._require_held()
            self._producer.send((key, None) for key in keys)
            self._producer.flush()

    def _flush(self) -> None:
        with self._lock:
            self._producer.flush()
        # The ends that are stored already are not wrong, only older.
        with suppress(KafkaException):
            self._published.store()

    def _cover_compactions(self) -> None:
        """Advance the counts' version over compactions: otherwise an idle lake would keep all files for the start.

        Not over recent ones, which an append that Spark commits at the same moment can replace.
        """
        while self._log.without_data(self._counts.version + 1):
            written = modified_at(self._session, self._log.entry(self._counts.version + 1))
            if written is None or time.time() - written < _REPLACEABLE:
                break
            self._counts.version += 1

    def _check_memory(self) -> None:
        """Publish the size of the counts, and warn once if they are too large."""
        size = self._counts.estimated_bytes()
        metrics.STATE_BYTES.set(size)
        if self._memory and (warning := state_memory.warning(size, *self._memory)):
            logger.warning(warning)
            self._memory = None


def _report(name: str, started: float, rows: int) -> None:
    seconds = time.monotonic() - started
    metrics.BATCH_SECONDS.labels(name).observe(seconds)
    metrics.LAST_BATCH_ROWS.labels(name).set(rows)
    metrics.LAST_BATCH_SECONDS.labels(name).set(seconds)
