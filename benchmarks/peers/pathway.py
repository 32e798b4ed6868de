"""Pathway: `jobs/pathway_job.py` in a virtual environment of its own."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.peers.java_program import FOLDER
from benchmarks.peers.peer import Peer
from benchmarks.peers.processes import JOBS, running
from benchmarks.stack import Stack
from local_stack import pip_runner

_COMMIT_MS: Final = 500
_REQUIREMENTS: Final = Path(__file__).with_name("pathway.txt")
_PROGRAM: Final = JOBS / "pathway_job.py"
_VENV: Final = FOLDER / f"pathway-{sys.version_info.major}.{sys.version_info.minor}"
_BIN: Final = _VENV / "bin"


def _set_up(console: Console) -> None:
    """Create the virtual environment, unless one with these requirements exists."""
    mark = _VENV / "requirements.sha256"
    expected = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == expected:
        return
    shutil.rmtree(_VENV, ignore_errors=True)
    pip = [str(_BIN / "python"), "-I", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    environment = pip_runner.environment()
    with console.status("installing Pathway (once)"):
        subprocess.run([sys.executable, "-m", "venv", str(_VENV)], check=True, env=environment)
        subprocess.run([*pip, "--require-hashes", "-r", str(_REQUIREMENTS)], check=True, env=environment)
    mark.write_text(expected)


@contextmanager
def _start(stack: Stack, topic: str, output: str) -> Iterator[int]:
    spawn = [str(_BIN / "pathway"), "spawn", "--threads", "2"]
    command = [*spawn, str(_BIN / "python"), str(_PROGRAM), topic, output, str(_COMMIT_MS)]
    with running(command, stack.data / f"{topic}.log", KAFKA_BROKER=stack.kafka) as pid:
        yield pid


PATHWAY: Final = Peer(
    title="Pathway",
    version="Pathway 0.33.0",
    lake="none",
    settings=f"two workers, a commit each {_COMMIT_MS} ms",
    does_not="no snapshots of its state: a restart counts from the start of the topic; each change also"
    " publishes the row that it replaces, marked as deleted; no dead letters",
    set_up=_set_up,
    start=_start,
)
