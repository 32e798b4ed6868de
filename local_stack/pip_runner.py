"""Runs pip in the virtual environment, counts the bytes that it reports, and turns its first error into one line."""

import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from local_stack.progress import ByteProgress

_FOREIGN: Final = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_HASHES")
"""Variables with which other set-ups redirect Python's imports or pip's installations."""
_PROGRESS: Final = re.compile(r"^Progress (\d+) of (\d+)$")
_FILE: Final = re.compile(r"^ *(?:Downloading|Using cached) \S+ \(([\d.]+) (bytes|kB|MB|GB)\)")
_UNITS: Final = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_BUILD_SETTINGS: Final = Path(__file__).with_name("wheel.cfg")
"""Spark's jars are compressed already, so its wheel is only stored."""


class PipError(Exception):
    """pip failed; the message has its first error, the remedy and the path of the log."""


def environment() -> dict[str, str]:
    """Return the variables for pip and venv: the caller's without those that redirect them."""
    options = {"DIST_EXTRA_CONFIG": str(_BUILD_SETTINGS), "PIP_NO_INPUT": "1"}
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN} | options


class Pip:
    """The pip of the virtual environment whose interpreter is `python`; may be used from several threads."""

    def __init__(self, python: Path, log: Path, progress: ByteProgress, descriptors: Sequence[int] = ()) -> None:
        """Create it; its processes inherit the file descriptors."""
        self._python = python
        self._log = log
        self._log_lock = threading.Lock()
        self._progress = progress
        self._descriptors = descriptors

    def install(self, *arguments: str | Path, report_bytes: bool = True) -> None:
        """Install without dependencies (the pins list all of them). Raises `PipError`."""
        self._run("install", *_bar(report_bytes), "--no-deps", "--no-compile", *arguments)

    def install_editable(self, project: Path) -> None:
        """Install the packages of `project` so that its sources are imported; needs no network. Raises `PipError`."""
        self._run("install", "--no-deps", "--no-build-isolation", "--no-index", "--editable", project)

    def download(self, *arguments: str | Path) -> None:
        """Download packages without dependencies. Raises `PipError`."""
        self._run("download", *_bar(True), "--no-deps", "--no-build-isolation", *arguments)

    def check(self) -> None:
        """Check that the installed packages fit together. Raises `PipError`."""
        self._run("check")

    def _run(self, *arguments: str | Path) -> None:
        command = [str(self._python), "-I", "-m", "pip", "--disable-pip-version-check", "--no-color"]
        command += map(str, arguments)
        output: list[str] = []
        with subprocess.Popen(
            command,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=self._descriptors,
        ) as process:
            assert process.stdout is not None
            output.extend(self.count_bytes(process.stdout))
        with self._log_lock, self._log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{''.join(output)}\n")
        if process.returncode:
            errors = [line.strip() for line in output if line.startswith("ERROR: ")] or output[-1:] or ["no output"]
            remedy = "" if "--editable" in arguments else "check that its package index can be reached from here, then "
            raise PipError(
                f"pip failed: {errors[0].strip()}: {remedy}start again: downloads are kept (its output: {self._log})"
            )

    def count_bytes(self, lines: Iterator[str]) -> Iterator[str]:
        """Pass pip's output through without its progress lines, whose bytes go to the progress bar."""
        before, without_progress = 0, 0
        for line in lines:
            if arrived := _PROGRESS.match(line):
                without_progress = 0
                now = int(arrived[1])
                # The first line of a file starts from 0 again.
                self._progress.add(max(0, now - before) if now >= before else now)
                before = 0 if now == int(arrived[2]) else now
                continue
            # A file that is small or cached has no progress lines.
            self._progress.add(without_progress)
            file = _FILE.match(line)
            without_progress = int(float(file[1]) * _UNITS[file[2]]) if file else 0
            yield line
        self._progress.add(without_progress)


def _bar(report_bytes: bool) -> tuple[str, str]:
    return "--progress-bar", "raw" if report_bytes else "off"
