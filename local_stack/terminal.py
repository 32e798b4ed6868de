"""The console of the local stack: it prints until the terminal is closed."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, Final, TextIO, cast

import rich.console
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


@contextlib.contextmanager
def drawn_at_once(console: rich.console.Console) -> Iterator[None]:
    """Have the terminal show what is printed in the `with` block at once; without it, a large screen flickers.

    A terminal that does not know these control sequences ignores them.
    """
    with console:
        console.control(_control("\x1b[?2026h"))
        yield
        console.control(_control("\x1b[?2026l"))


@contextlib.contextmanager
def visible_cursor(console: rich.console.Console) -> Iterator[None]:
    """Show the cursor during the `with` block, which may be in a signal handler."""
    # Not by the console, which the signal can have interrupted.
    os.write(console.file.fileno(), _SHOW_CURSOR)
    yield
    os.write(console.file.fileno(), _HIDE_CURSOR)


def _control(sequence: str) -> Control:
    control = Control()
    control.segment = Segment(sequence, None, [])
    return control
