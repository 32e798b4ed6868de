"""Stops a service on SIGTERM and Ctrl-C."""

import _thread
import signal
import threading
from concurrent.futures import Future
from typing import Any, Final

_CHECK_SECONDS: Final = 0.05


class StoppedError(Exception):
    """The service was stopped while it waited for a server."""


def stop_on_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set from now on; call it in the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
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
