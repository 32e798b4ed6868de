"""The one retry policy towards Elasticsearch: growing, jittered pauses, for as long as it takes."""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from elasticsearch.exceptions import TransportError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from elasticsearch_sink_alert.indexing.answers import EmptiedError, Meaning, describe, error_of, meaning_of
from runtime.health import Health

logger = logging.getLogger(__name__)

ELASTICSEARCH: Final = "elasticsearch"

T = TypeVar("T")

_LONGEST_PAUSE: Final = 30.0


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

    def call(self, description: str, function: Callable[[], T], *, of_documents: bool = False) -> T:
        """The function's answer. `description` goes into log and health: what is being tried.

        Raises `EmptiedError` if an index does not exist. If it sends documents, which may be what is wrong, a refusal
        is raised as the client does; if not, a refusal can only be about the index or the cluster, and is waited for.
        """

        def is_worth_waiting(error: BaseException) -> bool:
            about = meaning_of(error)
            return about is Meaning.IN_THE_WAY or (about is Meaning.REFUSED and not of_documents)

        def failing(state: RetryCallState) -> None:
            assert state.outcome is not None
            assert state.next_action is not None
            error = state.outcome.exception()
            reason = f"{description}: {describe(error) if error else ''}"
            self._health.failing(ELASTICSEARCH, reason)
            logger.warning(
                "%s; next try in %.1f s (the %d. so far)", reason, state.next_action.sleep, state.attempt_number
            )

        retrying = Retrying(
            retry=retry_if_exception(is_worth_waiting),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE),
            sleep=self._sleep,
            before_sleep=failing,
        )
        try:
            answer = retrying(function)
        except TransportError as error:
            if meaning_of(error) is Meaning.GONE:
                raise EmptiedError(f"index {error_of(error).get('index')} was deleted") from None
            raise
        self._health.ok(ELASTICSEARCH)
        return answer
