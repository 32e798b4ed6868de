"""Stops a program on SIGTERM, on Ctrl-C, and when its terminal closes."""

import _thread
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    # Programs import this module before all others, so it imports little.
    from concurrent.futures import Future

_CHECK_SECONDS: Final = 0.05


class StoppedError(Exception):
    """The service was stopped while it waited for a server."""


def end_on_interrupt() -> None:
    """Let Ctrl-C end the program at once and without a stack trace, until it sets its own handler.

    Programs call this before their other imports, which take up to seconds. If SIGINT is ignored, as in the background
    of a shell script, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt_on_signal() -> None:
    """Have the `stop_signals` raise KeyboardInterrupt, so that a program that has started servers stops them."""
    for number in stop_signals():
        signal.signal(number, signal.default_int_handler)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal was closed), the last unless `nohup` ignores it."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT) if is_ignored else (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_on_signal() -> threading.Event:
    """Return an event that the `stop_signals` set from now on; call it in the main thread."""
    stop = threading.Event()
    for number in stop_signals():
        signal.signal(number, lambda *_: set_in_handler(stop))
    return stop


def wait_for(stop: threading.Event, *futures: "Future[Any]") -> None:
    """Wait for all results. Raises the first error, and `StoppedError` as soon as `stop` is set."""
    while not all(future.done() for future in futures):
        for future in futures:
            if future.done():
                future.result()
        if stop.wait(_CHECK_SECONDS):
            raise StoppedError
    for future in futures:
        future.result()


def set_in_handler(event: threading.Event) -> None:
    """Set an event in a signal handler, which can interrupt the main thread while that holds the event's lock."""
    _thread.start_new_thread(event.set, ())
