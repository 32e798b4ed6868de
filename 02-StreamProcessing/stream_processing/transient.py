"""Failures that pass by themselves: Kafka was away for longer than its clients wait.

Such a failure ends a query, and Spark cannot start it again in the same Java process safely: tasks and producers of
the failed batch may still publish. So Java is killed, which the job is exact across, and the whole process starts over.
"""

import os
import sys
from typing import Final, NoReturn

from confluent_kafka import KafkaError, KafkaException
from pyspark import SparkContext
from pyspark.sql.streaming.query import StreamingQuery

from runtime import kafka_errors

_JAVA_ERRORS: Final = (
    "org.apache.kafka.common.errors.TimeoutException",
    "org.apache.kafka.common.errors.DisconnectException",
    "org.apache.kafka.common.errors.NetworkException",
    "org.apache.kafka.common.errors.NotEnoughReplicas",
    "org.apache.kafka.common.errors.NotLeaderOrFollowerException",
    "org.apache.kafka.common.errors.CoordinatorNotAvailableException",
    # The broker's name is not known while its container is away.
    "No resolvable bootstrap urls given",
    # Of Spark's consumer, when it polls in vain.
    "java.util.concurrent.TimeoutException: Cannot fetch record",
    # Of librdkafka, within a batch.
    "KafkaError{code=_TIMED_OUT",
    "KafkaError{code=_TRANSPORT",
)
"""As the causes of a query's failure name them."""
_UNDELIVERED: Final = "records were not delivered: Local: Message timed out"
"""Of the driver's own sender (`kafka_io.RecordSender`), as Java quotes it."""


def failure_of(query: StreamingQuery) -> str:
    """Why a query has ended: its error, and behind it those that caused it, as far as they say anything else."""
    said = str(query.exception() or "it was stopped")
    error = query._jsq.exception()
    cause = error.get() if error.isDefined() else None
    causes = []
    while cause is not None:
        text = str(cause.toString())
        if text not in said:
            causes.append(text)
        cause = cause.getCause()
    return "\ncaused by: ".join([said, *causes])


def is_transient(failure: str | KafkaException) -> bool:
    """Whether starting over, and waiting for Kafka, is all that can be done and enough.

    >>> is_transient("org.apache.kafka.common.errors.TimeoutException: Timed out waiting for a node assignment.")
    True
    >>> is_transient("Some data may have been lost because they are not available in Kafka any more")
    False
    """
    if isinstance(failure, KafkaException):
        error = failure.args[0]
        return isinstance(error, KafkaError) and kafka_errors.is_transient(error)
    return any(sign in failure for sign in (*_JAVA_ERRORS, _UNDELIVERED))


def start_over() -> NoReturn:
    """Kill Java, if there is one, and become a new process of the same command line: it has the same process id."""
    gateway = SparkContext._gateway
    if gateway is not None:
        gateway.proc.kill()
        gateway.proc.wait()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
