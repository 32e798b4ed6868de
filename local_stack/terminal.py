"""The console of the local stack: it prints until the terminal is closed."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, Final, TextIO, cast

import rich.console
import rich.live
from rich.console import ConsoleRenderable
from rich.control import Control
from rich.segment import Segment

from runtime.broken_pipe import discard

_SHOW_CURSOR: Final = b"\x1b[?25h"
_HIDE_CURSOR: Final = b"\x1b[?25l"


class _UntilClosed:
    """A stream whose text is discarded once its terminal is closed, or the program that reads it has ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._discard_from_now_on(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._discard_from_now_on(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _discard_from_now_on(self, error: OSError) -> None:
        if error.errno not in (errno.EIO, errno.EPIPE):
            raise error
        discard(self._stream)


class Console(rich.console.Console):
    """Prints to standard output; a closed terminal does not interrupt how the stack stops."""

    def __init__(self) -> None:
        super().__init__(file=cast(IO[str], _UntilClosed(sys.stdout)))


def is_in_foreground(console: rich.console.Console) -> bool:
    """Whether the terminal is that of this program, and not of the shell that has put it into the background."""
    try:
        return os.tcgetpgrp(console.file.fileno()) == os.getpgrp()
    except OSError:
        # Not the program's controlling terminal, or it is closed.
        return True


class ForegroundLive(rich.live.Live):
    """A live display that draws nothing while the program is in the background."""

    def start(self, refresh: bool = False) -> None:
        """Start it; the cursor stays visible in the background."""
        super().start(refresh)
        if not is_in_foreground(self.console):
            self.console.show_cursor(True)

    def refresh(self) -> None:
        """Draw it, in the foreground only."""
        if is_in_foreground(self.console):
            super().refresh()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Draw it below what is printed, in the foreground only."""
        return super().process_renderables(renderables) if is_in_foreground(self.console) else renderables


@contextlib.contextmanager
def drawn_at_once(console: rich.console.Console) -> Iterator[None]:
    """Have the terminal show what is printed in the `with` block at once; without it, a large screen flickers.

    A terminal that does not know these control sequences ignores them. In the background nothing of it is shown.
    """
    with console.capture() as drawn:
        console.control(_control("\x1b[?2026h"))
        yield
        console.control(_control("\x1b[?2026l"))
    # Ctrl-Z may have come meanwhile, and then `bg`.
    if is_in_foreground(console):
        console.file.write(drawn.get())
        console.file.flush()


@contextlib.contextmanager
def visible_cursor(console: rich.console.Console) -> Iterator[None]:
    """Show the cursor during the `with` block, which may be in a signal handler."""
    # Not by the console, which the signal can have interrupted.
    os.write(console.file.fileno(), _SHOW_CURSOR)
    yield
    if is_in_foreground(console):
        os.write(console.file.fileno(), _HIDE_CURSOR)


def _control(sequence: str) -> Control:
    control = Control()
    control.segment = Segment(sequence, None, [])
    return control
