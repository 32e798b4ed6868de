"""The console of the local stack: it prints until the terminal is closed."""

import errno
import sys
from typing import IO, Any, TextIO, cast

import rich.console

from runtime.broken_pipe import discard


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
