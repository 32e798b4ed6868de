"""Explains why the job failed, and restarts it if the cause is transient.

A transient failure, such as an outage of Kafka that lasts longer than its clients wait, ends ingest or aggregation.
Neither can be restarted safely in the same process: tasks and producers of the failed batch may still publish. So Java
is killed, which is safe at any point, and the whole process restarts.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from confluent_kafka import KafkaError, KafkaException
from pyspark.sql.streaming.query import StreamingQuery

from runtime import kafka_errors
from runtime.commands import command
from stream_processing.spark_internals import exception_causes, kill_java

logger = logging.getLogger(__name__)

_TRANSIENT_ERRORS: Final = (
    "org.apache.kafka.common.errors.TimeoutException",
    "org.apache.kafka.common.errors.DisconnectException",
    "org.apache.kafka.common.errors.NetworkException",
    "org.apache.kafka.common.errors.NotEnoughReplicas",
    "org.apache.kafka.common.errors.NotLeaderOrFollowerException",
    "org.apache.kafka.common.errors.CoordinatorNotAvailableException",
    # The broker's name does not resolve while its container is down.
    "No resolvable bootstrap urls given",
    # From Spark's consumer, after a poll without an answer.
    "java.util.concurrent.TimeoutException: Cannot fetch record",
    # From librdkafka, within a batch.
    "KafkaError{code=_TIMED_OUT",
    "KafkaError{code=_TRANSPORT",
    # From the driver's own producers (in `kafka_io`), as Java or the aggregator quotes it.
    "records were not delivered: Local: Message timed out",
)
"""Parts of the texts of a query's exception or of its causes, or of the error of the aggregator."""
_DATA_LOSS: Final = "failOnDataLoss"
"""Part of Spark's message when offsets that it has not read are no longer in the topic."""
_TOPIC_DELETED: Final = "a topic was deleted: the next start creates it again, and says whether a command is needed"
_OUT_OF_MEMORY: Final = "OutOfMemoryError"
_OVERFLOW: Final = "java.lang.ArithmeticException: long overflow"
"""Raised by Spark's source, which converts the time of each record to microseconds."""
_REMEDIES: Final = {
    _DATA_LOSS: (
        "records were deleted from the topic before the job read them:"
        f" `{command('stream_processing', 'accept-gap')}` lists them and lets the next start continue after them"
    ),
    _OVERFLOW: (
        "a client has sent a record with a timestamp beyond the year 294247: set message.timestamp.type=LogAppendTime"
        " for the topic, delete its records up to that one (kafka-delete-records.sh), and run"
        f" `{command('stream_processing', 'accept-gap')}`"
    ),
    # From Spark's clients, and from librdkafka's.
    "UnknownTopicOrPartitionException": _TOPIC_DELETED,
    "Broker: Unknown topic or partition": _TOPIC_DELETED,
    "Local: Unknown topic": _TOPIC_DELETED,
    "Local: Unknown partition": _TOPIC_DELETED,
    _OUT_OF_MEMORY: "if it was out of memory, raise SPARK_DRIVER_MEMORY; no data is lost",
}
_TRACEBACK: Final = "Traceback (most recent call last):"
_ERROR_OF_JAVA: Final = "py4j.protocol.Py4JJavaError:"
_TASK: Final = re.compile(r"^.*: Job aborted due to stage failure: .* most recent failure: Lost task [^:]*: ")
"""How Spark introduces the exception of a task."""
JAVA: Final = "Java, in which Spark runs,"
_REPORT_TIMEOUT: Final = 10.0
_EXIT_TIMEOUT: Final = 3.0
"""Seconds to wait for the exit status of a Java process that no longer answers."""


def describe_failure(query: StreamingQuery) -> str:
    """Return the exception that ended the query, followed by its causes that add information."""
    error = str(query.exception() or "it was stopped")
    return "\ncaused by: ".join([error, *(cause for cause in exception_causes(query) if cause not in error)])


def describe_java_exit(java: "subprocess.Popen[bytes] | None", error: Exception) -> str:
    """Return how the Java process ended, after `error` showed that it no longer answers."""
    hint = f"look for an {_OUT_OF_MEMORY} in the log lines above"
    if java is not None:
        try:
            status = java.wait(_EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        else:
            if status == -signal.SIGKILL:
                return "it was killed by SIGKILL: kill -9, or the kernel for lack of memory (see `dmesg`)"
            if status < 0:
                return f"it was ended by {signal.Signals(-status).name}"
            return f"it exited with status {status}; {hint}"
    return f"it does not answer ({type(error).__name__}); {hint}"


@contextmanager
def exit_after_java(java: "subprocess.Popen[bytes] | None", timeout: float = _REPORT_TIMEOUT) -> Iterator[None]:
    """End this process if Java ends during the `with` block, which then has `timeout` seconds to notice that itself.

    A call to Java does not return while a child process of a killed Java has its connections open.
    """
    left = threading.Event()

    def follow() -> None:
        if java is not None:
            java.wait()
            if not left.wait(timeout):
                logger.error("%s has failed: %s", JAVA, describe_java_exit(java, ConnectionError()))
                exit_at_once(1)

    threading.Thread(target=follow, name="java", daemon=True).start()
    try:
        yield
    finally:
        left.set()


def exit_at_once(status: int) -> NoReturn:
    """End this process, whatever its threads are doing."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def summary(failure: str) -> str:
    """Return the reason of a failure in one line, without the stack traces and the query around it.

    >>> summary("An exception. Traceback (most recent call last):\\n  File 'x'\\nOSError: no space\\n\\nQuery")
    'OSError: no space'
    """
    lines = [line for line in failure.splitlines() if line.strip()]
    if lines and lines[0].endswith(_TRACEBACK):
        lines = [line for line in lines[1:] if not line[0].isspace()] or lines
        if lines[0].startswith(_ERROR_OF_JAVA) and len(lines) > 1:
            lines = [lines[1].removeprefix(": ")]
    return _TASK.sub("", lines[0]).rstrip(". ") if lines else failure


def remedies(failure: str) -> list[str]:
    """Return what the user can do about a failure.

    >>> remedies("an unknown error"), len(remedies("java.lang.ArithmeticException: long overflow"))
    ([], 1)
    """
    # Several signs can have the same one.
    return list(dict.fromkeys(remedy for sign, remedy in _REMEDIES.items() if sign in failure))


def is_transient(failure: str | KafkaException) -> bool:
    """Whether a restart that waits for Kafka is necessary and sufficient.

    >>> is_transient("org.apache.kafka.common.errors.TimeoutException: Timed out waiting for a node assignment.")
    True
    >>> is_transient("Some data may have been lost because they are not available in Kafka any more")
    False
    """
    if isinstance(failure, KafkaException):
        error = failure.args[0]
        return isinstance(error, KafkaError) and kafka_errors.is_transient(error)
    return any(sign in failure for sign in _TRANSIENT_ERRORS)


def restart_process() -> NoReturn:
    """Kill Java, if it runs, and replace this process by a new one with the same command line and process id."""
    kill_java()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
