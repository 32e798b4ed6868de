"""A progress bar in bytes with the time left, by the standard library alone: it runs before packages are installed."""

import shutil
import threading
import time
from typing import Final, TextIO

_WIDTH: Final = 30
_INTERVAL: Final = 0.25
"""Seconds between two updates of the line."""


class ByteProgress:
    """Draws how many of the `expected` bytes have been downloaded, from any thread; nothing unless `visible`.

    The exact sizes are known only when the downloads begin, which corrects the total.
    """

    def __init__(self, out: TextIO, expected: int, *, visible: bool) -> None:
        self._out = out
        self._visible = visible
        self._lock = threading.Lock()
        self._started_at = time.monotonic()
        self._drawn_at = 0.0
        self._total = expected
        self._done = 0
        self._step = ""

    @property
    def done(self) -> int:
        """Bytes downloaded."""
        return self._done

    def add(self, size: int) -> None:
        """Count `size` more bytes."""
        with self._lock:
            self._done += size
            self._total = max(self._total, self._done)
            self._draw()

    def show_step(self, step: str) -> None:
        """End the line with the current `step` from now on."""
        with self._lock:
            self._step = step
            self._draw(now=True)

    def complete(self) -> None:
        """Set the total to the number of bytes counted: everything is downloaded."""
        with self._lock:
            self._total = self._done
            self._draw(now=True)

    def tick(self) -> None:
        """Draw again although nothing was downloaded, to update the time left."""
        with self._lock:
            self._draw()

    def close(self) -> None:
        """Remove the line."""
        if self._visible:
            print("\r\x1b[K", end="", file=self._out, flush=True)

    def line(self, at: float) -> str:
        """Return the line `at` seconds after the start."""
        part = self._done / self._total if self._total else 1.0
        bar = ("━" * round(part * _WIDTH)).ljust(_WIDTH, "·")
        text = f"{bar} {self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB"
        if 0 < self._done < self._total:
            left = at / self._done * (self._total - self._done)
            text += f"  {left // 60:.0f}:{left % 60:02.0f} left"
        return f"{text}  {self._step}"

    def _draw(self, *, now: bool = False) -> None:
        at = time.monotonic()
        if not self._visible or (at - self._drawn_at < _INTERVAL and not now):
            return
        self._drawn_at = at
        line = self.line(at - self._started_at)[: shutil.get_terminal_size().columns - 1]
        print(f"\r\x1b[K{line}", end="", file=self._out, flush=True)
