"""Filters what Kafka's client library logs: lines that need no action become DEBUG, repeated ones are dropped."""

import logging
import re
import time
from collections.abc import Callable
from typing import Final

_ROUTINE: Final = re.compile(r"^GETPID .*Coordinator load in progress|^BGQUEUE ")
"""A broker that has just started, and the client tries again by itself; or the end of an admin client."""
_FAILURE: Final = re.compile(r"^FAIL \[rdkafka")
_REFUSED: Final = "Connection refused"
_CHANGING: Final = re.compile(r"rdkafka#\w+-\d+|ipv[46]#\S+|\(after [^)]*\)?.*$")
"""The parts in which two lines about the same failure differ."""
_REPEAT_SECONDS: Final = 60.0


def lower_routine(record: logging.LogRecord) -> bool:
    """Log at DEBUG what needs no action; a filter for a logger."""
    return _lowered(record) if _ROUTINE.search(record.getMessage()) else True


class WhileWaiting:
    """A filter for the clients that wait for a broker to start, whose reasons their caller reports.

    Refused connections become DEBUG; another reason, such as a certificate, is logged once a minute.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def __call__(self, record: logging.LogRecord) -> bool:
        """Return whether the line is logged."""
        message = record.getMessage()
        if not _FAILURE.search(message):
            return lower_routine(record)
        if _REFUSED in message:
            return _lowered(record)
        reason, now = _CHANGING.sub("", message), self._clock()
        if now - self._logged_at.get(reason, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return False
        self._logged_at[reason] = now
        return True


def _lowered(record: logging.LogRecord) -> bool:
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
