"""Runs the stream job: ``python -m stream_processing``; or one command: rebuild, accept-gap."""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from confluent_kafka import KafkaException
from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from contract.topics import aggregated_topic, dead_letter_topic, interactions_topic
from runtime import health, logs, topic_admin
from runtime.commands import command
from runtime.signals import stop_on_signal
from stream_processing import aggregate, commands, ingest, materialise, metrics, progress, state_memory
from stream_processing.lake import Lake
from stream_processing.maintenance import Upkeep
from stream_processing.session import NoJarsError, start_session
from stream_processing.settings import StreamProcessingSettings
from stream_processing.single_instance import AnotherInstanceError, claim
from stream_processing.spark_master import NoMasterError
from stream_processing.transient import failure_of, is_transient, start_over

logger = logging.getLogger("stream_processing")

_DATA_LOSS: Final = "failOnDataLoss"
"""Of Spark's message when offsets that it has yet to read are gone."""
_NO_MEMORY: Final = "OutOfMemoryError"
_REMEDIES: Final = {
    _DATA_LOSS: (
        "records are gone from the topic before they were read:"
        f" `{command('stream_processing', 'accept-gap')}` tells which, and has the next start go on behind them"
    ),
    _NO_MEMORY: f"if it was memory, {state_memory.REMEDY}; nothing is lost",
}
"""What to do, by what a reason holds."""

_LAST_ROUND = 3.0
"""Seconds that a round of upkeep has to notice that Spark is gone."""
_HEAD_START: Final = 10.0
"""Seconds that the aggregate query's first batch has for itself: nobody waits for the tables as for its rows, and
first batches on a cold machine are in each other's way."""
_COMMANDS: Final = {"rebuild": commands.rebuild, "accept-gap": commands.accept_gap}
_REFUSALS: Final = (
    AnotherInstanceError,
    NoJarsError,
    NoMasterError,
    ingest.LostCheckpointError,
    ingest.TopicMadeAnewError,
    aggregate.DefinitionsChangedError,
    commands.NothingKnownError,
    topic_admin.TopicError,
)


def main() -> int:
    """Run until a signal (status 0) or until a query fails for good (status 1); or run one command.

    What fails because Kafka is away is started over, and waits for it.
    """
    parser = argparse.ArgumentParser(prog="stream_processing", description="Runs the stream job.")
    parser.add_argument("command", nargs="?", choices=[*_COMMANDS], help="what to do instead, while the job is stopped")
    given = parser.parse_args().command
    settings = StreamProcessingSettings.load()
    logs.configure(settings.log_level)
    stop = stop_on_signal()
    lake = Lake.of(settings)
    try:
        if given is not None:
            return _run_command(given, settings, lake)
        return _run(settings, lake, stop)
    except _REFUSALS as error:
        logger.error("%s", error)
        return 1
    except topic_admin.StoppedError:
        return 0
    except _KafkaAwayError as error:
        logger.error("Kafka was away for too long, starting over: %s", error)
        start_over()
    except KafkaException as error:
        logger.error("Kafka at %s: %s", settings.kafka_broker, error.args[0].str())
        if given is not None or stop.is_set() or not is_transient(error):
            return 1
        start_over()


class _KafkaAwayError(Exception):
    """A query has failed for a reason that passes."""


def _run_command(name: str, settings: StreamProcessingSettings, lake: Lake) -> int:
    session = start_session(settings)
    lock = claim(session, settings.checkpoints)
    lake.create_missing_tables()
    _COMMANDS[name](session, settings, lake)
    session.stop()
    del lock
    return 0


def _run(settings: StreamProcessingSettings, lake: Lake, stop: threading.Event) -> int:
    state = health.Health(ingest.NAME, aggregate.NAME)
    health.serve(state, settings.metrics_host, settings.stream_metrics_port, setting="STREAM_METRICS_PORT")
    with ThreadPoolExecutor() as pool:
        # Java takes seconds to start, and what else is to be done needs none.
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
        session = starting.result()
    lock = claim(session, settings.checkpoints)
    ingesting = ingest.start_ingest(session, settings, lake)
    aggregating = aggregate.start_aggregate(session, settings, lake)
    queries = [ingesting, aggregating]
    upkeep = Upkeep(session, settings, lake).start(stop)
    logger.info("ready")
    head_start = time.monotonic() + _HEAD_START
    while not stop.wait(1.0):
        try:
            if len(queries) == 2 and (aggregating.lastProgress is not None or time.monotonic() > head_start):
                queries.append(materialise.start_materialise(session, settings, lake))
            for query in queries:
                progress.report(query, state)
            failed = [query for query in queries if not query.isActive]
            reasons = {query.name: failure_of(query) for query in failed}
        except (Py4JError, ConnectionError) as error:
            # A signal to the whole process group ends Java too.
            if stop.wait(1.0):
                break
            reasons = {"Java, in which Spark runs,": _ending_of_java(session, error)}
        if reasons and all(map(is_transient, reasons.values())) and not stop.is_set():
            raise _KafkaAwayError("; ".join(f"{name}: {reason.splitlines()[-1]}" for name, reason in reasons.items()))
        for name, reason in reasons.items():
            logger.error("%s has failed: %s", name, reason)
            for said, remedy in _REMEDIES.items():
                if said in reason:
                    logger.error(remedy)
        if reasons:
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
    # Python must not end while a thread of its own is within native code: that would be a crash in place of an end.
    upkeep.join(_LAST_ROUND)
    del lock
    return 0


def _ending_of_java(session: SparkSession, error: Exception) -> str:
    gateway = session.sparkContext._gateway
    with suppress(AttributeError, subprocess.TimeoutExpired):
        status = gateway.proc.wait(_LAST_ROUND)  # type: ignore[union-attr]
        if status == -signal.SIGKILL:
            return "it was killed by SIGKILL: kill -9, or the kernel for lack of memory, which `dmesg` tells"
        if status < 0:
            return f"it was ended by {signal.Signals(-status).name}"
        return f"it has ended with status {status}; an {_NO_MEMORY} in the lines above would tell why"
    return f"it does not answer ({type(error).__name__}); an {_NO_MEMORY} in the lines above would tell why"


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # A batch that was cut off may have a thread in native code still, which would crash in an orderly end of Python.
    os._exit(status)
