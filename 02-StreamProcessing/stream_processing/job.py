"""Runs the three queries and maintenance in one Spark application, until a signal or a failure."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from contract.topics import aggregated_topic, dead_letter_topic, interactions_topic
from runtime import health, topic_admin
from stream_processing import aggregate, ingest, kafka_io, metrics, progress, spark_internals
from stream_processing.aggregator import Aggregator
from stream_processing.failures import describe_failure, describe_java_exit, is_transient, remedies
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
_MAINTENANCE_TIMEOUT: Final = 3.0
"""Seconds for a round of maintenance to notice that Spark has stopped."""


class KafkaUnavailableError(Exception):
    """Queries have failed because Kafka was unavailable for longer than their clients wait."""


class Queries:
    """The job's streaming queries, of which materialise starts later than the others."""

    def __init__(self, session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> None:
        self._session = session
        self._settings = settings
        self._lake = lake
        limit = kafka_io.max_message_bytes(settings, settings.aggregated_topic)
        producer = kafka_io.RowProducer(settings, settings.aggregated_topic, limit)
        self._aggregator = Aggregator(session, settings, lake, producer)
        self._aggregator.start()
        self._started: list[StreamingQuery] = [ingest.start_ingest(session, settings, lake, self._aggregator)]

    def report(self, state: health.Health) -> None:
        """Publish the progress and health of the started queries."""
        for query in self._started:
            progress.report(query, state)
        state.ok(aggregate.NAME)

    def failures(self) -> dict[str, str]:
        """Return the failed queries by name, and why each has failed."""
        failures = {query.name: describe_failure(query) for query in self._started if not query.isActive}
        if self._aggregator.error is not None:
            failures[aggregate.NAME] = f"{type(self._aggregator.error).__name__}: {self._aggregator.error}"
        return failures

    def stop(self) -> None:
        """Stop the started queries."""
        for query in self._started:
            query.stop()
        self._aggregator.stop(5)


def run(settings: StreamProcessingSettings, lake: Lake, stop: threading.Event) -> int:
    """Run the job until `stop` is set (status 0) or a query fails (status 1).

    Raises `KafkaUnavailableError` if only a restart of the process, which waits for Kafka, can help.
    """
    state = health.Health(ingest.NAME, aggregate.NAME)
    health.serve(state, settings.metrics_host, settings.stream_metrics_port, setting="STREAM_METRICS_PORT")
    session = _prepare(settings, lake, stop)
    lock = claim(session, settings.checkpoints)
    queries = Queries(session, settings, lake)
    maintenance = Maintenance(session, settings, lake).start(stop)
    logger.info("ready")
    failures = _watch(queries, state, stop)
    if failures:
        _report_failures(failures, stop)
        return 1
    logger.info("stopping")
    _shut_down(session, queries)
    # Python must not end while one of its threads is in native code: that would be a crash.
    maintenance.join(_MAINTENANCE_TIMEOUT)
    del lock
    return 0


def _prepare(settings: StreamProcessingSettings, lake: Lake, stop: threading.Event) -> SparkSession:
    """Start Spark, and create topics and tables meanwhile: Java takes seconds to start."""
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(start_session, settings)
        topic_admin.create_missing_topics(
            settings.kafka_client,
            stop,
            interactions_topic(settings),
            aggregated_topic(settings),
            dead_letter_topic(settings),
        )
        lake.create_missing_tables()
        metrics.LAKE_ROWS.set(lake.count())
        return starting.result()


def _watch(queries: Queries, state: health.Health, stop: threading.Event) -> dict[str, str]:
    """Report the queries' progress until `stop` is set or one fails; return what has failed, and why."""
    while not stop.wait(_CHECK_INTERVAL):
        try:
            queries.report(state)
            failures = queries.failures()
        except (Py4JError, ConnectionError) as error:
            # A signal to the whole process group ends Java too.
            if stop.wait(_CHECK_INTERVAL):
                break
            failures = {"Java, in which Spark runs,": describe_java_exit(spark_internals.java_process(), error)}
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


def _shut_down(session: SparkSession, queries: Queries) -> None:
    # py4j logs each call that Java no longer answers, with its stack trace, directly to the root logger.
    logging.getLogger().addFilter(lambda record: record.name != "root")
    try:
        queries.stop()
        session.stop()
    except (Py4JError, ConnectionError):
        # A signal to the whole process group has reached Java too: it ends by itself, as after a kill.
        logger.info("Spark has stopped already")
