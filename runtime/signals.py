"""Stops a program on SIGTERM, on Ctrl-C, and when its terminal closes."""

import _thread
import signal
import threading


class StoppedError(Exception):
    """The service was stopped while it waited for a server."""


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


def set_in_handler(event: threading.Event) -> None:
    """Set an event in a signal handler, which can interrupt the main thread while that holds the event's lock."""
    _thread.start_new_thread(event.set, ())
