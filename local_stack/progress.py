"""One progress bar in bytes with the time left, by the standard library alone: it runs before there are packages."""

import shutil
import threading
import time
from typing import Final, TextIO

_WIDTH: Final = 30
_INTERVAL: Final = 0.25
"""Seconds between two drawings."""


class ByteProgress:
    """Draws how much of `expected` bytes has arrived, from any thread; nothing where `out` is no terminal.

    Sizes are known for sure only as downloads begin: the total is corrected as they do.
    """

    def __init__(self, out: TextIO, expected: int, *, visible: bool) -> None:
        self._out = out
        self._visible = visible
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._drawn = 0.0
        self._total = expected
        self._done = 0
        self._doing = ""

    @property
    def done(self) -> int:
        """Bytes that have arrived."""
        return self._done

    def add(self, size: int) -> None:
        """`size` more bytes have arrived."""
        with self._lock:
            self._done += size
            self._total = max(self._total, self._done)
            self._draw()

    def doing(self, what: str) -> None:
        """From now on the line ends with `what` is done."""
        with self._lock:
            self._doing = what
            self._draw(now=True)

    def complete(self) -> None:
        """Everything has arrived: the total was what is done."""
        with self._lock:
            self._total = self._done
            self._draw(now=True)

    def tick(self) -> None:
        """Draw again although nothing has arrived, so that the time goes on."""
        with self._lock:
            self._draw()

    def close(self) -> None:
        """Remove the line."""
        if self._visible:
            print("\r\x1b[K", end="", file=self._out, flush=True)

    def line(self, at: float) -> str:
        """The line `at` seconds after the beginning."""
        part = self._done / self._total if self._total else 1.0
        bar = ("━" * round(part * _WIDTH)).ljust(_WIDTH, "·")
        text = f"{bar} {self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB"
        if 0 < self._done < self._total:
            left = at / self._done * (self._total - self._done)
            text += f"  {left // 60:.0f}:{left % 60:02.0f} left"
        return f"{text}  {self._doing}"

    def _draw(self, *, now: bool = False) -> None:
        at = time.monotonic()
        if not self._visible or (at - self._drawn < _INTERVAL and not now):
            return
        self._drawn = at
        line = self.line(at - self._began)[: shutil.get_terminal_size().columns - 1]
        print(f"\r\x1b[K{line}", end="", file=self._out, flush=True)
