"""Reads keys from the terminal, each as soon as it is pressed."""

import contextlib
import os
import re
import select
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

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
        self._modes: list[Any] | None = None
        self._changed_modes: list[Any] | None = None
        # Reentrant: a second Ctrl-Z can interrupt the handling of the first.
        self._lock = threading.RLock()
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

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Read nothing during the `with` block, in which the terminal has its modes of before."""
        with self._lock:
            self._restore_modes()
            yield

    def _run(self) -> None:
        # It ends too when the terminal is closed.
        with contextlib.suppress(OSError, termios.error):
            while not self._stop.is_set():
                for key in self._read().decode(errors="ignore"):
                    self._on_key(key)
        self._restore_modes()

    def _read(self) -> bytes:
        """Return the characters that are typed within a moment."""
        if not self._set_modes():
            self._stop.wait(_POLL_SECONDS)
            return b""
        if not select.select([self._terminal], [], [], _POLL_SECONDS)[0] or not self._is_in_foreground():
            return b""
        pressed = os.read(self._terminal, 1_000)
        if not pressed:
            raise OSError("the terminal is closed")
        return _SEQUENCE.sub(b"", pressed)

    def _set_modes(self) -> bool:
        """Have the terminal send each key at once, unless the program is in the background."""
        with self._lock:
            if not self._is_in_foreground():
                return False
            if self._modes is None:
                self._modes = termios.tcgetattr(self._terminal)
            # Each time: after Ctrl-Z the shell sets other modes.
            tty.setcbreak(self._terminal, termios.TCSANOW)
            self._changed_modes = termios.tcgetattr(self._terminal)
            return True

    def _restore_modes(self) -> None:
        """Set the modes of before, unless another program has set others since."""
        # Some shells set none. They may be back in the foreground, which would stop this thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        with contextlib.suppress(OSError, termios.error):
            if self._modes is not None and termios.tcgetattr(self._terminal) == self._changed_modes:
                termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._modes)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})

    def _is_in_foreground(self) -> bool:
        return os.tcgetpgrp(self._terminal) == os.getpgrp()
