"""The one retry policy for Elasticsearch: growing, jittered pauses, for as long as it takes."""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from elasticsearch.exceptions import TransportError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from elasticsearch_sink_alert import metrics
from elasticsearch_sink_alert.indexing.errors import (
    ErrorKind,
    ReindexRequiredError,
    classify_exception,
    describe_exception,
    error_of,
)
from runtime.health import Health

logger = logging.getLogger(__name__)

ELASTICSEARCH: Final = "elasticsearch"
"""Name of this part of the service in /health."""

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.5
"""Seconds: the longest first pause; each next one may be twice as long."""
_LONGEST_PAUSE: Final = 30.0


class Retrier:
    """Calls Elasticsearch until it answers.

    `sleep` waits for some seconds; the sink's stays a member of the consumer group meanwhile, and raises an exception
    of its own to give up.
    """

    def __init__(self, health: Health, sleep: Callable[[float], None]) -> None:
        self._health = health
        self._sleep = sleep

    def heartbeat(self) -> None:
        """Keep the group membership alive while a result is awaited elsewhere; raises what `sleep` does.

        To be called about once a second.
        """
        self._sleep(0.01)

    def call(self, description: str, function: Callable[[], T], *, sends_documents: bool = False) -> T:
        """Return the function's result, retrying it. `description` says in log and health what is attempted.

        Raises `ReindexRequiredError` if an index does not exist. If the function sends documents, a refusal, which may
        be about one of them, is raised as the client does; if not, it can only be about the index or the cluster, and
        is retried.
        """

        def is_transient(error: BaseException) -> bool:
            kind = classify_exception(error)
            return kind is ErrorKind.TRANSIENT or (kind is ErrorKind.REFUSED and not sends_documents)

        def report(state: RetryCallState) -> None:
            assert state.outcome is not None
            assert state.next_action is not None
            error = state.outcome.exception()
            reason = f"{description}: {describe_exception(error) if error else ''}"
            self._health.failing(ELASTICSEARCH, reason)
            metrics.RETRIES.inc()
            logger.warning(
                "%s; next attempt in %.1f s (attempt %d failed)", reason, state.next_action.sleep, state.attempt_number
            )

        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE),
            sleep=self._sleep,
            before_sleep=report,
        )
        try:
            result = retrying(function)
        except TransportError as error:
            if classify_exception(error) is ErrorKind.INDEX_MISSING:
                raise ReindexRequiredError(f"index {error_of(error).get('index')} was deleted") from None
            raise
        self._health.ok(ELASTICSEARCH)
        return result
