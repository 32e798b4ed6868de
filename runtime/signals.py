"""Stops a service on SIGTERM and Ctrl-C."""

import _thread
import signal
import threading


class StoppedError(Exception):
    """The service was stopped while it waited for a server."""


def stop_on_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set from now on; call it in the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: set_in_handler(stop))
    return stop


def set_in_handler(event: threading.Event) -> None:
    """Set an event in a signal handler, which can interrupt the main thread while that holds the event's lock."""
    _thread.start_new_thread(event.set, ())
