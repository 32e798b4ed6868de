"""The stack's list of its processes, and killing one of them from the page."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from mirakuru import TCPExecutor
from rich.console import Console

from live_page.sources.processes import Processes
from live_page.sources.producer import RefusedError
from local_stack import servers
from local_stack.managed_process import ManagedProcess
from local_stack.process_file import ProcessFile
from local_stack.process_states import ProcessStates
from local_stack.sections import HAS_ENDED
from observer.processes import Death, ProcessList, ProcessState
from observer.status import Part


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that could be one of a stack."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def _state_of(process: "subprocess.Popen[bytes]", *, is_ready: bool = True, before: float = 0.0) -> ProcessState:
    return ProcessState(process.pid, psutil.Process(process.pid).create_time() - before, is_ready)


def _deaths(*ages: float, name: str = "it") -> tuple[Death, ...]:
    return tuple(Death(name, time.time() - age, "killed", seconds=1.0) for age in ages)


def _listed(file: Path, state: ProcessState, *deaths: Death) -> Processes:
    ProcessList({"it": state}, deaths).write(file)
    return Processes(str(file))


def test_a_list_is_read_as_it_was_written_and_replaced_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "processes.json"
    for listed in (
        ProcessList({"it": ProcessState(7, 1.5, is_ready=True)}, (Death("it", 2.5, "killed"),)),
        ProcessList({}, (Death("it", 2.5, "killed", seconds=6.1),)),
    ):
        listed.write(file)
        assert ProcessList.read(file) == listed
        assert list(tmp_path.iterdir()) == [file]


def test_without_a_file_nothing_is_listed(tmp_path: Path) -> None:
    assert ProcessList.read(tmp_path / "none") == ProcessList()
    assert Processes(str(tmp_path / "none")).read() == ProcessList()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"processes": {"it": {}}, "deaths": []}'])
def test_a_file_of_another_program_is_no_list(text: str, tmp_path: Path) -> None:
    file = tmp_path / "processes.json"
    file.write_text(text)
    assert ProcessList.read(file) == ProcessList()


def test_a_third_death_within_a_minute_has_to_wait() -> None:
    def seconds(*deaths: Death) -> float:
        return ProcessList(deaths=deaths).seconds_until_kill("it", time.time())

    assert seconds() == seconds(*_deaths(1)) == seconds(*_deaths(70, 1)) == 0
    assert seconds(*_deaths(50, 1)) == pytest.approx(10, abs=1)
    assert seconds(*_deaths(80, 50, 1)) == pytest.approx(10, abs=1)
    assert seconds(*_deaths(50, 1, name="another")) == seconds(*_deaths(50), *_deaths(1, name="another")) == 0


def test_the_stack_lists_its_processes_and_their_deaths_while_it_runs(tmp_path: Path) -> None:
    port, file = servers.free_port(), tmp_path / "processes.json"
    servers.log_file(tmp_path, "it").close()
    listen = f"import socket, time; s = socket.create_server(('{servers.HOST}', {port})); time.sleep(600)"
    executor = TCPExecutor([sys.executable, "-c", listen], servers.HOST, port)
    process = ManagedProcess("it", executor, tmp_path, "here")
    terminal = io.StringIO()
    console = Console(file=terminal, width=300)
    try:
        process.start()
        with ProcessFile(file, [process]) as process_file:
            assert not ProcessList.read(file).processes["it"].is_ready
            while not process.is_ready(console):
                time.sleep(0.02)
            process_file.update()
            first = ProcessList.read(file).processes["it"]
            assert first.is_ready
            Processes(str(file)).kill("it")
            assert executor.process is not None
            assert executor.process.wait() == -signal.SIGKILL
            process.require_running(console)
            process_file.update()
            listed = ProcessList.read(file)
            assert not listed.processes["it"].is_ready
            assert listed.processes["it"].pid != first.pid
            (death,) = listed.deaths
            assert (death.name, death.seconds) == ("it", None)
            assert f"starting again: {death.reason}" in terminal.getvalue()
            while "ready again" not in terminal.getvalue():
                process.require_running(console)
                time.sleep(0.02)
            process_file.update()
            listed = ProcessList.read(file)
            assert listed.processes["it"].is_ready
            assert f"ready again it after {listed.deaths[0].seconds:.1f} s" in terminal.getvalue()
        assert not file.exists()
    finally:
        process.stop()


def test_the_view_shows_state_memory_and_uptime_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = servers.free_port()
    servers.log_file(tmp_path, "it").close()
    listen = f"import socket, time; s = socket.create_server(('{servers.HOST}', {port})); time.sleep(600)"
    process = ManagedProcess("it", TCPExecutor([sys.executable, "-c", listen], servers.HOST, port), tmp_path, "here")
    states = ProcessStates([process])

    def shown(health: Mapping[str, str], at: float) -> Part:
        (part,) = states.read(health, at)
        return part

    console = Console(file=io.StringIO())
    assert shown({}, 0.0) == Part("it", "does not run", answers=False)
    try:
        process.start()
        assert shown({}, 1.0).state == "starting again"
        while not process.is_ready(console):
            time.sleep(0.02)
        assert shown({"it": "ok"}, 2.0).state == shown({}, 2.0).state == "ok"
        assert shown({"it": "does not answer"}, 3.0).state == "does not answer"
        # Not measured again yet.
        assert shown({}, 4.9).memory is None
        part = shown({}, 5.0)
        assert part.memory is not None
        assert 1_000_000 < part.memory < 1_000_000_000
        assert part.uptime is not None
        assert 0 < part.uptime < 600
        monkeypatch.setattr(time, "time", lambda: 0.0)
        # The clock was set back.
        assert shown({}, 6.0).uptime == 0
    finally:
        process.stop()
    process.has_ended = True
    assert shown({"it": "does not answer"}, 7.0).state == HAS_ENDED


def test_a_process_is_killed_at_once(tmp_path: Path, child: "subprocess.Popen[bytes]") -> None:
    _listed(tmp_path / "processes.json", _state_of(child), *_deaths(70, 1)).kill("it")
    assert child.wait() == -signal.SIGKILL


def test_without_the_setting_a_kill_is_refused() -> None:
    elsewhere = Processes("")
    assert not elsewhere.is_local
    with pytest.raises(RefusedError, match=r"only the processes of a local stack .*: PROCESSES_FILE is not set"):
        elsewhere.kill("it")


def test_only_the_process_that_is_meant_is_killed(tmp_path: Path, child: "subprocess.Popen[bytes]") -> None:
    for state, deaths, name, reason in (
        (_state_of(child), (), "another", "^another: not running"),
        (_state_of(child, is_ready=False), (), "it", "^it: starting again"),
        # The id was that of another process, which had started earlier.
        (_state_of(child, before=100), (), "it", "it does not run"),
        (_state_of(child), _deaths(50, 1), "it", "^it: a third death within a minute would end the demo: enabled in"),
    ):
        with pytest.raises(RefusedError, match=reason):
            _listed(tmp_path / "processes.json", state, *deaths).kill(name)
    assert child.poll() is None


def test_a_process_that_has_died_already_is_refused(tmp_path: Path, child: "subprocess.Popen[bytes]") -> None:
    file = tmp_path / "processes.json"
    processes = _listed(file, _state_of(child))
    os.kill(child.pid, signal.SIGKILL)
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    with pytest.raises(RefusedError, match="it does not run"):
        processes.kill("it")
    child.wait()
    with pytest.raises(RefusedError, match="it does not run"):
        processes.kill("it")
