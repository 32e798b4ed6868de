"""What an answer of Elasticsearch's is about: the document, the index, or the cluster."""

from typing import Any

import pytest
import urllib3
from elasticsearch.exceptions import (
    ConnectionError,
    ConnectionTimeout,
    NotFoundError,
    RequestError,
    SerializationError,
    TransportError,
)
from elasticsearch_sink_alert.answers import EmptiedError, Meaning, UnavailableError, describe, meaning, meaning_of
from elasticsearch_sink_alert.bulk import Document, Fate, Request

FULL = "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [9]/[9] maximum ...;"
ARGUMENT = "illegal_argument_exception"


@pytest.mark.parametrize(
    ("status", "kind", "reason", "expected"),
    [
        (400, "mapper_parsing_exception", "failed to parse field [a] of type [long]", Meaning.REFUSED),
        (400, "strict_dynamic_mapping_exception", "mapping set to strict", Meaning.REFUSED),
        (400, "action_request_validation_exception", "id [x] is too long", Meaning.REFUSED),
        (400, ARGUMENT, "Document contains at least one immense term in field", Meaning.REFUSED),
        (400, ARGUMENT, "Limit of total fields [1000] has been exceeded", Meaning.REFUSED),
        # What a document quotes does not count.
        (400, "mapper_parsing_exception", f"Preview of field's value: '{FULL}'", Meaning.REFUSED),
        (400, ARGUMENT, f"field name cannot be [{FULL}]", Meaning.REFUSED),
        (413, "", "", Meaning.REFUSED),
        (404, "index_not_found_exception", "no such index [x]", Meaning.GONE),
        (400, "index_closed_exception", "closed", Meaning.IN_THE_WAY),
        (403, "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)]", Meaning.IN_THE_WAY),
        (429, "cluster_block_exception", "[TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage]", Meaning.IN_THE_WAY),
        (429, "circuit_breaking_exception", "[parent] Data too large", Meaning.IN_THE_WAY),
        (429, "es_rejected_execution_exception", "rejected execution", Meaning.IN_THE_WAY),
        (503, "unavailable_shards_exception", "primary shard is not active", Meaning.IN_THE_WAY),
        (503, "process_cluster_event_timeout_exception", "failed to process", Meaning.IN_THE_WAY),
        (404, "shard_not_found_exception", "no such shard", Meaning.IN_THE_WAY),
        (400, "validation_exception", FULL, Meaning.IN_THE_WAY),
        (400, "routing_missing_exception", "routing is required for [x]/[_doc]/[1]", Meaning.IN_THE_WAY),
        (400, ARGUMENT, "pipeline with id [x] does not exist", Meaning.IN_THE_WAY),
        (400, ARGUMENT, "no write index is defined for alias [x-sink]", Meaning.IN_THE_WAY),
        (400, ARGUMENT, "Number of documents in shard [x][0] exceeds the limit of [2147483519]", Meaning.IN_THE_WAY),
        (401, "security_exception", "missing authentication credentials", Meaning.IN_THE_WAY),
        # A proxy's.
        (404, "", "", Meaning.IN_THE_WAY),
        (400, "", "", Meaning.IN_THE_WAY),
        (405, "", "", Meaning.IN_THE_WAY),
        (302, "", "", Meaning.IN_THE_WAY),
        (502, "", "", Meaning.IN_THE_WAY),
    ],
)
def test_an_error_is_about_the_document_or_about_what_is_in_the_way(
    status: int, kind: str, reason: str, expected: Meaning
) -> None:
    assert meaning(status, kind, reason) is expected


def test_what_the_client_raises_is_judged_the_same_way_and_is_one_line() -> None:
    page = NotFoundError(404, "<html>\n<body>\n", "<html>\n<body>\n")
    full = RequestError(400, "validation_exception", {"error": {"type": "validation_exception", "reason": FULL}})
    for error in (
        ConnectionError("N/A", "refused", OSError()),
        ConnectionTimeout("TIMEOUT", "slow", OSError()),
        SerializationError("<html>\n" * 1_000),
        UnavailableError("later"),
        TransportError(503, "x", {}),
        page,
        full,
    ):
        assert meaning_of(error) is Meaning.IN_THE_WAY
        assert "\n" not in describe(error)
        assert len(describe(error)) < 1_100
    assert "raise cluster.max_shards_per_node" in describe(full)
    assert meaning_of(KeyError("items")) is None


def _attempt(documents: list[Document], *items: dict[str, Any]) -> list[Fate]:
    request = Request([(document, document.lines()) for document in documents])
    request.attempt(lambda _: list(items))
    return [outcome.fate for outcome in request.outcomes]


INDEXED, DELETED = Document("agg_x", "1", 1, b"{}"), Document("agg_x", "1", 1, None)
GONE = {"type": "index_not_found_exception", "reason": "no such index [agg_x-sink]"}


def test_a_404_is_the_end_of_a_deletion_alone_and_only_if_the_index_is_there() -> None:
    assert _attempt([DELETED], {"status": 404}) == [Fate.WRITTEN]
    for document in (INDEXED, DELETED):
        with pytest.raises(EmptiedError, match="index agg_x was deleted"):
            _attempt([document], {"status": 404, "error": GONE})
    with pytest.raises(UnavailableError):
        _attempt([INDEXED], {"status": 404})


def test_an_answer_of_another_length_is_no_answer() -> None:
    with pytest.raises(UnavailableError, match="2 documents were sent, and 1 answered"):
        _attempt([INDEXED, DELETED], {"status": 201})


def test_documents_are_written_through_the_alias() -> None:
    assert b'"_index":"agg_x-sink"' in INDEXED.lines()
    assert b'"_index":"agg_x-sink"' in DELETED.lines()


def test_a_refused_connection_is_described_once() -> None:
    connection = urllib3.connection.HTTPConnection("localhost")
    cause = urllib3.exceptions.NewConnectionError(connection, "Failed to connect: [Errno 111] Connection refused")
    error = ConnectionError("N/A", str(cause), cause)
    assert describe(error) == f"ConnectionError: {cause}"
    assert describe(error).count("Connection refused") == 1
