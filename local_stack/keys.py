"""Reads keys from the terminal, each as soon as it is pressed."""

import contextlib
import os
import re
import select
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

_POLL_SECONDS: Final = 0.2
_SEQUENCE: Final = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?")
"""What an arrow or another key without a character sends."""


class Keys:
    """Calls a function with each key that is pressed during the `with` block, in a thread of its own.

    Reads nothing while the program is in the background, where that would suspend it.
    """

    def __init__(self, terminal: int, on_key: Callable[[str], None]) -> None:
        """Create it for the file descriptor of a terminal."""
        self._terminal = terminal
        self._on_key = on_key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        # It ends too when the terminal is closed.
        with contextlib.suppress(OSError, termios.error), self._modes_restored():
            while not self._stop.is_set():
                for key in self._read().decode(errors="ignore"):
                    self._on_key(key)

    @contextlib.contextmanager
    def _modes_restored(self) -> Iterator[None]:
        modes = termios.tcgetattr(self._terminal)
        try:
            yield
        finally:
            if self._is_in_foreground():
                termios.tcsetattr(self._terminal, termios.TCSADRAIN, modes)

    def _read(self) -> bytes:
        """Return the characters that are typed within a moment."""
        if not self._is_in_foreground():
            self._stop.wait(_POLL_SECONDS)
            return b""
        # Each time: after Ctrl-Z the shell sets other modes.
        tty.setcbreak(self._terminal, termios.TCSANOW)
        if not select.select([self._terminal], [], [], _POLL_SECONDS)[0] or not self._is_in_foreground():
            return b""
        pressed = os.read(self._terminal, 1_000)
        if not pressed:
            raise OSError("the terminal is closed")
        return _SEQUENCE.sub(b"", pressed)

    def _is_in_foreground(self) -> bool:
        return os.tcgetpgrp(self._terminal) == os.getpgrp()
