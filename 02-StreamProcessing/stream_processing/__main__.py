"""Runs the stream job: ``python -m stream_processing``; or a command: rebuild, accept-gap."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()
    from runtime.logs import begin

    begin("stream_processing")

import argparse
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from confluent_kafka import KafkaException

from runtime import logs, topic_admin
from runtime.broken_pipe import exit_status
from runtime.signals import StoppedError, stop_on_signal, wait_for
from stream_processing import commands, definitions, event_changes, job, snapshots, spark_internals, start_position
from stream_processing.failures import is_transient, restart_process
from stream_processing.lake import Lake
from stream_processing.session import NoJarsError, start_session, stop_session
from stream_processing.settings import StreamProcessingSettings
from stream_processing.single_instance import (
    COMMAND_TIMEOUT,
    AnotherInstanceError,
    CheckpointsError,
    claim,
    require_unclaimed,
)
from stream_processing.spark_internals import JavaStartError
from stream_processing.spark_master import NoMasterError

logger = logging.getLogger("stream_processing")

_COMMANDS: Final = {"rebuild": commands.rebuild, "accept-gap": commands.accept_gap}
_EXPECTED_ERRORS: Final = (
    AnotherInstanceError,
    CheckpointsError,
    JavaStartError,
    NoJarsError,
    NoMasterError,
    start_position.LostCheckpointError,
    start_position.OlderLakeError,
    start_position.OlderTopicError,
    start_position.OtherTopicError,
    start_position.TopicRecreatedError,
    definitions.DefinitionsChangedError,
    event_changes.EventChangedError,
    commands.OffsetsUnknownError,
    snapshots.UnreadableSnapshotError,
    topic_admin.TopicError,
)
"""Errors that are logged without a stack trace: their message has reason and remedy."""
_INTERRUPTED: Final = 130
"""Exit status of a command that was stopped before it changed anything."""


def main() -> int:
    """Run the job until a signal (status 0) or a failure (status 1); or run one command.

    If it fails because Kafka is unavailable, the process restarts and waits for Kafka.
    """
    command = _parse_command()
    settings = StreamProcessingSettings.load()
    if command is not None:
        # A command prints for a person.
        settings = settings.model_copy(update={"log_format": "text"})
    logs.configure(settings.log_level, settings.log_format, logger.name)
    stop = stop_on_signal()
    # Java is in another process group than a terminal's: with `stty tostop`, its first line of the log would stop it.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    lake = Lake.of(settings)
    try:
        return job.run(settings, lake, stop) if command is None else _run_command(command, settings, lake, stop)
    except _EXPECTED_ERRORS as error:
        logger.error("%s", error)
        return 1
    except StoppedError:
        # Before any query has started. At the end of this process Java would log how its own start fails.
        spark_internals.kill_java()
        return 0 if command is None else _INTERRUPTED
    except job.KafkaUnavailableError as error:
        logger.error("Kafka was unavailable for too long, restarting: %s", error)
        restart_process()
    except KafkaException as error:
        logger.error("Kafka at %s: %s", settings.kafka_broker, error.args[0].str())
        if command is not None or stop.is_set() or not is_transient(error):
            return 1
        restart_process()


def _parse_command() -> str | None:
    parser = argparse.ArgumentParser(prog="stream_processing", description="Runs the stream job.")
    parser.add_argument("command", nargs="?", choices=[*_COMMANDS], help="run this instead, while the job is stopped")
    command: str | None = parser.parse_args().command
    return command


def _run_command(name: str, settings: StreamProcessingSettings, lake: Lake, stop: threading.Event) -> int:
    require_unclaimed(settings.checkpoints)
    # In a thread: in the main one, Spark would replace the handler of Ctrl-C by its own.
    starting = ThreadPoolExecutor().submit(start_session, settings)
    wait_for(stop, starting)
    session = starting.result()
    claimed = claim(session, settings.checkpoints, stop, COMMAND_TIMEOUT)
    try:
        lake.create_missing_tables()
        if stop.is_set():
            raise StoppedError
        _COMMANDS[name](session, settings, lake)
    finally:
        claimed.release()
    spark_internals.silence(session)
    stop_session(session)
    return 0


if __name__ == "__main__":
    try:
        status = exit_status(main)
    except Exception:
        logger.exception("unexpected error")
        status = 1
    sys.stdout.flush()
    # An orderly end of Python would wait for threads that wait for a server, and crash those in native code.
    os._exit(status)
