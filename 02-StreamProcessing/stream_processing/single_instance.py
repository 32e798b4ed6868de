"""Keeps a second stream job from working on the same checkpoints at the same time.

After a kill -9 of the Python process its Java process lives on for a moment, in the middle of a batch.
Whoever starts meanwhile has to wait for it, or both would publish: an old row after a new one.
"""

import logging
from typing import Final

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from runtime import commands

logger = logging.getLogger(__name__)

_PATIENCE: Final = 60.0


class AnotherInstanceError(Exception):
    """Another stream job works on these checkpoints."""


def claim(session: SparkSession, checkpoints: str, patience: float = _PATIENCE) -> JavaObject | None:
    """Hold a lock in the checkpoints' folder until this Java process ends, however it ends.

    Waits `patience` seconds for another holder, then raises `AnotherInstanceError`. Where the folder is on no
    file system of this machine there is no such lock, and the answer is None: Spark still notices two
    jobs on one checkpoint, but only when both commit.
    """
    jvm = session._jvm
    assert jvm is not None
    folder = jvm.org.apache.hadoop.fs.Path(checkpoints)
    file_system = folder.getFileSystem(session._jsc.hadoopConfiguration())
    if file_system.getScheme() != "file":
        return None
    file_system.mkdirs(folder)
    path = file_system.makeQualified(folder).toUri().getPath() + "/.lock"
    channel = jvm.java.io.RandomAccessFile(path, "rw").getChannel()

    def give_up(_: RetryCallState) -> None:
        remedy = commands.stop("stream_processing")
        raise AnotherInstanceError(f"another stream job holds {path}: {remedy}, or give this one its own CHECKPOINTS")

    def report(state: RetryCallState) -> None:
        if state.attempt_number == 1:
            logger.warning("another stream job holds %s: waiting up to %.0f s for its end", path, patience)

    wait = Retrying(
        retry=retry_if_result(lambda lock: lock is None),
        wait=wait_fixed(0.2),
        stop=stop_after_delay(patience),
        before_sleep=report,
        retry_error_callback=give_up,
    )
    return wait(channel.tryLock)
