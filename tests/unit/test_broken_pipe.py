"""A program whose output is no longer read, as in ``... | head``, ends quietly."""

import importlib
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from elasticsearch_sink_alert import __main__ as sink
from elasticsearch_sink_alert.cli import check
from elasticsearch_sink_alert.kafka import dead_letter_replay
from elasticsearch_sink_alert.kafka.dead_letter_replay import DeadLetter

from contract import dead_letters
from local_stack.services import ROOT
from runtime import broken_pipe, probe
from runtime.broken_pipe import exit_status

_PROGRAMS = sorted(file for file in ROOT.glob("[!.]*/**/*.py") if "exit_status(main)" in file.read_text())
_MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts[file.relative_to(ROOT).parts[0][0] == "0" :])
    for file in _PROGRAMS
    if "tests" not in file.parts and file.name != "broken_pipe.py"
]


def _unread_status(main: Callable[[], int], *command_line: str) -> int:
    """Run `main` with a standard output that nothing reads, and flush that as Python does at its exit."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "argv", list(command_line))
        status = exit_status(main)
        stream.flush()
    return status


def test_every_program_that_is_started_by_name_ends_quietly() -> None:
    programs = {file for file in ROOT.glob("[!.]*/**/__main__.py") if "tests" not in file.parts}
    programs |= {ROOT / "local_stack/install.py", ROOT / "runtime/probe.py"}
    assert programs <= set(_PROGRAMS)


@pytest.mark.parametrize("module", _MODULES)
def test_the_help_of_a_program_may_be_unread(module: str) -> None:
    assert _unread_status(importlib.import_module(module).main, module, "--help") == broken_pipe.STATUS


@pytest.mark.parametrize("number", [1, 10_000])
@pytest.mark.parametrize("command", ["dead-letters list", "dead-letters show 0-0", "dead-letters replay", "check"])
def test_the_commands_of_the_sink_may_be_unread(command: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The output of few fits into the buffer, which is written at the end.
    headers = {dead_letters.SERVICE: "stream-processing", dead_letters.REASON: "not JSON", "other": "x" * number}
    found = [DeadLetter(f"0-{n}", "2026-01-01T00:00:00+00:00", b"key", b"{}", headers, False) for n in range(number)]
    monkeypatch.setattr(dead_letter_replay, "read_all", lambda *_: found)
    monkeypatch.setattr(check, "_report", lambda *_: "a rule" * number)
    assert _unread_status(sink.main, "elasticsearch_sink_alert", *command.split()) == broken_pipe.STATUS


def test_a_shell_sees_the_status_of_sigpipe_and_no_stack_trace() -> None:
    script = (
        'from runtime.broken_pipe import exit_status; raise SystemExit(exit_status(lambda: print("x\\n" * 99_999)))'
    )
    pipe = f"{shlex.quote(sys.executable)} -c '{script}' | head -n 1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", pipe], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (broken_pipe.STATUS, "x\n", "")


def test_a_probe_whose_output_is_unread_ends_quietly() -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 100_000)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request).start()
        assert _unread_status(probe.main, "probe", str(server.server_port)) == broken_pipe.STATUS


def test_the_broken_connection_of_a_server_is_not_hidden() -> None:
    def main() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        exit_status(main)


def test_a_program_without_standard_output_keeps_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert exit_status(lambda: print("x") or 3) == 3
