"""Stops a service on SIGTERM and Ctrl-C."""

import signal
import threading


class StoppedError(Exception):
    """The service was stopped while it waited for a server."""


def stop_on_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set from now on; call it in the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
