"""An error of Elasticsearch is about the document, the index, or the cluster."""

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
from elasticsearch_sink_alert.indexing.errors import (
    ErrorKind,
    UnavailableError,
    classify_error,
    classify_exception,
    describe_exception,
)

FULL = "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [9]/[9] maximum ...;"
ARGUMENT = "illegal_argument_exception"


@pytest.mark.parametrize(
    ("status", "error_type", "reason", "expected"),
    [
        (400, "mapper_parsing_exception", "failed to parse field [a] of type [long]", ErrorKind.REFUSED),
        (400, "strict_dynamic_mapping_exception", "mapping set to strict", ErrorKind.REFUSED),
        (400, "action_request_validation_exception", "id [x] is too long", ErrorKind.REFUSED),
        (400, ARGUMENT, "Document contains at least one immense term in field", ErrorKind.REFUSED),
        (400, ARGUMENT, "Limit of total fields [1000] has been exceeded", ErrorKind.REFUSED),
        # Text that is quoted from a document does not count.
        (400, "mapper_parsing_exception", f"Preview of field's value: '{FULL}'", ErrorKind.REFUSED),
        (400, ARGUMENT, f"field name cannot be [{FULL}]", ErrorKind.REFUSED),
        (413, "", "", ErrorKind.REFUSED),
        (404, "index_not_found_exception", "no such index [x]", ErrorKind.INDEX_MISSING),
        (400, "index_closed_exception", "closed", ErrorKind.TRANSIENT),
        (403, "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)]", ErrorKind.TRANSIENT),
        (429, "cluster_block_exception", "[TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage]", ErrorKind.TRANSIENT),
        (429, "circuit_breaking_exception", "[parent] Data too large", ErrorKind.TRANSIENT),
        (429, "es_rejected_execution_exception", "rejected execution", ErrorKind.TRANSIENT),
        (503, "unavailable_shards_exception", "primary shard is not active", ErrorKind.TRANSIENT),
        (503, "process_cluster_event_timeout_exception", "failed to process", ErrorKind.TRANSIENT),
        (404, "shard_not_found_exception", "no such shard", ErrorKind.TRANSIENT),
        (400, "validation_exception", FULL, ErrorKind.TRANSIENT),
        (400, "routing_missing_exception", "routing is required for [x]/[_doc]/[1]", ErrorKind.TRANSIENT),
        (400, ARGUMENT, "pipeline with id [x] does not exist", ErrorKind.TRANSIENT),
        (400, ARGUMENT, "no write index is defined for alias [x-sink]", ErrorKind.TRANSIENT),
        (400, ARGUMENT, "Number of documents in shard [x][0] exceeds the limit of [2147483519]", ErrorKind.TRANSIENT),
        (401, "security_exception", "missing authentication credentials", ErrorKind.TRANSIENT),
        # From a proxy.
        (404, "", "", ErrorKind.TRANSIENT),
        (400, "", "", ErrorKind.TRANSIENT),
        (405, "", "", ErrorKind.TRANSIENT),
        (302, "", "", ErrorKind.TRANSIENT),
        (502, "", "", ErrorKind.TRANSIENT),
    ],
)
def test_an_error_is_about_the_document_the_index_or_the_cluster(
    status: int, error_type: str, reason: str, expected: ErrorKind
) -> None:
    assert classify_error(status, error_type, reason) is expected


def test_exceptions_of_the_client_are_classified_the_same_way_and_described_in_one_line() -> None:
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
        assert classify_exception(error) is ErrorKind.TRANSIENT
        assert "\n" not in describe_exception(error)
        assert len(describe_exception(error)) < 1_100
    assert "raise cluster.max_shards_per_node" in describe_exception(full)
    assert classify_exception(KeyError("items")) is None


def test_a_refused_connection_is_described_once() -> None:
    connection = urllib3.connection.HTTPConnection("localhost")
    cause = urllib3.exceptions.NewConnectionError(connection, "Failed to connect: [Errno 111] Connection refused")
    error = ConnectionError("N/A", str(cause), cause)
    assert describe_exception(error) == f"ConnectionError: {cause}"
    assert describe_exception(error).count("Connection refused") == 1
