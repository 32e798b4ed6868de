"""The one retry policy towards Elasticsearch: growing, jittered pauses, for as long as it takes."""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from elasticsearch.exceptions import ConnectionError, TransportError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from contract.health import Health

logger = logging.getLogger(__name__)

ELASTICSEARCH: Final = "elasticsearch"

T = TypeVar("T")

_LONGEST_PAUSE: Final = 30.0


class UnavailableError(Exception):
    """Elasticsearch took part of a request at most, for a reason that time may mend."""


def is_passing(error: BaseException) -> bool:
    """Whether waiting may mend this: no connection, too many requests, no permission yet, a server's failure."""
    if isinstance(error, UnavailableError | ConnectionError):
        return True
    return isinstance(error, TransportError) and is_passing_status(error.status_code)


def is_passing_status(status: object) -> bool:
    """The same for an HTTP status; a 401 or 403 is about this service and not about what it sends."""
    return isinstance(status, int) and (status in (401, 403, 408, 429) or status >= 500)


class Patience:
    """Calls Elasticsearch until it answers.

    `sleep` waits for so many seconds; the sink's keeps its place in the consumer group meanwhile, and
    raises an exception of its own to give up.
    """

    def __init__(self, health: Health, sleep: Callable[[float], None]) -> None:
        self._health = health
        self._sleep = sleep

    def stay(self) -> None:
        """To be called every second or so while an answer is awaited elsewhere; raises what `sleep` does."""
        self._sleep(0.01)

    def call(self, description: str, function: Callable[[], T]) -> T:
        """The function's answer. `description` goes into log and health: what is being tried."""

        def failing(state: RetryCallState) -> None:
            assert state.outcome is not None
            assert state.next_action is not None
            reason = f"{description}: {state.outcome.exception()}"
            self._health.failing(ELASTICSEARCH, reason)
            logger.warning(
                "%s; next try in %.1f s (the %d. so far)", reason, state.next_action.sleep, state.attempt_number
            )

        retrying = Retrying(
            retry=retry_if_exception(is_passing),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE),
            sleep=self._sleep,
            before_sleep=failing,
        )
        answer = retrying(function)
        self._health.ok(ELASTICSEARCH)
        return answer
