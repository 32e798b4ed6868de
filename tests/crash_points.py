"""A stream job that kills itself and its Java at a named point: ``KILL_AT=after-append python -m tests.crash_points``.

The job knows nothing of it: the function at whose end or in whose middle the moment lies is wrapped from here.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from pyspark import SparkContext
from stream_processing import __main__ as job
from stream_processing import aggregate, ingest, kafka_io, materialise

Wrapped = Callable[..., Any]


def _die() -> None:
    gateway = SparkContext._gateway
    assert gateway is not None
    gateway.proc.kill()
    os.kill(os.getpid(), signal.SIGKILL)


def _after(function: Wrapped, calls: int) -> Wrapped:
    """The function, at the end of whose so many-th call everything dies."""
    left = [calls]

    def wrapped(*arguments: Any, **named: Any) -> Any:
        answer = function(*arguments, **named)
        left[0] -= 1
        if left[0] == 0:
            _die()
        return answer

    return wrapped


def _within(function: Wrapped, calls: int, seconds: float) -> Wrapped:
    """The function, in the midst of whose so many-th call everything dies."""
    left = [calls]

    def wrapped(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            threading.Timer(seconds, _die).start()
        return function(*arguments, **named)

    return wrapped


_MOMENTS: Final[dict[str, tuple[Any, str, Callable[[Wrapped], Wrapped]]]] = {
    "within-append": (ingest, "append", lambda f: _within(f, 2, 0.15)),
    "after-append": (ingest, "append", lambda f: _after(f, 2)),
    "after-dead-letters": (ingest._Batches, "_send_dead_letters", lambda f: _after(f, 1)),
    "within-publish": (aggregate, "write_records", lambda f: _within(f, 2, 0.2)),
    "after-publish": (aggregate, "write_records", lambda f: _after(f, 2)),
    "after-overall-row": (kafka_io.RecordSender, "send", lambda f: _after(f, 2)),
    "between-merges": (materialise, "_merge", lambda f: _after(f, 2)),
    "within-merge": (materialise, "_merge", lambda f: _within(f, 1, 0.004)),
}

MOMENTS: Final = tuple(_MOMENTS)

if __name__ == "__main__":
    owner, name, wrap = _MOMENTS[os.environ["KILL_AT"]]
    setattr(owner, name, wrap(getattr(owner, name)))
    sys.exit(job.main())
