"""Outcomes of bulk requests, and the bisection of a request that is refused as a whole."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
import pytest
from elasticsearch.exceptions import ConnectionError, RequestError, TransportError
from elasticsearch_sink_alert.indexing.bulk import (
    WRITTEN,
    BulkRequest,
    BulkWriter,
    Outcome,
    Response,
    Result,
    bulk_action,
    bulk_requests,
)
from elasticsearch_sink_alert.indexing.errors import ReindexRequiredError, UnavailableError
from elasticsearch_sink_alert.indexing.retrier import ELASTICSEARCH, Retrier

from runtime.health import Health

INDEXED, DELETED = bulk_action("agg_x", "1", 1, b"{}"), bulk_action("agg_x", "1", 1, None)
MISSING = {"type": "index_not_found_exception", "reason": "no such index [agg_x-sink]"}
TOO_LARGE = TransportError(413, "Request Entity Too Large", {})
CREATED = {"status": 201}


def _attempt(actions: list[bytes], *items: dict[str, Any]) -> list[Result]:
    request = BulkRequest(actions)
    request.attempt(lambda _: Response(items))
    return [outcome.result for outcome in request.outcomes]


class Server:
    """Accepts or refuses requests, without a network: `respond` gets the ids of a request's documents."""

    def __init__(self, respond: Callable[[list[str]], list[dict[str, Any]]]) -> None:
        self._respond = respond
        self.requests: list[list[str]] = []

    def __call__(self, actions: Sequence[bytes]) -> Response:
        ids = [orjson.loads(each.split(b"\n")[0])["index"]["_id"] for each in actions]
        self.requests.append(ids)
        return Response(self._respond(ids))


def _write(server: Server, *ids: str, checks: list[str] | None = None) -> list[Outcome]:
    def require_same_cluster() -> None:
        if checks is not None:
            checks.append("checked")

    retrier = Retrier(Health(ELASTICSEARCH), sleep=lambda _: None)
    return BulkWriter(server, retrier, require_same_cluster).write([bulk_action("agg_x", id_, 1, b"{}") for id_ in ids])


@pytest.mark.parametrize(
    ("item", "result"),
    [
        ({"status": 200}, Result.WRITTEN),
        ({"status": 201}, Result.WRITTEN),
        ({"status": 409, "error": {"type": "version_conflict_engine_exception"}}, Result.SUPERSEDED),
        ({"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "failed"}}, Result.REFUSED),
    ],
    ids=["updated", "created", "older version", "wrong type"],
)
def test_each_document_has_an_outcome_of_its_own(item: dict[str, Any], result: Result) -> None:
    assert _attempt([INDEXED], item) == [result]
    assert _attempt([INDEXED, INDEXED], CREATED, item) == [Result.WRITTEN, result]


def test_a_404_completes_only_a_deletion_and_only_if_the_index_exists() -> None:
    assert _attempt([DELETED], {"status": 404}) == [Result.WRITTEN]
    for document in (INDEXED, DELETED):
        with pytest.raises(ReindexRequiredError, match="index agg_x was deleted"):
            _attempt([document], {"status": 404, "error": MISSING})
    with pytest.raises(UnavailableError):
        _attempt([INDEXED], {"status": 404})


def test_a_response_of_another_length_is_not_accepted() -> None:
    with pytest.raises(UnavailableError, match="2 documents were sent, but the response has 1 items"):
        _attempt([INDEXED, DELETED], CREATED)


def test_a_response_without_errors_has_written_every_document() -> None:
    request = BulkRequest([INDEXED, DELETED])
    request.attempt(lambda _: Response([{}, {}], has_errors=False))
    assert request.outcomes == [WRITTEN, WRITTEN]


def test_a_response_without_errors_of_another_length_is_not_accepted() -> None:
    with pytest.raises(UnavailableError, match="2 documents were sent, but the response has 1 items"):
        BulkRequest([INDEXED, DELETED]).attempt(lambda _: Response([{}], has_errors=False))


def test_documents_are_written_through_the_alias() -> None:
    assert b'"_index":"agg_x-sink"' in INDEXED
    assert b'"_index":"agg_x-sink"' in DELETED


def test_any_text_can_be_an_id() -> None:
    for id_ in ('a"\\\n\x01', "ü🙂", "%d"):
        metadata, source = bulk_action("agg_x", id_, 7, b'{"a": "%b"}').splitlines()
        assert orjson.loads(metadata)["index"]["_id"] == id_
        assert source == b'{"a": "%b"}'


def test_only_documents_without_an_outcome_are_sent_again() -> None:
    rejected = {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "queue full"}}
    items: Iterator[list[dict[str, Any]]] = iter(
        [[CREATED, rejected, {"status": 409, "error": {"type": "v"}}], [CREATED]]
    )
    server = Server(lambda _: next(items))
    checks: list[str] = []
    outcomes = _write(server, "a", "b", "c", checks=checks)
    assert [outcome.result for outcome in outcomes] == [Result.WRITTEN, Result.WRITTEN, Result.SUPERSEDED]
    assert server.requests == [["a", "b", "c"], ["b"]]
    assert len(checks) == 1, "before a repeated attempt, the cluster is checked"


def test_a_refused_connection_is_retried() -> None:
    responses = iter([ConnectionError("N/A", "refused", OSError()), None])

    def respond(ids: list[str]) -> list[dict[str, Any]]:
        if error := next(responses):
            raise error
        return [CREATED] * len(ids)

    server = Server(respond)
    assert [outcome.result for outcome in _write(server, "a", "b")] == [Result.WRITTEN] * 2
    assert server.requests == [["a", "b"]] * 2


def test_a_request_that_is_too_large_is_halved_until_only_one_document_is_refused() -> None:
    def respond(ids: list[str]) -> list[dict[str, Any]]:
        if "large" in ids:
            raise TOO_LARGE
        return [CREATED] * len(ids)

    server = Server(respond)
    outcomes = _write(server, "a", "b", "c", "large", "d")
    assert [outcome.result for outcome in outcomes] == [Result.WRITTEN] * 3 + [Result.REFUSED, Result.WRITTEN]
    assert outcomes[3].reason == "Elasticsearch refuses it: 413 the request is too large"
    assert server.requests == [
        ["a", "b", "c", "large", "d"],
        ["a", "b"],
        ["c", "large", "d"],
        ["c"],
        ["large", "d"],
        ["large"],
        ["d"],
    ]


def test_a_request_whose_sum_is_too_large_is_written_in_halves() -> None:
    def respond(ids: list[str]) -> list[dict[str, Any]]:
        if len(ids) > 2:
            raise TOO_LARGE
        return [CREATED] * len(ids)

    server = Server(respond)
    assert [outcome.result for outcome in _write(server, *"abcdef")] == [Result.WRITTEN] * 6
    assert sorted(len(ids) for ids in server.requests) == [1, 1, 2, 2, 3, 3, 6]


def test_a_request_that_is_refused_with_a_reason_refuses_its_document() -> None:
    error = {"error": {"type": "parse_exception", "reason": "cannot parse"}, "status": 400}

    def respond(_: list[str]) -> list[dict[str, Any]]:
        raise RequestError(400, "parse_exception", error)

    (outcome,) = _write(Server(respond), "a")
    assert outcome == Outcome(Result.REFUSED, "Elasticsearch refuses it: 400 parse_exception: cannot parse")


def test_a_missing_index_requires_the_topic_to_be_indexed_again() -> None:
    with pytest.raises(ReindexRequiredError, match="index agg_x was deleted"):
        _write(Server(lambda ids: [{"status": 404, "error": MISSING}] * len(ids)), "a")


def test_requests_are_limited_in_documents_and_bytes() -> None:
    small = [bulk_action("agg_x", str(n), 1, b"{}") for n in range(5_001)]
    assert [len(request.actions) for request in bulk_requests(small)] == [5_000, 1]
    large = [bulk_action("agg_x", str(n), 1, b'"' + b"x" * (2 << 20) + b'"') for n in range(5)]
    assert [len(request.actions) for request in bulk_requests(large)] == [2, 2, 1]
    assert bulk_requests([]) == []
