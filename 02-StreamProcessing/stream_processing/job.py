"""Runs ingest, aggregation and maintenance in one Spark application, until a signal or a failure."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from contract.topics import aggregated_topic, dead_letter_topic, interactions_topic
from runtime import health, topic_admin
from runtime.signals import wait_for
from stream_processing import aggregate, ingest, materialise, metrics, progress, spark_internals
from stream_processing.aggregator import Aggregator, Append
from stream_processing.definitions import require_same_definitions
from stream_processing.event_changes import require_compatible_event
from stream_processing.failures import (
    JAVA,
    describe_failure,
    describe_java_exit,
    exit_after_java,
    is_transient,
    remedies,
    summary,
)
from stream_processing.kafka_io import UndeliveredError
from stream_processing.lag import follow_lag
from stream_processing.lake import Lake
from stream_processing.maintenance import Maintenance
from stream_processing.session import start_session
from stream_processing.settings import StreamProcessingSettings
from stream_processing.single_instance import claim
from stream_processing.snapshots import snapshots_folder
from stream_processing.spark_aggregation import SparkAggregation
from stream_processing.start_position import StartPosition, find_start_position
from stream_processing.storage import remove

if TYPE_CHECKING:
    from stream_processing.tracing import JobTraces

logger = logging.getLogger(__name__)

_CHECK_INTERVAL: Final = 1.0
"""Seconds between checks of the queries."""
_STOP_TIMEOUT: Final = 6.0
"""Seconds that the queries have to stop: with the rest of the shutdown, less than the 10 s that a container has."""
_MAINTENANCE_TIMEOUT: Final = 3.0
"""Seconds for a round of maintenance to notice that Spark has stopped."""
_JAVA_TIMEOUT: Final = 2.0
"""Seconds for the Java process to end after Spark."""


class KafkaUnavailableError(Exception):
    """Queries have failed because Kafka was unavailable for longer than their clients wait."""


class Aggregation(Protocol):
    """Follows the lake, and publishes the rows that its appends have changed."""

    def start(self) -> None:
        """Start to follow."""

    def put(self, append: Append) -> None:
        """Take over an append that was committed after the start."""

    def first_needed_version(self) -> int:
        """Return the first version of the lake that can still be read."""

    def report(self, state: health.Health) -> None:
        """Publish progress and health."""

    def failures(self) -> dict[str, str]:
        """Return what has failed by name, and why."""

    def stop(self) -> None:
        """Stop following; what was not published is published after the next start."""


class Queries:
    """The ingest query, and the aggregation that follows it.

    Raises `KafkaUnavailableError` if the aggregation's first rows cannot be published, and `StoppedError` as soon as
    `stop` is set: the whole lake may have to be counted first. `require_held` is called before each write.
    """

    def __init__(
        self,
        session: SparkSession,
        settings: StreamProcessingSettings,
        lake: Lake,
        position: StartPosition,
        stop: threading.Event,
        traces: "JobTraces | None",
        require_held: Callable[[], None],
    ) -> None:
        # The state of the other store would be an old one when the setting is changed back.
        if settings.state_store == "memory":
            for query in (aggregate.NAME, materialise.NAME):
                remove(session, f"{settings.checkpoints}/{query}")
            self._aggregation: Aggregation = Aggregator(session, settings, lake, require_held, traces)
        else:
            remove(session, snapshots_folder(settings))
            self._aggregation = SparkAggregation(session, settings, lake, require_held)
        try:
            wait_for(stop, ThreadPoolExecutor().submit(self._aggregation.start))
        except UndeliveredError as error:
            raise KafkaUnavailableError(str(error)) from error
        self.first_needed_version = self._aggregation.first_needed_version
        self.running = progress.RunningBatch()
        self._ingest = ingest.start_ingest(
            session, settings, lake, position, self._aggregation.put, self.running, require_held, traces
        )

    def report(self, state: health.Health) -> None:
        """Publish progress and health."""
        progress.report(self._ingest, state, self.running)
        self._aggregation.report(state)

    def failures(self) -> dict[str, str]:
        """Return what has failed by name, and why."""
        ingest_failed = {} if self._ingest.isActive else {self._ingest.name: describe_failure(self._ingest)}
        return ingest_failed | self._aggregation.failures()

    def stop(self) -> None:
        """Stop the aggregation, for which ingest may be waiting, then ingest."""
        self._aggregation.stop()
        self._ingest.stop()


def run(settings: StreamProcessingSettings, lake: Lake, stop: threading.Event) -> int:
    """Run the job until `stop` is set (status 0) or a query fails (status 1).

    Raises `KafkaUnavailableError` if only a restart of the process, which waits for Kafka, can help.
    """
    state = health.Health(ingest.NAME, aggregate.NAME)
    health.serve(state, settings.metrics_host, settings.stream_metrics_port, setting="STREAM_METRICS_PORT")
    traces = _traces(settings)
    session = _prepare(settings, lake, stop)
    with exit_after_java(spark_internals.java_process()):
        claimed = claim(session, settings.checkpoints, stop)
        try:
            position = _start_position(session, settings, lake)
        except Exception:
            # Nothing writes yet, and the remedy may be a command, which has to claim the checkpoints.
            claimed.release()
            raise
        queries = Queries(session, settings, lake, position, stop, traces, claimed.require_held)
        maintenance = Maintenance(session, settings, lake, queries.first_needed_version, claimed.require_held)
        maintaining = maintenance.start(stop)
        lag = follow_lag(settings, queries.running, stop)
        logger.info("ready")
        failures = _watch(queries, state, stop)
    if failures:
        _report_failures(failures, stop)
        return 1
    logger.info("stopping")
    has_stopped = _shut_down(session, queries)
    if traces is not None:
        traces.close()
    if has_stopped:
        # Python must not end while one of its threads is in native code: that would be a crash.
        maintaining.join(_MAINTENANCE_TIMEOUT)
        lag.join(_MAINTENANCE_TIMEOUT)
        if not maintaining.is_alive():
            claimed.release()
        # Java holds the lock on the checkpoints, so it ends when nothing is left that writes.
        spark_internals.end_java(_JAVA_TIMEOUT)
    else:
        # Safe at any point: the interrupted batch runs again after the next start.
        spark_internals.kill_java()
    return 0


def _traces(settings: StreamProcessingSettings) -> "JobTraces | None":
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    # Only traces need OpenTelemetry, which takes 0.2 s and 6 MB to import.
    from stream_processing.tracing import JobTraces

    return JobTraces(settings, settings.otel_exporter_otlp_endpoint)


def _prepare(settings: StreamProcessingSettings, lake: Lake, stop: threading.Event) -> SparkSession:
    """Start Spark, and create topics and tables meanwhile: Java takes seconds to start."""

    def create() -> None:
        topic_admin.create_missing_topics(
            settings.kafka_client,
            stop,
            interactions_topic(settings),
            aggregated_topic(settings),
            dead_letter_topic(settings),
        )
        lake.create_missing_tables()
        metrics.LAKE_ROWS.set(lake.count())
        metrics.set_lake_size(lake.file_sizes())

    # Not as a context manager, which would wait for both after an error or a signal.
    pool = ThreadPoolExecutor()
    starting, creating = pool.submit(start_session, settings), pool.submit(create)
    wait_for(stop, starting, creating)
    return starting.result()


def _start_position(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> StartPosition:
    """Return where ingest starts; raises the error that names the remedy if the data does not fit the settings."""
    require_compatible_event(session, settings, lake)
    require_same_definitions(session, settings)
    return find_start_position(session, settings, lake)


def _watch(queries: Queries, state: health.Health, stop: threading.Event) -> dict[str, str]:
    """Report the queries' progress until `stop` is set or one fails; return what has failed, and why."""
    while not stop.wait(_CHECK_INTERVAL):
        try:
            queries.report(state)
            failures = queries.failures()
        except (Py4JError, ConnectionError) as error:
            # Whoever stops the job may have ended Java too.
            if stop.wait(_CHECK_INTERVAL):
                break
            failures = {JAVA: describe_java_exit(spark_internals.java_process(), error)}
        if failures:
            return failures
    return {}


def _report_failures(failures: dict[str, str], stop: threading.Event) -> None:
    if all(map(is_transient, failures.values())) and not stop.is_set():
        raise KafkaUnavailableError("; ".join(f"{name}: {why.splitlines()[-1]}" for name, why in failures.items()))
    for name, why in failures.items():
        details = f"\n{why}" if "\n" in why else ""
        logger.error("%s has failed: %s%s", name, ": ".join([summary(why), *remedies(why)]), details)


def _shut_down(session: SparkSession, queries: Queries) -> bool:
    """Stop the queries and Spark; return whether they have stopped in time."""

    def stop() -> None:
        # Whoever stops the job may have ended Java too.
        with suppress(Py4JError, ConnectionError):
            spark_internals.silence(session)
            queries.stop()
            session.stop()

    stopping = threading.Thread(target=stop, name="shutdown", daemon=True)
    stopping.start()
    stopping.join(_STOP_TIMEOUT)
    return not stopping.is_alive()
