"""Ends a program quietly when the program that reads its output has ended, as in ``... | head``."""

import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Final, TextIO

STATUS: Final = 128 + signal.SIGPIPE
"""The exit status that a shell reports for a program that SIGPIPE has ended."""


def exit_status(main: Callable[[], int | None]) -> int:
    """Run `main` and return its exit status; `STATUS`, without a stack trace, if its output has no reader any more.

    SIGPIPE stays ignored: by default it would also end a service whose server has closed a connection.
    """
    try:
        try:
            status = main() or 0
        except SystemExit:
            _flush()
            raise
        _flush()
    except BrokenPipeError:
        if not _has_no_reader(sys.stdout):
            raise
        discard(sys.stdout)
        return STATUS
    return status


def discard(stream: TextIO) -> None:
    """Discard what is written to the stream, and what it has buffered, from now on."""
    # Not another stream: Python flushes this one at its exit, which would fail again.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _flush() -> None:
    """Flush standard output here and not at the exit of Python, which would print the error."""
    print(end="", flush=True)


def _has_no_reader(stream: TextIO) -> bool:
    """Whether the stream is a pipe that nothing reads: the error could be that of another connection."""
    poll = select.poll()
    poll.register(stream, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
