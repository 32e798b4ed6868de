"""Limits how many notifications a rule may send per minute, and counts the rest for a summary."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert

_WINDOW: Final = 60.0
"""Seconds."""


class Summary(NamedTuple):
    """The alerts of one rule that were over the limit within one minute."""

    rule: str
    by_status: Counter[str]
    limit: int


class RateLimiter:
    """Allows `limit` alerts of each rule per minute. `clock` gives seconds."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._window_end: dict[str, float] = {}
        self._allowed: Counter[str] = Counter()
        self._over_limit: dict[str, Counter[str]] = {}

    def allow(self, alert: Alert) -> bool:
        """Whether the alert may have a message of its own; otherwise the summary counts it."""
        self._window_end.setdefault(alert.rule, self._clock() + _WINDOW)
        if self._allowed[alert.rule] < self._limit:
            self._allowed[alert.rule] += 1
            return True
        self._over_limit.setdefault(alert.rule, Counter())[alert.status] += 1
        return False

    def summaries(self) -> list[Summary]:
        """Close the windows whose minute has passed, and return the summaries of those that were over the limit."""
        now = self._clock()
        found = []
        for rule in [rule for rule, end in self._window_end.items() if end <= now]:
            del self._window_end[rule]
            del self._allowed[rule]
            if by_status := self._over_limit.pop(rule, None):
                found.append(Summary(rule, by_status, self._limit))
        return found
