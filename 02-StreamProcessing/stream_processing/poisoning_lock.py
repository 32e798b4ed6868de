"""A lock that nobody gets any more after an error within it: what it protects may be half changed.

>>> lock = PoisoningLock()
>>> with lock:
...     raise ValueError("in the middle of a change")
Traceback (most recent call last):
ValueError: in the middle of a change
>>> with lock:
...     pass
Traceback (most recent call last):
stream_processing.poisoning_lock.PoisonedError: another thread has failed within this lock
"""

import threading


class PoisonedError(Exception):
    """Another thread has failed while it held the lock; its error is the cause."""


class PoisoningLock:
    """A mutex for `with`; raises `PoisonedError` after an error within it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_poisoned = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._is_poisoned:
            self._lock.release()
            raise PoisonedError("another thread has failed within this lock")

    def __exit__(self, error: object, *_: object) -> None:
        self._is_poisoned = error is not None
        self._lock.release()
