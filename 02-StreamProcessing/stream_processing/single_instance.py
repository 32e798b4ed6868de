"""Prevents two stream jobs from using the same checkpoints at the same time.

After a kill -9 of the Python process its Java process survives for a moment, in the middle of a batch. A job that
starts meanwhile has to wait for its end: if both published, an old row could follow a new one.
"""

import fcntl
import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from contract.dead_letters import truncated
from runtime import commands
from runtime.topic_admin import interruptible_sleep
from stream_processing.spark_internals import local_lock

logger = logging.getLogger(__name__)

_TIMEOUT: Final = 60.0
COMMAND_TIMEOUT: Final = 2.0
"""Seconds; enough for the Java process of a job that was killed."""
_LOCK_FILE: Final = ".lock"


class AnotherInstanceError(Exception):
    """Another stream job uses these checkpoints."""


class CheckpointsError(Exception):
    """The folder of the checkpoints cannot be used; the message names the setting and the reason."""


def claim(
    session: SparkSession, checkpoints: str, stop: threading.Event, timeout: float = _TIMEOUT
) -> JavaObject | None:
    """Lock the checkpoint folder until this Java process ends, however it ends.

    Waits `timeout` seconds for another holder, then raises `AnotherInstanceError`; `StoppedError` as soon as `stop` is
    set. Returns None, without a lock and with a warning, if the folder is not on a file system of this machine: Spark
    still notices two jobs on one checkpoint, but only when both commit.
    """
    lock = local_lock(session, checkpoints, _LOCK_FILE)
    if lock is None:
        logger.warning(
            "nothing keeps a second stream job or command off CHECKPOINTS=%s: a lock needs a file system of this"
            " machine. Start one only when the other has certainly ended: two would publish old rows after new ones",
            truncated(checkpoints),
        )
        return None
    path, try_lock = lock

    def fail(_: RetryCallState) -> None:
        raise _error(path)

    def log_first_attempt(state: RetryCallState) -> None:
        if state.attempt_number == 1:
            logger.warning("another stream job holds %s: waiting up to %.0f s for it to end", path, timeout)

    wait = Retrying(
        retry=retry_if_result(lambda lock: lock is None),
        wait=wait_fixed(0.2),
        sleep=interruptible_sleep(stop),
        stop=stop_after_delay(timeout),
        before_sleep=log_first_attempt,
        retry_error_callback=fail,
    )
    return wait(try_lock)


def require_unclaimed(checkpoints: str, timeout: float = COMMAND_TIMEOUT) -> None:
    """Raise `AnotherInstanceError` if another stream job uses the checkpoints, without starting Java.

    Only a command asks this, before its own `claim`, so that it fails at once. Raises `CheckpointsError`.
    """
    try:
        path = _existing_lock(checkpoints)
    except (OSError, ValueError) as error:
        raise _unusable(checkpoints, error) from None
    if path is None:
        return

    def fail(_: RetryCallState) -> None:
        raise _error(str(path))

    Retrying(
        retry=retry_if_result(lambda is_free: not is_free),
        wait=wait_fixed(0.2),
        stop=stop_after_delay(timeout),
        retry_error_callback=fail,
    )(_is_free, path)


def _existing_lock(checkpoints: str) -> Path | None:
    location = urlsplit(checkpoints)
    if location.scheme not in ("", "file"):
        return None
    path = Path(location.path if location.scheme == "file" else checkpoints, _LOCK_FILE)
    # Opened already here: `exists` hides some errors.
    with suppress(FileNotFoundError), path.open("r+b"):
        return path
    return None


def _is_free(lock: Path) -> bool:
    # Java's locks are those of fcntl: they belong to a process, and its end releases them.
    with lock.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def _unusable(checkpoints: str, error: Exception) -> CheckpointsError:
    reason = error.strerror if isinstance(error, OSError) else error
    return CheckpointsError(f"CHECKPOINTS={truncated(checkpoints)!r} cannot be used: {reason}")


def _error(path: str) -> AnotherInstanceError:
    remedy = commands.stop("stream_processing")
    return AnotherInstanceError(f"another stream job holds {path}: {remedy}, or give this one its own CHECKPOINTS")
