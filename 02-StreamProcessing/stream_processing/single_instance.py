"""Prevents two stream jobs from using the same checkpoints at the same time.

After a kill -9 of the Python process its Java process survives for a moment, in the middle of a batch. A job that
starts meanwhile has to wait for its end: if both published, an old row could follow a new one. On a file system Java
holds a lock until it ends; in an object store the job renews a `lease`.
"""

import fcntl
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Protocol
from urllib.parse import urlsplit

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

from contract.dead_letters import truncated
from runtime import commands
from runtime.topic_admin import interruptible_sleep
from stream_processing.failures import exit_at_once
from stream_processing.lease import LEASE, ConditionalStore, Lease, LeaseKeeper, StoreError, enforces_conditions
from stream_processing.spark_internals import java_process, local_lock, object_store

logger = logging.getLogger(__name__)

_TIMEOUT: Final = 60.0
COMMAND_TIMEOUT: Final = 2.0
"""Seconds; enough for the Java process of a job that was killed."""
_STORE_TIMEOUT: Final = 20.0
"""Seconds for an object store to answer; the first requests of a Java process are the slowest."""
_LOCK_FILE: Final = ".lock"


class AnotherInstanceError(Exception):
    """Another stream job uses these checkpoints."""


class CheckpointsError(Exception):
    """The folder of the checkpoints cannot be used; the message names the setting and the reason."""


class Claim(Protocol):
    """The right to use the checkpoints, until this process and Java have ended, or it is released."""

    def require_held(self) -> None:
        """End this process if another job may use the checkpoints by now; to be called before each write."""

    def release(self) -> None:
        """Let the next job start at once; only when nothing is left that writes."""


@dataclass(frozen=True)
class _UntilJavaEnds:
    """Nothing can take it away: the lock is that of the Java process. None if there is no lock at all."""

    lock: JavaObject | None

    def require_held(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing: the end of Java does it."""


def claim(session: SparkSession, checkpoints: str, stop: threading.Event, timeout: float = _TIMEOUT) -> Claim:
    """Claim the folder of the checkpoints for this job or command.

    Waits `timeout` seconds for another holder, then raises `AnotherInstanceError`; `StoppedError` as soon as `stop` is
    set. Whether a lease in an object store is still renewed shows only after seconds, so there it can take longer; then
    it can also raise `CheckpointsError`.

    If neither lock nor lease is possible, it is claimed with a warning: Spark still notices two jobs on one checkpoint,
    but only when both commit.
    """
    lock = local_lock(session, checkpoints, _LOCK_FILE)
    if lock is not None:
        return _UntilJavaEnds(_wait_for_lock(*lock, stop, timeout))
    try:
        store = object_store(session, checkpoints)
        if store is not None and _retried(enforces_conditions, store, stop):
            location = f"{checkpoints.rstrip('/')}/{LEASE}"
            return LeaseKeeper(_wait_for_lease(Lease(store), location, stop, timeout), location, _end_job)
    except StoreError as error:
        raise _unusable(checkpoints, error) from None
    logger.warning(
        "nothing keeps a second stream job or command off CHECKPOINTS=%s: that needs a file system of this machine, or"
        " an object store (s3a://) that enforces If-None-Match and If-Match. Start one only when the other has"
        " certainly ended: two would publish old rows after new ones",
        truncated(checkpoints),
    )
    return _UntilJavaEnds(None)


def _wait_for_lock(
    path: str, try_lock: Callable[[], JavaObject | None], stop: threading.Event, timeout: float
) -> JavaObject | None:
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


def _retried(request: Callable[[ConditionalStore], bool], store: ConditionalStore, stop: threading.Event) -> bool:
    return Retrying(
        retry=retry_if_exception_type(StoreError),
        wait=wait_fixed(1),
        sleep=interruptible_sleep(stop),
        stop=stop_after_delay(_STORE_TIMEOUT),
        reraise=True,
    )(request, store)


def _wait_for_lease(lease: Lease, location: str, stop: threading.Event, timeout: float) -> Lease:
    """Take the lease, and wait for that as long as it can still expire."""
    timing = lease.timing
    started = time.monotonic()
    is_waiting = False
    while True:
        waited = time.monotonic() - started
        try:
            if lease.try_take():
                break
            if waited >= timeout and lease.is_in_use:
                raise _error(location, str(lease.holder))
        except StoreError:
            if waited >= timeout + timing.duration:
                raise
        if lease.holder is not None and not is_waiting:
            is_waiting = True
            logger.warning(
                "another stream job holds %s (%s): waiting up to %.0f s for it to end, or for the lease to expire",
                location, lease.holder, timeout + timing.duration,
            )  # fmt: skip
        interruptible_sleep(stop)(timing.retry)
    logger.info(
        "holds the lease %s as number %d%s",
        location, lease.number, f", after {time.monotonic() - started:.0f} s" if is_waiting else "",
    )  # fmt: skip
    return lease


def _end_job(why: str) -> NoReturn:
    # Java first: it may be in the middle of a commit.
    java = java_process()
    if java is not None:
        java.kill()
    logger.error(
        "%s. This job has ended; nothing is lost: the next start waits for the lease, and repeats what was not"
        " committed",
        why,
    )
    exit_at_once(1)


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


def _error(path: str, holder: str = "") -> AnotherInstanceError:
    remedy = commands.stop("stream_processing")
    by = f" ({holder})" if holder else ""
    return AnotherInstanceError(f"another stream job holds {path}{by}: {remedy}, or give this one its own CHECKPOINTS")
