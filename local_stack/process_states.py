"""Reads health, memory and uptime of the processes of the stack."""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from local_stack.managed_process import ManagedProcess
from local_stack.sections import HAS_ENDED
from observer.services import OK
from observer.status import Part

_MEMORY_SECONDS: Final = 5.0
"""Between two measurements of the memory: finding all children of a process reads every process of the machine."""


class ProcessStates:
    """Reads the states of processes."""

    def __init__(self, processes: Sequence[ManagedProcess]) -> None:
        self._processes = processes
        self._memory: Mapping[str, int] = {}
        self._measured_at = -_MEMORY_SECONDS

    def read(self, health: Mapping[str, str], at: float) -> list[Part]:
        """Return each process with its state, that of `health` if it runs; `at` is the time of a monotonic clock."""
        if at - self._measured_at >= _MEMORY_SECONDS:
            self._measured_at = at
            self._memory = {process.name: process.memory() for process in self._processes}
        return [self._part(process, health.get(process.name, OK)) for process in self._processes]

    def _part(self, process: ManagedProcess, health: str) -> Part:
        state = process.state()
        if state is None:
            return Part(process.name, HAS_ENDED if process.has_ended else "does not run", answers=False)
        return Part(
            process.name,
            health if state.is_ready else "starting again",
            answers=state.is_ready and health == OK,
            memory=self._memory.get(process.name) or None,
            uptime=max(0.0, time.time() - state.started),
        )
