"""The processes of the local stack that started the page: lists and kills them."""

import time
from pathlib import Path
from typing import Final

import psutil

from live_page.sources.producer import RefusedError
from observer.processes import ProcessList

_SAME_START: Final = 1.0
"""Seconds by which two readings of one process's start can differ: the clock may have been set."""
_PAGE: Final = "live_page"


class Processes:
    """Reads the stack's list of processes; elsewhere there is none, and nothing can be killed."""

    def __init__(self, file: str) -> None:
        """Create it for the file of the setting PROCESSES_FILE; empty: elsewhere."""
        self._file = Path(file) if file else None

    @property
    def is_local(self) -> bool:
        """Whether a local stack has started the page."""
        return self._file is not None

    def read(self) -> ProcessList:
        """Return the processes and deaths; none elsewhere, and while the stack starts or stops."""
        return ProcessList() if self._file is None else ProcessList.read(self._file)

    def kill(self, name: str) -> None:
        """Send SIGKILL to a process of the stack; raises `RefusedError`."""
        if not self.is_local:
            raise RefusedError("only the processes of a local stack can be killed here: PROCESSES_FILE is not set")
        listed = self.read()
        if reason := kill_refusal(listed, name):
            raise RefusedError(f"{name}: {reason}")
        state = listed.processes[name]
        try:
            process = psutil.Process(state.pid)
            is_same = abs(process.create_time() - state.started) < _SAME_START
            if not is_same or process.status() == psutil.STATUS_ZOMBIE:
                raise RefusedError(f"{name} does not run")
            process.kill()
        except psutil.NoSuchProcess:
            raise RefusedError(f"{name} does not run") from None
        except psutil.AccessDenied:
            raise RefusedError(f"{name} belongs to another user") from None


def kill_refusal(listed: ProcessList, name: str) -> str:
    """Return why a process cannot be killed now; empty if it can be."""
    state = listed.processes.get(name)
    if state is None:
        return "not running"
    if seconds := listed.seconds_until_kill(name, time.time()):
        ended = "page" if name == _PAGE else "demo"
        return f"a third death within a minute would end the {ended}: enabled in {seconds:.0f} s"
    return "" if state.is_ready else "starting again"
