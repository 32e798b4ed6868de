"""Runs a program in a terminal, in which a test presses keys and reads what is drawn."""

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from local_stack.services import ROOT

_SECONDS = 240
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
# In a session of its own, the program takes the terminal as its controlling one, as a shell does.
_START = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass
class Terminal:
    """A program in a terminal, and what was drawn since the latest key."""

    process: "subprocess.Popen[bytes]"
    controller: int
    terminal: int
    modes: list[object]
    """Those of the terminal before."""
    drawn: str = ""

    @property
    def shown(self) -> str:
        """What was drawn, without styles."""
        return _STYLE.sub("", self.drawn)

    def press(self, keys: bytes) -> None:
        self.drawn = ""
        os.write(self.controller, keys)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Read what is drawn until a condition holds."""
        end = time.monotonic() + _SECONDS
        while not condition():
            assert time.monotonic() < end, self.drawn
            while select.select([self.controller], [], [], 0.01)[0]:
                self.drawn += os.read(self.controller, 100_000).decode(errors="replace")

    def wait_for_text(self, text: str) -> None:
        self.wait_for(lambda: text in self.shown)

    def resize(self, columns: int, lines: int) -> None:
        _set_size(self.controller, columns, lines)

    def status(self) -> int:
        """Wait for the end, and return the exit status."""
        self.wait_for(lambda: self.process.poll() is not None)
        return self.process.returncode


@contextmanager
def terminal_of(
    arguments: Sequence[str], variables: Mapping[str, str], columns: int = 80, lines: int = 24
) -> Iterator[Terminal]:
    """Run Python with arguments in a terminal of a size; at the end the terminal is closed."""
    controller, terminal = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "DISPLAY")}
    modes = termios.tcgetattr(terminal)
    _set_size(controller, columns, lines)
    process = subprocess.Popen(
        [sys.executable, "-c", _START, sys.executable, *arguments],
        cwd=ROOT,
        env={**environment, "TERM": "xterm-256color", **variables},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    try:
        yield Terminal(process, controller, terminal, modes)
    finally:
        os.close(controller)
        os.close(terminal)
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _set_size(terminal: int, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
