"""Marks the processes that this one starts, so that its end ends them, and no others.

mirakuru marks a process with the id of its parent and a random UUID, in a variable of its environment. At its exit it
kills every process whose mark contains its own id as text, and 374 is in 13742 and in some UUIDs: the end of one stack
or test run could kill a process of another. Here a mark has no digits, and the exit compares marks as a whole.
"""

import atexit
import os
import uuid
from contextlib import suppress
from typing import Final, TypeVar

import psutil
from mirakuru import SimpleExecutor
from mirakuru.base import ENV_UUID, cleanup_subprocesses

Executor = TypeVar("Executor", bound=SimpleExecutor)

_LETTERS: Final = str.maketrans("0123456789-", "ghijklmnopq")


def _random_letters() -> str:
    return str(uuid.uuid4()).translate(_LETTERS)


_PID: Final = os.getpid()
_PREFIX: Final = _random_letters()


def marked(executor: Executor) -> Executor:
    """Return the executor, whose process will have a mark that no id of a process is part of."""
    executor._uuid = _PREFIX + _random_letters()
    return executor


def is_own(mark: str) -> bool:
    """Whether this process has started the one with this mark, with `marked` or without."""
    return mark.startswith((_PREFIX, f"{_PID}:"))


def _kill_own() -> None:
    if os.getpid() != _PID:  # A fork.
        return
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if is_own(process.environ().get(ENV_UUID, "")):
                process.kill()


atexit.unregister(cleanup_subprocesses)
atexit.register(_kill_own)
