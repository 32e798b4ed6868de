"""Runs the three queries and maintenance in one Spark application, until a signal or a failure."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from contract.topics import aggregated_topic, dead_letter_topic, interactions_topic
from runtime import health, topic_admin
from runtime.signals import wait_for
from stream_processing import aggregate, ingest, materialise, metrics, progress, spark_internals
from stream_processing.failures import (
    JAVA,
    describe_failure,
    describe_java_exit,
    exit_after_java,
    is_transient,
    remedies,
)
from stream_processing.lake import Lake
from stream_processing.maintenance import Maintenance
from stream_processing.session import start_session
from stream_processing.settings import StreamProcessingSettings
from stream_processing.single_instance import claim

logger = logging.getLogger(__name__)

_HEAD_START: Final = 10.0
"""Maximum seconds for which the aggregate query's first batch runs before materialise starts: its rows are needed
sooner than the tables, and first batches slow each other down on a cold machine."""
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


class Queries:
    """The job's streaming queries, of which materialise starts later than the others."""

    def __init__(self, session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> None:
        self._session = session
        self._settings = settings
        self._lake = lake
        ingesting = ingest.start_ingest(session, settings, lake)
        self._aggregating = aggregate.start_aggregate(session, settings, lake)
        self._head_start_ends = time.monotonic() + _HEAD_START
        self._started: list[StreamingQuery] = [ingesting, self._aggregating]
        self._is_materialise_started = False

    def start_materialise_if_due(self) -> None:
        """Start materialise once the aggregate query's first batch is complete, or its head start has ended."""
        if self._is_materialise_started:
            return
        if self._aggregating.lastProgress is not None or time.monotonic() > self._head_start_ends:
            self._started.append(materialise.start_materialise(self._session, self._settings, self._lake))
            self._is_materialise_started = True

    def report(self, state: health.Health) -> None:
        """Publish the progress and health of the started queries."""
        for query in self._started:
            progress.report(query, state)

    def failures(self) -> dict[str, str]:
        """Return the failed queries by name, and why each has failed."""
        return {query.name: describe_failure(query) for query in self._started if not query.isActive}

    def stop(self) -> None:
        """Stop the started queries."""
        for query in self._started:
            query.stop()


def run(settings: StreamProcessingSettings, lake: Lake, stop: threading.Event) -> int:
    """Run the job until `stop` is set (status 0) or a query fails (status 1).

    Raises `KafkaUnavailableError` if only a restart of the process, which waits for Kafka, can help.
    """
    state = health.Health(ingest.NAME, aggregate.NAME)
    health.serve(state, settings.metrics_host, settings.stream_metrics_port, setting="STREAM_METRICS_PORT")
    session = _prepare(settings, lake, stop)
    with exit_after_java(spark_internals.java_process()):
        lock = claim(session, settings.checkpoints, stop)
        queries = Queries(session, settings, lake)
        maintenance = Maintenance(session, settings, lake).start(stop)
        logger.info("ready")
        failures = _watch(queries, state, stop)
    if failures:
        _report_failures(failures, stop)
        return 1
    logger.info("stopping")
    if _shut_down(session, queries):
        # Python must not end while one of its threads is in native code: that would be a crash.
        maintenance.join(_MAINTENANCE_TIMEOUT)
        # Java holds the lock on the checkpoints, so it ends when nothing is left that writes.
        spark_internals.end_java(_JAVA_TIMEOUT)
    else:
        # Safe at any point: the interrupted batch runs again after the next start.
        spark_internals.kill_java()
    del lock
    return 0


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
        sizes = lake.file_sizes()
        metrics.LAKE_FILES.set(len(sizes))
        metrics.LAKE_BYTES.set(sum(sizes))

    # Not as a context manager, which would wait for both after an error or a signal.
    pool = ThreadPoolExecutor()
    starting, creating = pool.submit(start_session, settings), pool.submit(create)
    wait_for(stop, starting, creating)
    return starting.result()


def _watch(queries: Queries, state: health.Health, stop: threading.Event) -> dict[str, str]:
    """Report the queries' progress until `stop` is set or one fails; return what has failed, and why."""
    while not stop.wait(_CHECK_INTERVAL):
        try:
            queries.start_materialise_if_due()
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
        logger.error("%s has failed: %s", name, why)
        for remedy in remedies(why):
            logger.error(remedy)


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
