"""Ctrl-Z: what a program does to its terminal before it is suspended, and after it continues."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager


@contextlib.contextmanager
def suspended_within(released: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Have Ctrl-Z during the `with` block suspend the program within a context of its own; call it in the main thread.

    Does nothing if the signal is ignored, as by a shell that cannot suspend programs.
    """

    def suspend(*_: object) -> None:
        with released():
            # By the default action, which does not suspend a program that no shell could continue.
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, suspend)

    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTSTP, suspend)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
