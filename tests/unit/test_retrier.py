"""The retry policy: growing pauses, only for errors that may pass, until the sink is stopped."""

from collections.abc import Callable

import pytest
from elasticsearch.exceptions import ConnectionError, NotFoundError, RequestError, TransportError
from elasticsearch_sink_alert.indexing.errors import ReindexRequiredError, UnavailableError
from elasticsearch_sink_alert.indexing.retrier import ELASTICSEARCH, Retrier

from runtime.health import Health
from runtime.signals import StoppedError

REFUSED = RequestError(400, "mapper_parsing_exception", {"error": {"type": "mapper_parsing_exception", "reason": "x"}})
MISSING = NotFoundError(
    404, "index_not_found_exception", {"error": {"type": "index_not_found_exception", "reason": "no", "index": "rows"}}
)


class Pauses:
    """Records pauses instead of sleeping, and raises `StoppedError` instead of the n-th."""

    def __init__(self, health: Health, stop_at: int | None = None) -> None:
        self._health = health
        self._stop_at = stop_at
        self.seconds: list[float] = []
        self.problems: list[str] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.problems.append(self._health.problems().get(ELASTICSEARCH, ""))
        if len(self.seconds) == self._stop_at:
            raise StoppedError


def _fails(times: int, error: Exception) -> Callable[[], str]:
    remaining_failures = [times]

    def function() -> str:
        remaining_failures[0] -= 1
        if remaining_failures[0] >= 0:
            raise error
        return "done"

    return function


def _retrier(stop_at: int | None = None) -> tuple[Retrier, Pauses, Health]:
    health = Health(ELASTICSEARCH)
    pauses = Pauses(health, stop_at)
    return Retrier(health, pauses), pauses, health


def test_a_call_that_succeeds_does_not_pause() -> None:
    retrier, pauses, health = _retrier()
    assert retrier.call("writing", _fails(0, UnavailableError())) == "done"
    assert (pauses.seconds, health.problems()) == ([], {})


def test_pauses_are_jittered_and_grow_up_to_half_a_minute() -> None:
    retrier, pauses, _ = _retrier()
    assert retrier.call("writing", _fails(200, UnavailableError("busy"))) == "done"
    for attempt, seconds in enumerate(pauses.seconds):
        assert 0 <= seconds <= min(30, 0.5 * 2**attempt)
    assert max(pauses.seconds[10:]) > 15
    assert len(set(pauses.seconds)) == 200


def test_health_says_what_fails_until_the_call_succeeds() -> None:
    retrier, pauses, health = _retrier()
    retrier.call("writing 3 documents to rows", _fails(2, UnavailableError("busy")))
    assert pauses.problems == ["writing 3 documents to rows: busy"] * 2
    assert health.problems() == {}


@pytest.mark.parametrize(
    "error",
    [ConnectionError("N/A", "refused", OSError()), TransportError(429, "", {}), TransportError(503, "", {})],
    ids=["connection", "429", "503"],
)
def test_a_transient_error_is_retried(error: Exception) -> None:
    retrier, pauses, _ = _retrier()
    assert retrier.call("writing", _fails(3, error), sends_documents=True) == "done"
    assert len(pauses.seconds) == 3


def test_a_refusal_is_raised_if_documents_are_sent_and_retried_otherwise() -> None:
    retrier, pauses, _ = _retrier()
    with pytest.raises(RequestError):
        retrier.call("writing", _fails(1, REFUSED), sends_documents=True)
    assert pauses.seconds == []
    assert retrier.call("preparing", _fails(1, REFUSED)) == "done"
    assert len(pauses.seconds) == 1


def test_a_missing_index_and_errors_of_the_code_are_not_retried() -> None:
    retrier, pauses, _ = _retrier()
    with pytest.raises(ReindexRequiredError, match="index rows was deleted"):
        retrier.call("reading", _fails(1, MISSING))
    with pytest.raises(KeyError):
        retrier.call("reading", _fails(1, KeyError("items")))
    assert pauses.seconds == []


def test_a_stop_ends_the_retries() -> None:
    retrier, pauses, health = _retrier(stop_at=3)
    with pytest.raises(StoppedError):
        retrier.call("writing", _fails(99, UnavailableError("busy")))
    assert len(pauses.seconds) == 3
    assert health.problems() == {ELASTICSEARCH: "writing: busy"}


def test_a_heartbeat_sleeps_for_a_moment_and_notices_a_stop() -> None:
    retrier, pauses, _ = _retrier(stop_at=2)
    retrier.heartbeat()
    assert pauses.seconds == [0.01]
    with pytest.raises(StoppedError):
        retrier.heartbeat()
