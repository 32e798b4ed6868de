"""Prevents two stream jobs from using the same checkpoints at the same time.

After a kill -9 of the Python process its Java process survives for a moment, in the middle of a batch. A job that
starts meanwhile has to wait for its end: if both published, an old row could follow a new one.
"""

import logging
from typing import Final

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from runtime import commands
from stream_processing.spark_internals import local_lock

logger = logging.getLogger(__name__)

_TIMEOUT: Final = 60.0


class AnotherInstanceError(Exception):
    """Another stream job uses these checkpoints."""


def claim(session: SparkSession, checkpoints: str, timeout: float = _TIMEOUT) -> JavaObject | None:
    """Lock the checkpoint folder until this Java process ends, however it ends.

    Waits `timeout` seconds for another holder, then raises `AnotherInstanceError`. Returns None, without a lock, if
    the folder is not on a file system of this machine: Spark still notices two jobs on one checkpoint, but only when
    both commit.
    """
    lock = local_lock(session, checkpoints, ".lock")
    if lock is None:
        return None
    path, try_lock = lock

    def fail(_: RetryCallState) -> None:
        remedy = commands.stop("stream_processing")
        raise AnotherInstanceError(f"another stream job holds {path}: {remedy}, or give this one its own CHECKPOINTS")

    def log_first_attempt(state: RetryCallState) -> None:
        if state.attempt_number == 1:
            logger.warning("another stream job holds %s: waiting up to %.0f s for it to end", path, timeout)

    wait = Retrying(
        retry=retry_if_result(lambda lock: lock is None),
        wait=wait_fixed(0.2),
        stop=stop_after_delay(timeout),
        before_sleep=log_first_attempt,
        retry_error_callback=fail,
    )
    return wait(try_lock)
