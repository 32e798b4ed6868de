"""The processes of the pipeline: each is watched, and started again when it has died."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from mirakuru import SimpleExecutor, TCPExecutor

from local_stack import exit_reason

_CHECK: Final = 0.2
"""Seconds between two looks at a process."""
_READY_CHECK: Final = 0.5
"""Seconds between two questions whether it is ready."""
_MAX_DEATHS: Final = 3
_DEATHS_WITHIN: Final = 60.0
"""As the demo does: a process that dies so often by itself within these seconds cannot be kept running."""
_STOP_TIMEOUT: Final = 15.0
"""Seconds after which a process that was asked to end is killed."""


@dataclass(frozen=True)
class Death:
    """The end of a process that nobody has killed."""

    process: str
    reason: str


class Process:
    """One process of the pipeline.

    It is started again whenever it has died, unless it is held. The end of a process that a fault has killed is
    expected; any other one is a `Death`.
    """

    def __init__(
        self, name: str, make: Callable[[Mapping[str, str]], TCPExecutor], log: Path, say: Callable[[str], None]
    ) -> None:
        """`make` returns an executor that is not started, given settings that take precedence over the usual ones."""
        self.name = name
        self.starts = 0
        """How often it was started."""
        self.deaths: list[Death] = []
        self.failure: str | None = None
        """Why it cannot be kept running."""
        self.settings: dict[str, str] = {}
        """Settings of its next starts, beside the usual ones."""
        self._make = make
        self._log = log
        self._say = say
        self._lock = threading.RLock()
        self._executor: TCPExecutor | None = None
        self._started: list[TCPExecutor] = []
        self._log_begin = 0
        self._is_expected_to_die = False
        self._is_ready = False
        self._holders = 0
        self._tolerances = 0
        self._died_at: list[float] = []
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=name, daemon=True)

    def start(self) -> None:
        """Start the process, and watch it from now on."""
        self._start()
        self._watcher.start()

    @property
    def is_ready(self) -> bool:
        """Whether it has answered since its latest start, and runs."""
        return self._is_ready and self._executor is not None and self._executor.running()

    @property
    def is_held(self) -> bool:
        """Whether it is not started again."""
        return self._holders > 0

    def kill(self) -> None:
        """Kill it with all of its child processes by SIGKILL."""
        with self._lock:
            self._is_expected_to_die, self._is_ready = True, False
            self._kill_and_wait()

    def kill_python(self) -> None:
        """Kill its first process alone: the Java process of a stream job is left."""
        with self._lock:
            self._is_expected_to_die, self._is_ready = True, False
            self._signal(self.pids("Python"), signal.SIGKILL)

    def kill_java(self) -> None:
        """Kill its Java process alone, which ends the first one too."""
        with self._lock:
            java = self._java()
            # None, if it has not started yet.
            self._is_expected_to_die = bool(java)
            self._signal(java, signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end by SIGTERM, and kill what is left of it after a while."""
        with self._lock:
            self._is_expected_to_die, self._is_ready = True, False
            if self._executor is None or self._executor.process is None:
                return
            process = self._executor.process
            self._signal([process.pid], signal.SIGTERM)
            deadline = time.monotonic() + _STOP_TIMEOUT
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            self._kill_and_wait()

    def pids(self, part: str = "") -> list[int]:
        """Return the ids of its processes: of all, of the first (`Python`), or of the others (`Java`)."""
        with self._lock:
            pid, java = self._pid(), self._java()
        first = [] if pid is None else [pid]
        return {"": [*first, *java], "Python": first, "Java": java}[part]

    def output(self) -> str:
        """Return what it has logged since its latest start."""
        with self._log.open("rb") as log:
            log.seek(self._log_begin)
            return log.read().decode(errors="replace")

    def hold(self) -> None:
        """Do not start it again until `release`."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Start it again if it does not run."""
        with self._lock:
            self._holders -= 1

    def tolerate(self) -> None:
        """Let it die as often as it does until `no_longer_tolerate`."""
        with self._lock:
            self._tolerances += 1

    def no_longer_tolerate(self) -> None:
        """Count its deaths again."""
        with self._lock:
            self._tolerances -= 1
            self._died_at.clear()

    def close(self) -> None:
        """End it, and everything that it has left."""
        self._closed.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for executor in self._started:
            executor.kill()

    def _kill_and_wait(self) -> None:
        processes = []
        for pid in self.pids():
            with suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(pid))
        if self._executor is not None:
            self._executor.kill()
        # The executor waits for the first one alone, and a Java process that is being ended still holds its lock.
        psutil.wait_procs(processes, _STOP_TIMEOUT)

    def _start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._executor = self._make(self.settings)
        if self._executor in self._started:
            # It does not start a second time before it has forgotten the process that has ended.
            self._executor.kill()
        else:
            self._started.append(self._executor)
        self._log_begin = self._log.stat().st_size if self._log.exists() else 0
        self._is_expected_to_die = self._is_ready = False
        self.starts += 1
        # TCPExecutor's own `start` also waits.
        SimpleExecutor.start(self._executor)

    def _watch(self) -> None:
        next_check = 0.0
        while not self._closed.wait(_CHECK):
            with self._lock:
                executor, starts = self._executor, self.starts
                if executor is None or not executor.running():
                    self._after_end()
                    continue
            if not self._is_ready and time.monotonic() > next_check:
                # Without the lock: a process that is stopped does not answer for seconds.
                is_ready = bool(executor.after_start_check())
                next_check = time.monotonic() + _READY_CHECK
                with self._lock:
                    if is_ready and starts == self.starts:
                        self._is_ready = True

    def _after_end(self) -> None:
        process = self._executor.process if self._executor is not None else None
        if process is not None and not self._is_expected_to_die:
            self._report(process.poll())
        self._is_ready, self._is_expected_to_die = False, True
        if self._holders == 0 and self.failure is None and not self._closed.is_set():
            self._start()

    def _report(self, status: int | None) -> None:
        reason = exit_reason.describe(self.name, status, self._log, self._log_begin, self._log.parents[1])
        self.deaths.append(Death(self.name, reason))
        self._say(f"ended by itself: {reason}")
        if self._tolerances:
            return
        now = time.monotonic()
        self._died_at = [*(at for at in self._died_at if now - at < _DEATHS_WITHIN), now]
        if len(self._died_at) >= _MAX_DEATHS:
            self.failure = f"{_MAX_DEATHS} times within a minute: {reason}"

    def _pid(self) -> int | None:
        process = self._executor.process if self._executor is not None else None
        return process.pid if process is not None and process.poll() is None else None

    def _java(self) -> list[int]:
        pid = self._pid()
        if pid is None:
            return []
        try:
            return [child.pid for child in psutil.Process(pid).children(recursive=True)]
        except psutil.Error:
            return []

    @staticmethod
    def _signal(pids: Iterable[int], number: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
