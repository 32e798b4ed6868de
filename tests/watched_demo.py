"""Shows the live view of a demo without servers in its terminal: ``python -m tests.watched_demo DATA PRODUCER_PORT``.

With `--background` it does so in a process group that is not in the foreground of the terminal, for a second. With
`--shell` it does so under a shell that sets no modes of the terminal, and continues what was suspended after a line of
input: in the background after `bg`, until another line; on SIGUSR1 the shell is in the foreground again before it
suspends.
"""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import cast

from local_stack import demo
from local_stack.plan import Plan
from local_stack.process_file import ProcessFile
from local_stack.services import PRODUCER
from local_stack.terminal import Console
from observer.services import OK
from observer.snapshot import Observer, Snapshot


class _Observer:
    """Returns the same snapshot at any time, and writes a file each time."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def snapshot(self) -> Snapshot:
        (self._data / "observed").touch()
        return Snapshot(sent=1, health={"Kafka": OK})


def _show(data: Path, producer_port: int, seconds: float | None) -> None:
    plan = Plan(data, seconds=seconds)
    plan = replace(plan, service_ports={**plan.service_ports, PRODUCER.package: producer_port})
    with ProcessFile(plan.processes_file, []) as process_file:
        demo._watch(plan, [], process_file, cast(Observer, _Observer(data)), Console(), threading.Event())
    print("stopped")


def _run_in_shell(command: list[str]) -> int:
    child = subprocess.Popen(command, process_group=0)
    _set_foreground(child.pid)

    def suspend(*_: object) -> None:
        # As under make, which is suspended before the demo is.
        _set_foreground(os.getpgrp())
        os.killpg(child.pid, signal.SIGTSTP)

    signal.signal(signal.SIGUSR1, suspend)
    while os.WIFSTOPPED(status := os.waitpid(child.pid, os.WUNTRACED)[1]):
        _set_foreground(os.getpgrp())
        print("suspended", flush=True)
        if sys.stdin.readline() == "bg\n":
            os.killpg(child.pid, signal.SIGCONT)
            sys.stdin.readline()
        _set_foreground(child.pid)
        os.killpg(child.pid, signal.SIGCONT)
    return os.waitstatus_to_exitcode(status)


def _set_foreground(group: int) -> None:
    # From the background this would suspend the shell.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    os.tcsetpgrp(sys.stdin.fileno(), group)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})


def _main(data: str, port: str, mode: str = "") -> int:
    if mode == "--background":
        command = [sys.executable, "-m", "tests.watched_demo", data, port, "--second"]
        return subprocess.run(command, check=False, process_group=0).returncode
    if mode == "--shell":
        return _run_in_shell([sys.executable, "-m", "tests.watched_demo", data, port, "--in-shell"])
    _show(Path(data), int(port), seconds=1.0 if mode == "--second" else None)
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
