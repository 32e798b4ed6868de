"""A terminal that closes stops the stack, and does not interrupt how it stops."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import psutil
import pytest
import rich.console

from local_stack import __main__ as stack
from local_stack import demo, services
from local_stack.terminal import Console

pytestmark = pytest.mark.usefixtures("signal_handlers")


def test_a_closed_terminal_interrupts_the_start_once() -> None:
    stop = stack._stop_on_signal()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)
    assert stop.wait(5)
    # The shell and the kernel each send it.
    signal.raise_signal(signal.SIGHUP)


def test_a_closed_terminal_stops_the_running_demo() -> None:
    stop = threading.Event()
    with demo._signals_only_set(stop):
        signal.raise_signal(signal.SIGHUP)
    assert stop.wait(5)


def test_what_is_printed_to_a_closed_terminal_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        console = Console()
        assert console.is_terminal
        console.print("ready")
        assert os.read(controller, 100) == b"ready\r\n"
        os.close(controller)
        console.print("stopping")
        console.print("stopped")


def test_what_is_printed_to_a_program_that_has_ended_is_discarded() -> None:
    program = (
        "from local_stack.terminal import Console; c = Console(); input(); c.print('stopping'); c.print('stopped')"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(b"\n", timeout=30)
    assert (process.returncode, errors) == (0, b"")


def test_a_class_archive_that_ignores_its_interruption_is_killed_with_its_java(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a background job of a shell script. Its Java has a process group of its own.
    script = (
        "import os, signal, subprocess; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        " java = subprocess.Popen(['sleep', '60'], preexec_fn=os.setpgrp); print(java.pid, flush=True); signal.pause()"
    )
    archiving = subprocess.Popen(
        [sys.executable, "-I", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert archiving.stdout is not None
    java = psutil.Process(int(archiving.stdout.readline()))
    monkeypatch.setattr(services, "_has_cds_archive", lambda: False)
    monkeypatch.setattr(services, "_start_archiving", lambda *_, **__: archiving)
    monkeypatch.setattr(services, "_CANCEL_TIMEOUT", 0.01)
    with services.cds_archive_in_background(tmp_path, Console()):
        assert java.is_running()
    assert archiving.returncode == -signal.SIGKILL
    end = time.monotonic() + 10
    with contextlib.suppress(psutil.NoSuchProcess):
        while java.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.001)


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("import sys; print('first'); sys.exit('OSError: no space')", "has ended with status 1: OSError: no space"),
        ("", ""),
        ("import time; time.sleep(60)", ""),
    ],
    ids=["failed", "done", "cancelled"],
)
def test_a_class_archive_that_cannot_be_created_is_reported_with_a_log_that_has_its_output(
    script: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: Path, log: IO[str], **__: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-I", "-c", script]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        if "sleep" not in script:
            process.wait()
        return process

    monkeypatch.setattr(services, "_has_cds_archive", lambda: False)
    monkeypatch.setattr(services, "_start_archiving", start)
    log = tmp_path / "logs" / "class_archive.log"
    log.parent.mkdir()
    log.write_text("Error: of an earlier start\n")
    terminal = io.StringIO()
    with services.cds_archive_in_background(tmp_path, rich.console.Console(file=terminal, width=20)):
        pass
    line = f"the stream job will start slower: the creation of its class archive {printed} (log: {log})\n"
    assert terminal.getvalue() == (line if printed else "")
    assert ("first" in log.read_text()) == bool(printed)
