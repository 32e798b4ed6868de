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
from stream_processing import aggregate, ingest, kafka_io, materialise, spark_internals

Function = Callable[..., Any]


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
    "within-append": (ingest, "append", lambda f: _within(f, 2, 0.15)),
    "after-append": (ingest, "append", lambda f: _after(f, 2)),
    "after-dead-letters": (ingest, "send_dead_letters", lambda f: _after(f, 1)),
    "within-publish": (aggregate, "write_records", lambda f: _within(f, 2, 0.2)),
    "after-publish": (aggregate, "write_records", lambda f: _after(f, 2)),
    "after-overall-row": (kafka_io.RecordSender, "send", lambda f: _after(f, 2)),
    "between-merges": (materialise, "_merge", lambda f: _after(f, 2)),
    "within-merge": (materialise, "_merge", lambda f: _within(f, 1, 0.004)),
}

CRASH_POINTS: Final = tuple(_CRASH_POINTS)

if __name__ == "__main__":
    owner, name, wrap = _CRASH_POINTS[os.environ["KILL_AT"]]
    setattr(owner, name, wrap(getattr(owner, name)))
    sys.exit(service.main())
