"""A process that the stack starts, watches and stops."""

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
from mirakuru import SimpleExecutor, TCPExecutor
from mirakuru.exceptions import ProcessFinishedWithError
from rich.console import Console
from rich.text import Text

from local_stack import exit_reason
from local_stack.plan import StackError
from observer.processes import DEATHS_WITHIN, MAX_DEATHS, Death, ProcessState


class ManagedProcess:
    """One process with its log, which is started again if it dies after it was ready.

    An optional one may fail without ending the stack, and one that `may_end` may end by itself with status 0, as a
    replay does.
    """

    def __init__(
        self,
        name: str,
        executor: TCPExecutor,
        data: Path,
        address: str,
        *,
        log: str | None = None,
        optional: bool = False,
        may_end: bool = False,
    ) -> None:
        self.name = name
        self.has_ended = False
        """Whether it has ended by itself with status 0."""
        self.deaths: list[Death] = []
        """Those after which it was started again."""
        self._executor = executor
        self._address = address
        self._data = data
        self._log = data / "logs" / f"{log or name}.log"
        self._log_begin = self._log.stat().st_size
        self._optional = optional
        self._may_end = may_end
        self._has_failed = False
        self._started_at = 0.0
        self._was_ready = False
        self._is_starting_again = False
        self._death_times: list[float] = []
        """The recent ones, of a clock that never goes back."""

    def start(self) -> None:
        """Start the process, without waiting until it is ready."""
        self._started_at = time.monotonic()
        # TCPExecutor's own `start` also waits.
        SimpleExecutor.start(self._executor)

    def is_ready(self, console: Console) -> bool:
        """Whether it answers or, if optional, has failed; prints which. Raises `StackError` if it cannot get ready."""
        self.require_running(console)
        if self._has_failed or self.has_ended:
            return True
        if not self._answers(console):
            return self._has_failed
        self._was_ready = True
        line = f"{self.name:<26} {self._address:<28} {time.monotonic() - self._started_at:5.1f} s"
        console.print(Text.assemble("  ", ("ready", "green"), f" {line}"), soft_wrap=True)
        return True

    def _answers(self, console: Console) -> bool:
        """Whether it answers; it has failed if it does not in time after its start."""
        if self._executor.after_start_check():
            # Errors from before it was ready, such as a server that did not answer yet, do not explain a later exit.
            self._log_begin = self._log.stat().st_size
            return True
        if time.monotonic() - self._started_at > self._executor._timeout:
            self._fail(None, console)
        return False

    def require_running(self, console: Console) -> None:
        """Start it again if it has died, and print that; print when it is ready again.

        Raises `StackError` if it died before it was ready, or too often; an optional one is given up then.
        """
        if self._has_failed or self.has_ended:
            return
        if self._executor.running():
            if self._is_starting_again:
                self._is_starting_again = not self._is_ready_again(console)
            return
        process = self._executor.process
        status = process.poll() if process is not None else None
        if self._may_end and status == 0:
            self.has_ended = True
            last_line = exit_reason.last_line(self._log, self._log_begin)
            console.print(
                Text.assemble((f"{self.name} has sent everything:", "green"), f" {last_line}"), soft_wrap=True
            )
        elif self._was_ready and self._may_start_again():
            self._start_again(status, console)
        else:
            self._fail(status, console)

    def _may_start_again(self) -> bool:
        now = time.monotonic()
        self._death_times = [*(at for at in self._death_times if now - at < DEATHS_WITHIN), now]
        return len(self._death_times) < MAX_DEATHS

    def _start_again(self, status: int | None, console: Console) -> None:
        reason = self._reason(status)
        self.deaths.append(Death(self.name, time.time(), reason))
        console.print(Text.assemble(("starting again:", "yellow"), f" {reason}"), soft_wrap=True)
        # Also ends what is left of it, such as the Java process of a job whose Python process was killed.
        self._executor.kill()
        self._log_begin = self._log.stat().st_size
        self._is_starting_again = True
        self.start()

    def _is_ready_again(self, console: Console) -> bool:
        """Whether it answers after a death; prints that."""
        if not self._answers(console):
            return self._has_failed
        seconds = time.monotonic() - self._death_times[-1]
        self.deaths[-1] = replace(self.deaths[-1], seconds=round(seconds, 1))
        console.print(Text.assemble(("ready again", "green"), f" {self.name} after {seconds:.1f} s"), soft_wrap=True)
        return True

    def stop(self) -> None:
        """Stop the process if it runs, and wait until it has ended."""
        with contextlib.suppress(ProcessFinishedWithError):
            self._executor.stop()

    def state(self) -> ProcessState | None:
        """Return the state of the process whose death ends it; None if it does not run."""
        process = self._executor.process
        if process is None or self._has_failed or self.has_ended:
            return None
        try:
            started = psutil.Process(process.pid).create_time()
        except psutil.Error:
            return None
        return ProcessState(process.pid, started, is_ready=self._was_ready and not self._is_starting_again)

    def memory(self) -> int:
        """Return the resident bytes of the process and its children."""
        if self._executor.process is None:
            return 0
        try:
            process = psutil.Process(self._executor.process.pid)
            return sum(map(_resident_bytes, [process, *process.children(recursive=True)]))
        except psutil.NoSuchProcess:
            return 0

    def _reason(self, status: int | None) -> str:
        return exit_reason.describe(self.name, status, self._log, self._log_begin, self._data)

    def _fail(self, status: int | None, console: Console) -> None:
        often = f"{MAX_DEATHS} times within a minute: " if len(self._death_times) >= MAX_DEATHS else ""
        reason = often + self._reason(status)
        if not self._optional:
            raise StackError(reason)
        self._has_failed = True
        console.print(Text.assemble(("the pipeline goes on without it:", "yellow"), f" {reason}"), soft_wrap=True)


def require_running(processes: Iterable[ManagedProcess], console: Console) -> None:
    """Start processes again that have died; raises `StackError` for the first that cannot be."""
    for process in processes:
        process.require_running(console)


def start_in_parallel(
    processes: Sequence[ManagedProcess],
    awaited: Sequence[ManagedProcess],
    console: Console,
    needed: Sequence[ManagedProcess] = (),
) -> None:
    """Start `processes` and wait until all `awaited` are ready, while `needed` run. Raises `StackError`."""
    for process in processes:
        process.start()
    waiting = list(awaited)
    while waiting:
        # A server that has ended is the reason why others do not get ready, so it is reported first.
        require_running([*needed, *processes], console)
        waiting = [process for process in waiting if not process.is_ready(console)]
        time.sleep(0.1)


def _resident_bytes(process: psutil.Process) -> int:
    """Return the resident bytes of the process, 0 if it has ended since it was listed."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
