import argparse
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from local_stack.servers import free_port
from local_stack.services import ROOT
from runtime.signals import StoppedError, end_on_interrupt, stop_on_signal, stop_signals, wait_for

pytestmark = pytest.mark.usefixtures("signal_handlers")

_PROGRAMS = sorted({str(file.parent.relative_to(ROOT)) for file in ROOT.glob("[!.]*/**/__main__.py")})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    stop = stop_on_signal()
    assert not stop.is_set()
    signal.raise_signal(number)
    assert stop.wait(5)


def test_a_signal_that_interrupts_the_event_itself_sets_it_afterwards() -> None:
    stop = stop_on_signal()
    # As in the first lines of `Event.wait`.
    with stop._cond:  # type: ignore[attr-defined]
        signal.raise_signal(signal.SIGTERM)
        assert not stop.is_set()
    assert stop.wait(5)


def test_waiting_for_results_ends_with_the_first_error() -> None:
    failed: Future[None] = Future()
    failed.set_exception(OSError("no Java"))
    with pytest.raises(OSError, match="no Java"):
        wait_for(threading.Event(), Future(), failed)


def test_waiting_for_results_ends_with_a_signal() -> None:
    stop = stop_on_signal()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(StoppedError):
        wait_for(stop, Future())


def test_results_that_are_there_are_no_wait() -> None:
    done: Future[int] = Future()
    done.set_result(1)
    stop = threading.Event()
    stop.set()
    wait_for(stop, done)


def test_a_closed_terminal_does_not_stop_a_program_that_nohup_has_started() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_on_signal()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.SIGHUP not in stop_signals()


def test_all_programs_are_found() -> None:
    assert {"local_stack", "live_page", "benchmarks", "01-DataProducer/data_producer"} < set(_PROGRAMS)


@pytest.mark.parametrize("imported", [1, 30])
@pytest.mark.parametrize("program", _PROGRAMS)
def test_ctrl_c_while_a_program_is_imported_ends_it_without_a_stack_trace(program: str, imported: int) -> None:
    # Python reports each import. Its pipe is small, so it waits for this test in the midst of them.
    command = [sys.executable, "-X", "importtime", "-m", Path(program).name]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, bufsize=0, pipesize=4096) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"| runtime.signals\n" in line:
                break
        for _ in range(imported):
            assert process.stderr.readline()
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert b"Traceback" not in errors
    # A shell makes this 130.
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_just_before_the_page_starts_its_server_is_not_lost(number: signal.Signals) -> None:
    script = (
        f"import signal; from nicegui import ui; ui.run = lambda *_, **__: (signal.raise_signal({int(number)}),"
        " print('it went on')); from live_page.__main__ import main; raise SystemExit(main())"
    )
    variables = {**os.environ, "PAGE_PORT": str(free_port())}
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_ignored_interrupt_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_on_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_benchmarks_stop_their_servers_and_end_with_130(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []

    def run(_: argparse.Namespace) -> None:
        try:
            signal.raise_signal(number)
        finally:
            stopped.append(number)

    monkeypatch.setattr(benchmarks, "_run", run)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert benchmarks.main() == 130
    assert stopped == [number]
