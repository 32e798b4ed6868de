"""Runs the stream job: ``python -m stream_processing``."""

import logging
import signal
import sys
import threading

from py4j.protocol import Py4JError

from contract import health, logs, topics
from stream_processing import aggregate, ingest, materialise, metrics, progress
from stream_processing.lake import Lake
from stream_processing.session import start_session
from stream_processing.settings import StreamProcessingSettings
from stream_processing.single_instance import AnotherInstanceError, claim
from stream_processing.upkeep import Upkeep

logger = logging.getLogger("stream_processing")


def main() -> int:
    """Run until a signal (status 0) or until a query fails (status 1)."""
    settings = StreamProcessingSettings.load()
    logs.configure(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    state = health.Health(ingest.NAME, aggregate.NAME, materialise.NAME)
    health.serve(state, settings.metrics_host, settings.stream_metrics_port)
    topics.ensure(
        settings.kafka_client,
        stop,
        topics.interactions_topic(settings),
        topics.aggregated_topic(settings),
        topics.dead_letter_topic(settings),
    )
    session = start_session(settings)
    try:
        lock = claim(session, settings.checkpoints)
    except AnotherInstanceError as error:
        logger.error("%s", error)
        return 1
    lake = Lake(settings.warehouse)
    lake.create_missing_tables()
    metrics.LAKE_ROWS.set(lake.count(session))
    try:
        ingesting = ingest.start_ingest(session, settings, lake)
    except ingest.LostCheckpointError as error:
        logger.error("%s", error)
        return 1
    aggregating = aggregate.start_aggregate(session, settings, lake)
    queries = [ingesting, aggregating, materialise.start_materialise(session, settings, lake)]
    Upkeep(session, settings, lake).start(stop, aggregating)
    logger.info("ready: %s", ", ".join(query.name for query in queries))
    while not stop.wait(1.0):
        for query in queries:
            progress.report(query, state)
        failed = [query for query in queries if not query.isActive]
        if failed:
            for query in failed:
                logger.error("%s has failed: %s", query.name, query.exception())
            return 1
    logger.info("stopping")
    # py4j logs each call that Java no longer answers, with its stack, straight to the root logger.
    logging.getLogger().addFilter(lambda record: record.name != "root")
    try:
        for query in queries:
            query.stop()
        session.stop()
    except (Py4JError, ConnectionError):
        # A signal to the whole process group has reached Java too: it ends by itself, as after a kill.
        logger.info("Spark is ending already")
    del lock
    return 0


if __name__ == "__main__":
    sys.exit(main())
