"""Writes documents with bulk requests, each guarded by its version, and returns the outcome of each one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import orjson
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import SerializationError, TransportError
from elasticsearch.serializer import JSONSerializer

from elasticsearch_sink_alert.indexing.errors import (
    ErrorKind,
    ReindexRequiredError,
    UnavailableError,
    classify_error,
    classify_exception,
    describe_error,
    error_of,
)
from elasticsearch_sink_alert.indexing.index_templates import write_alias
from elasticsearch_sink_alert.indexing.retrier import Retrier

_MAX_REQUEST_BYTES: Final = 5 << 20
"""Elasticsearch advises 5 to 15 MB; its limit is 100 MB."""
_MAX_REQUEST_DOCUMENTS: Final = 5_000
"""Makes two requests of a batch of the default size, which Elasticsearch processes side by side."""
_MAX_CONCURRENT_REQUESTS: Final = 5
"""Those of two batches, and one for alerts, which do not wait for the rows of later batches."""

Send = Callable[[Sequence[bytes]], list[dict[str, Any]]]
"""Sends the lines of a bulk request, and returns one item of the response per document."""


class Result(Enum):
    """What Elasticsearch did with a document."""

    WRITTEN = "written"
    SUPERSEDED = "superseded"
    """A newer version is indexed already."""
    REFUSED = "refused"
    """The document does not fit the index, and never will."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for a document, and why it was refused."""

    result: Result
    reason: str = ""


_WRITTEN: Final = Outcome(Result.WRITTEN)
_SUPERSEDED: Final = Outcome(Result.SUPERSEDED)


@dataclass(slots=True)
class Document:
    """A version of a document, or of its deletion."""

    index: str
    id: str
    version: int
    source: bytes | None
    """JSON; None deletes the document."""

    def lines(self) -> bytes:
        """Return its lines of a bulk request."""
        action = "delete" if self.source is None else "index"
        # Greater or equal: the same version again is the same document, as after a crash before the commit.
        metadata = {
            "_index": write_alias(self.index),
            "_id": self.id,
            "version": self.version,
            "version_type": "external_gte",
        }
        header = orjson.dumps({action: metadata})
        if self.source is None:
            return header + b"\n"
        source = self.source if b"\n" not in self.source else orjson.dumps(orjson.loads(self.source))
        return header + b"\n" + source + b"\n"


class BulkRequest:
    """Documents that are sent together, and their outcomes."""

    def __init__(self, documents: Sequence[tuple[Document, bytes]]) -> None:
        self.documents = documents
        self._outcomes: list[Outcome | None] = [None] * len(documents)

    def attempt(self, send: Send) -> None:
        """Send the documents that have no outcome yet; raises `UnavailableError` if one still has none.

        Raises `ReindexRequiredError` if an index is missing.
        """
        rest = [n for n, outcome in enumerate(self._outcomes) if outcome is None]
        items = send([self.documents[n][1] for n in rest])
        if len(items) != len(rest):
            raise UnavailableError(f"{len(rest)} documents were sent, but the response has {len(items)} items")
        for n, item in zip(rest, items, strict=True):
            self._outcomes[n] = _outcome(self.documents[n][0], item)
        waiting = [item for n, item in zip(rest, items, strict=True) if self._outcomes[n] is None]
        if waiting:
            raise UnavailableError(f"{len(waiting)} of {len(rest)} documents: {_item_reason(waiting[0])}")

    def halves(self) -> tuple["BulkRequest", "BulkRequest"]:
        """Return two requests, each for half of the documents."""
        middle = len(self.documents) // 2
        return BulkRequest(self.documents[:middle]), BulkRequest(self.documents[middle:])

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes that are known, in the order of the documents."""
        return [outcome for outcome in self._outcomes if outcome is not None]


class BulkWriter:
    """Writes until every document is written, superseded or refused.

    Before an attempt is repeated, `require_same_cluster` is called. Raises what that does, and `ReindexRequiredError`
    if an index is missing.
    """

    def __init__(self, send: Send, retrier: Retrier, require_same_cluster: Callable[[], None]) -> None:
        self._send = send
        self._retrier = retrier
        self._require_same_cluster = require_same_cluster
        self._pool = ThreadPoolExecutor(_MAX_CONCURRENT_REQUESTS, thread_name_prefix="bulk")

    def write(self, documents: Sequence[Document]) -> list[Outcome]:
        """Write documents, and return the outcomes in their order."""
        return self.start(bulk_requests(documents))()

    def start(self, requests: Sequence[BulkRequest]) -> Callable[[], list[Outcome]]:
        """Send requests concurrently; the returned function waits, and returns the outcomes in the documents' order.

        Every document has to be another one, as the order of the requests is not defined.
        """
        attempts = [self._pool.submit(request.attempt, self._send) for request in requests]
        return lambda: [
            outcome
            for request, attempt in zip(requests, attempts, strict=True)
            for outcome in self._complete(request, attempt)
        ]

    def _complete(self, request: BulkRequest, first: Future[None] | None = None) -> list[Outcome]:
        """Return the request's outcomes, after its first attempt, if it was started, and as many more as it takes."""
        started = [] if first is None else [first]

        def attempt() -> None:
            if started:
                self._await(started.pop())
            else:
                self._require_same_cluster()
                request.attempt(self._send)

        try:
            description = f"writing {len(request.documents)} documents to {request.documents[0][0].index}"
            self._retrier.call(description, attempt, sends_documents=True)
        except TransportError as error:
            if classify_exception(error) is not ErrorKind.REFUSED:
                raise
            # The whole request was refused, because of one document: bisect to find it.
            if len(request.documents) == 1:
                return [Outcome(Result.REFUSED, f"Elasticsearch refuses it: {_request_reason(error)}")]
            return [outcome for half in request.halves() for outcome in self._complete(half)]
        return request.outcomes

    def _await(self, attempt: Future[None]) -> None:
        """Wait for an attempt in the pool; raises what it raised."""
        while wait([attempt], timeout=1.0).not_done:
            self._retrier.heartbeat()
        attempt.result()


def send_with(client: Elasticsearch) -> Send:
    """Return the function that sends bulk requests with this client; raises what the client does."""

    def send(lines: Iterable[bytes]) -> list[dict[str, Any]]:
        response: Any = client.transport.perform_request(
            "POST",
            "/_bulk",
            headers={"content-type": "application/x-ndjson"},
            params={
                "filter_path": "items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason",
                # No write creates an index.
                "require_alias": "true",
                # Default pipelines of the index settings or of other templates are not applied to rows.
                "pipeline": "_none",
            },
            body=b"".join(lines),
        )
        try:
            items = [result for item in response["items"] for result in item.values()]
            if all("status" in item for item in items):
                return items
        except (AttributeError, KeyError, TypeError):
            pass
        raise UnavailableError(f"not Elasticsearch's response to a bulk request: {str(response)[:200]}")

    return send


class Serializer(JSONSerializer):
    """The client's serializer, with a faster parser of responses."""

    def loads(self, s: str) -> Any:
        """Parse a response; raises `SerializationError`."""
        try:
            return orjson.loads(s)
        except orjson.JSONDecodeError as error:
            raise SerializationError(s, error) from None


def bulk_requests(documents: Iterable[Document]) -> list[BulkRequest]:
    """Return the requests that write these documents, none of them larger than the limits."""
    return [BulkRequest(chunk) for chunk in _chunks(documents)]


def _chunks(documents: Iterable[Document]) -> Iterator[list[tuple[Document, bytes]]]:
    chunk: list[tuple[Document, bytes]] = []
    size = 0
    for document in documents:
        lines = document.lines()
        if chunk and (size + len(lines) > _MAX_REQUEST_BYTES or len(chunk) == _MAX_REQUEST_DOCUMENTS):
            yield chunk
            chunk, size = [], 0
        chunk.append((document, lines))
        size += len(lines)
    if chunk:
        yield chunk


def _outcome(document: Document, item: dict[str, Any]) -> Outcome | None:
    """Return the outcome; None if a retry may succeed. Raises `ReindexRequiredError` if the index is missing."""
    status, error = item["status"], item.get("error")
    if error is None:
        if isinstance(status, int) and (status < 300 or (status == 404 and document.source is None)):
            return _WRITTEN  # The deletion of a document that does not exist answers 404.
        return None
    if status == 409:
        return _SUPERSEDED
    match classify_error(status, str(error.get("type")), str(error.get("reason"))):
        case ErrorKind.INDEX_MISSING:
            raise ReindexRequiredError(f"index {document.index} was deleted")
        case ErrorKind.TRANSIENT:
            return None
        case ErrorKind.REFUSED:
            return Outcome(Result.REFUSED, f"Elasticsearch refuses it: {_item_reason(item)}")


def _item_reason(item: dict[str, Any]) -> str:
    return describe_error(item["status"], item.get("error", {}))


def _request_reason(error: TransportError) -> str:
    return describe_error(error.status_code, error_of(error) or {"type": "the request is too large"})
