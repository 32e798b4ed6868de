"""A stream job that kills itself and its Java at a named point: ``KILL_AT=after-append python -m tests.crash_points``.

It wraps the job's function that the crash point is in; the job itself has no code for it.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from stream_processing import __main__ as service
from stream_processing import aggregate, ingest, kafka_io, materialise, spark_internals, table_writer
from stream_processing.counts import Counts
from stream_processing.row_publisher import RowPublisher
from stream_processing.snapshots import Snapshots

from local_stack.services import STREAM, Service

Function = Callable[..., Any]
CRASHING_STREAM: Final = Service("tests.crash_points", STREAM.port_setting, STREAM.port)


def _die() -> None:
    process = spark_internals.java_process()
    assert process is not None
    process.kill()
    os.kill(os.getpid(), signal.SIGKILL)


def _after(function: Function, n: int) -> Function:
    """Return the function, with a crash at the end of its n-th call."""
    remaining = [n]

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        result = function(*arguments, **keywords)
        remaining[0] -= 1
        if remaining[0] == 0:
            _die()
        return result

    return wrapped


def _within(function: Function, n: int, seconds: float) -> Function:
    """Return the function, with a crash `seconds` after the start of its n-th call."""
    remaining = [n]

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        remaining[0] -= 1
        if remaining[0] == 0:
            threading.Timer(seconds, _die).start()
        return function(*arguments, **keywords)

    return wrapped


_CRASH_POINTS: Final[dict[str, tuple[Any, str, Callable[[Function], Function]]]] = {
    "within-append": (ingest, "append_rows", lambda f: _within(f, 2, 0.004)),
    "after-append": (ingest, "append_rows", lambda f: _after(f, 2)),
    "within-append-by-spark": (ingest, "append", lambda f: _within(f, 2, 0.15)),
    "after-append-by-spark": (ingest, "append", lambda f: _after(f, 2)),
    "after-dead-letters": (ingest, "send_dead_letters", lambda f: _after(f, 1)),
    "after-count": (Counts, "add", lambda f: _after(f, 2)),
    "between-publishes": (RowPublisher, "publish", lambda f: _after(f, 2)),
    "within-publish": (RowPublisher, "publish", lambda f: _within(f, 4, 0.001)),
    "after-publish": (RowPublisher, "publish", lambda f: _after(f, 6)),
    "between-merges": (table_writer, "merge_rows", lambda f: _after(f, 2)),
    "within-merge": (table_writer, "merge_rows", lambda f: _within(f, 1, 0.004)),
    "before-snapshot": (table_writer, "merge_rows", lambda f: _after(f, 3)),
    "within-snapshot": (Snapshots, "save", lambda f: _within(f, 1, 0.004)),
    "between-snapshots": (Snapshots, "save", lambda f: _after(f, 1)),
    "after-snapshots": (Snapshots, "save", lambda f: _after(f, 2)),
    "within-publish-by-spark": (aggregate, "write_records", lambda f: _within(f, 2, 0.2)),
    "after-publish-by-spark": (aggregate, "write_records", lambda f: _after(f, 2)),
    "after-overall-row-by-spark": (kafka_io.RecordSender, "send", lambda f: _after(f, 2)),
    "between-merges-by-spark": (materialise, "_merge", lambda f: _after(f, 2)),
    "within-merge-by-spark": (materialise, "_merge", lambda f: _within(f, 1, 0.004)),
}

_BY_SPARK: Final = "-by-spark"
NEVER_BY_SPARK: Final = "never-by-spark"
"""No crash, and every batch is a large one."""
_OF_INGEST: Final = tuple(name for name, (owner, _, _) in _CRASH_POINTS.items() if owner is ingest)
_OF_BOTH: Final = "after-append"
CRASH_POINTS: Final = {
    "memory": tuple(name for name in _CRASH_POINTS if name in _OF_INGEST or not name.endswith(_BY_SPARK)),
    "rocksdb": tuple(
        name for name in _CRASH_POINTS if name == _OF_BOTH or (name.endswith(_BY_SPARK) and name not in _OF_INGEST)
    ),
}
"""The crash points by STATE_STORE; of those of ingest, which is the same for both, one is tried with both."""

if __name__ == "__main__":
    crash_point = os.environ["KILL_AT"]
    if crash_point != NEVER_BY_SPARK:
        owner, name, wrap = _CRASH_POINTS[crash_point]
        setattr(owner, name, wrap(getattr(owner, name)))
    if crash_point == NEVER_BY_SPARK or (crash_point in _OF_INGEST and crash_point.endswith(_BY_SPARK)):
        # Every batch is a large one.
        vars(ingest)["_MAX_COLLECTED_RECORDS"] = 0
    sys.exit(service.main())
