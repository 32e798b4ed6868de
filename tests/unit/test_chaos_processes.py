"""The processes of a run are started again when they have died, and a death that no fault explains is reported."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from mirakuru import TCPExecutor

from chaos.processes import Process
from local_stack.process_marks import marked
from local_stack.servers import HOST, free_port, log_file
from tests.pipeline import eventually

_SERVER = """
import os, socket, subprocess, sys, time
if "LASTING" not in os.environ:
    sys.exit("ERROR no reason to live")
child = subprocess.Popen(["sleep", "600"])
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("runs", os.environ["LASTING"], flush=True)
    while True:
        server.accept()[0].close()
"""
_SECONDS = 30.0
Make = Callable[[Mapping[str, str]], TCPExecutor]


def _make(data: Path) -> Make:
    port = free_port()

    def make(settings: Mapping[str, str]) -> TCPExecutor:
        command, log = [sys.executable, "-c", _SERVER, str(port)], log_file(data, "server")
        return marked(TCPExecutor(command, HOST, port, envvars=dict(settings), stdout=log, stderr=log))

    return make


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def process(tmp_path: Path, said: list[str]) -> Iterator[Process]:
    process = Process("server", _make(tmp_path), tmp_path / "logs" / "server.log", said.append)
    process.settings = {"LASTING": "first"}
    yield process
    process.close()


def _assert_ready(process: Process, starts: int) -> None:
    assert process.starts == starts
    assert process.is_ready


def _assert_failed(process: Process) -> None:
    assert process.failure is not None


def _assert_deaths(process: Process, number: int) -> None:
    assert len(process.deaths) >= number


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_process_that_a_fault_kills_is_started_again_without_a_word(process: Process, said: list[str]) -> None:
    process.start()
    eventually(lambda: _assert_ready(process, 1), _SECONDS)
    pids = process.pids()
    assert len(pids) == 2
    process.kill()
    assert not any(map(_is_alive, pids))
    eventually(lambda: _assert_ready(process, 2), _SECONDS)
    assert (process.deaths, said, process.failure) == ([], [], None)


def test_a_process_that_is_held_is_started_when_it_is_released_with_its_new_settings(process: Process) -> None:
    process.start()
    eventually(lambda: _assert_ready(process, 1), _SECONDS)
    process.hold()
    process.kill()
    process.settings = {"LASTING": "second"}
    # It is looked at some times meanwhile.
    time.sleep(1)
    assert (process.is_held, process.is_ready, process.starts) == (True, False, 1)
    process.release()
    eventually(lambda: _assert_ready(process, 2), _SECONDS)
    assert process.output() == "runs second\n"


def test_a_process_that_ends_by_itself_is_started_again_and_reported(process: Process, said: list[str]) -> None:
    process.start()
    eventually(lambda: _assert_ready(process, 1), _SECONDS)
    os.kill(process.pids("Python")[0], signal.SIGTERM)
    eventually(lambda: _assert_ready(process, 2), _SECONDS)
    (death,) = process.deaths
    assert death.reason.startswith("server was killed by SIGTERM")
    assert len(said) == 1
    assert process.failure is None


def test_a_process_that_dies_three_times_within_a_minute_has_failed(process: Process) -> None:
    process.settings = {}
    process.start()
    eventually(lambda: _assert_failed(process), _SECONDS)
    assert process.failure is not None
    assert process.failure.startswith(
        "3 times within a minute: server has ended with status 1: ERROR no reason to live"
    )
    assert len(process.deaths) == process.starts == 3


def test_a_process_may_die_as_often_as_it_does_while_that_is_tolerated(process: Process) -> None:
    process.settings = {}
    process.tolerate()
    process.start()
    eventually(lambda: _assert_deaths(process, 5), _SECONDS)
    process.settings = {"LASTING": "again"}
    eventually(lambda: _assert_ready(process, process.starts), _SECONDS)
    process.no_longer_tolerate()
    assert process.failure is None


def test_the_first_process_alone_is_killed_and_the_next_one_starts_beside_what_is_left(process: Process) -> None:
    process.start()
    eventually(lambda: _assert_ready(process, 1), _SECONDS)
    (left,) = process.pids("Java")
    process.kill_python()
    eventually(lambda: _assert_ready(process, 2), _SECONDS)
    assert _is_alive(left)
    assert process.deaths == []
    process.close()
    assert not _is_alive(left)


def test_the_others_alone_are_killed(process: Process) -> None:
    process.start()
    eventually(lambda: _assert_ready(process, 1), _SECONDS)
    (first, other) = process.pids()
    process.kill_java()
    eventually(lambda: _assert_dead(other), _SECONDS)
    assert _is_alive(first)
    assert process.starts == 1


def _assert_dead(pid: int) -> None:
    assert not _is_alive(pid)


def test_a_process_that_is_stopped_has_ended_in_order(process: Process) -> None:
    process.start()
    eventually(lambda: _assert_ready(process, 1), _SECONDS)
    process.hold()
    process.stop()
    assert process.pids() == []
    assert process.deaths == []
