"""Keeps the file up to date in which the live page finds the processes of the stack."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from local_stack.managed_process import ManagedProcess
from observer.processes import ProcessList

_MAX_DEATHS: Final = 100
"""The latest deaths that are listed."""


class ProcessFile:
    """The file exists during the `with` block, and has what `update` has found last."""

    def __init__(self, path: Path, processes: Sequence[ManagedProcess]) -> None:
        self._path = path
        self._processes = processes
        self._written: ProcessList | None = None

    def __enter__(self) -> Self:
        self.update()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)

    def update(self) -> None:
        """Write the file if a process was started, has become ready, or has died."""
        states = {process.name: process.state() for process in self._processes}
        deaths = sorted((death for each in self._processes for death in each.deaths), key=lambda death: death.at)
        found = ProcessList(
            {name: state for name, state in states.items() if state is not None}, tuple(deaths[-_MAX_DEATHS:])
        )
        if found != self._written:
            found.write(self._path)
            self._written = found
