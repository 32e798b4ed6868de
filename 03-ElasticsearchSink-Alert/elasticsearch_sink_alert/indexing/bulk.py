"""Writes documents with bulk requests, each guarded by its version, and returns the outcome of each one."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final

import orjson
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import SerializationError, TransportError
from elasticsearch.serializer import JSONSerializer

from contract.dead_letters import REFUSED
from elasticsearch_sink_alert import metrics
from elasticsearch_sink_alert.indexing.errors import (
    ErrorKind,
    ReindexRequiredError,
    UnavailableError,
    classify_error,
    classify_exception,
    describe_error,
    error_of,
)
from elasticsearch_sink_alert.indexing.index_templates import index_of, write_alias
from elasticsearch_sink_alert.indexing.retrier import Retrier

_MAX_REQUEST_BYTES: Final = 5 << 20
"""Elasticsearch advises 5 to 15 MB; its limit is 100 MB."""
_MAX_REQUEST_DOCUMENTS: Final = 5_000
"""Makes two requests of a batch of the default size, which Elasticsearch processes side by side."""
_MAX_CONCURRENT_REQUESTS: Final = 5
"""Those of two batches, and one for alerts, which do not wait for the rows of later batches."""


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a bulk request."""

    items: Sequence[Mapping[str, Any]]
    """One for each action, in their order."""
    has_errors: bool = True
    """False: every document was written."""


_ITEM_FIELDS: Final = ",".join(
    f"items.*.{field}" for field in ("status", "error.type", "error.reason", "error.caused_by.reason")
)

Send = Callable[[Sequence[bytes]], Response]
"""Sends the actions of a bulk request."""


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


# Greater or equal: the same version again is the same document, as after a crash before the commit.
_METADATA: Final = b'{"_index":%b,"_id":%b,"version":%d,"version_type":"external_gte"}'
_INDEX: Final = b'{"index":' + _METADATA + b"}\n%b\n"
_DELETE: Final = b'{"delete":' + _METADATA + b"}\n"
_NEWLINE: Final = 0x0A
"""As a number: to look for a byte takes a sixth of the time of a search for `bytes`."""

WRITTEN: Final = Outcome(Result.WRITTEN)
_SUPERSEDED: Final = Outcome(Result.SUPERSEDED)


def bulk_action(index: str, id_: str, version: int, source: bytes | None) -> bytes:
    """Return the lines of a bulk request that write a version of a document, as JSON; None deletes the document."""
    if source is None:
        return _DELETE % (_alias(index), orjson.dumps(id_), version)
    if _NEWLINE in source:
        # Within a text it is an escape. Parsed and written again, a number could change.
        source = source.replace(b"\n", b" ")
    return _INDEX % (_alias(index), orjson.dumps(id_), version, source)


@cache
def _alias(index: str) -> bytes:
    return orjson.dumps(write_alias(index))


class BulkRequest:
    """Actions that are sent together, and the outcomes of their documents."""

    def __init__(self, actions: Sequence[bytes]) -> None:
        self.actions = actions
        self.sent_ns = 0
        """When it was sent first, in nanoseconds since the epoch."""
        self.answered_ns = 0
        """When the last attempt ended."""
        self._outcomes: list[Outcome | None] = [None] * len(actions)

    def attempt(self, send: Send) -> None:
        """Send the actions that have no outcome yet; raises `UnavailableError` if one still has none.

        Raises `ReindexRequiredError` if an index is missing.
        """
        rest = [n for n, outcome in enumerate(self._outcomes) if outcome is None]
        self.sent_ns = self.sent_ns or time.time_ns()
        try:
            response = send([self.actions[n] for n in rest])
        finally:
            self.answered_ns = time.time_ns()
        items = response.items
        if len(items) != len(rest):
            raise UnavailableError(f"{len(rest)} documents were sent, but the response has {len(items)} items")
        if not response.has_errors:
            for n in rest:
                self._outcomes[n] = WRITTEN
            return
        for n, item in zip(rest, items, strict=True):
            self._outcomes[n] = _outcome(self.actions[n], item)
        waiting = [item for n, item in zip(rest, items, strict=True) if self._outcomes[n] is None]
        if waiting:
            raise UnavailableError(f"{len(waiting)} of {len(rest)} documents: {_item_reason(waiting[0])}")

    def halves(self) -> tuple["BulkRequest", "BulkRequest"]:
        """Return two requests, each with half of the actions."""
        middle = len(self.actions) // 2
        return BulkRequest(self.actions[:middle]), BulkRequest(self.actions[middle:])

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes that are known, in the order of the actions."""
        return [outcome for outcome in self._outcomes if outcome is not None]

    def __str__(self) -> str:
        return f"{len(self.actions)} documents to {_index_of(self.actions[0])}"


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

    def write(self, actions: Iterable[bytes]) -> list[Outcome]:
        """Write documents, and return the outcomes in the order of the actions."""
        return self.start(bulk_requests(actions))()

    def start(self, requests: Sequence[BulkRequest]) -> Callable[[], list[Outcome]]:
        """Send requests concurrently; the returned function waits, and returns the outcomes in the actions' order.

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
            self._retrier.call(f"writing {request}", attempt, sends_documents=True)
        except TransportError as error:
            if classify_exception(error) is not ErrorKind.REFUSED:
                raise
            # The whole request was refused, because of one document: bisect to find it.
            if len(request.actions) == 1:
                return [Outcome(Result.REFUSED, f"{REFUSED}: {_request_reason(error)}")]
            return [outcome for half in request.halves() for outcome in self._complete(half)]
        return request.outcomes

    def _await(self, attempt: Future[None]) -> None:
        """Wait for an attempt in the pool; raises what it raised."""
        while wait([attempt], timeout=1.0).not_done:
            self._retrier.heartbeat()
        attempt.result()


def send_with(client: Elasticsearch) -> Send:
    """Return the function that sends bulk requests with this client; raises what the client does."""

    def send(actions: Sequence[bytes]) -> Response:
        started = time.monotonic()
        response: Any = client.transport.perform_request(
            "POST",
            "/_bulk",
            headers={"content-type": "application/x-ndjson"},
            params={
                "filter_path": f"errors,{_ITEM_FIELDS}",
                # No write creates an index.
                "require_alias": "true",
                # Default pipelines of the index settings or of other templates are not applied to rows.
                "pipeline": "_none",
            },
            body=b"".join(actions),
        )
        metrics.BULK_SECONDS.observe(time.monotonic() - started)
        try:
            has_errors, items = response["errors"], response["items"]
            if has_errors is False:
                return Response(items, has_errors=False)
            items = [result for item in items for result in item.values()]
            if all("status" in item for item in items):
                return Response(items)
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


def bulk_requests(actions: Iterable[bytes]) -> list[BulkRequest]:
    """Return the requests with these actions, none of them larger than the limits."""
    documents = list(actions)
    return [
        BulkRequest(chunk)
        for start in range(0, len(documents), _MAX_REQUEST_DOCUMENTS)
        for chunk in _by_size(documents[start : start + _MAX_REQUEST_DOCUMENTS])
    ]


def _by_size(actions: list[bytes]) -> Iterator[list[bytes]]:
    if sum(map(len, actions)) <= _MAX_REQUEST_BYTES:
        yield actions
        return
    chunk: list[bytes] = []
    size = 0
    for action in actions:
        if chunk and size + len(action) > _MAX_REQUEST_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(action)
        size += len(action)
    yield chunk


def _index_of(action: bytes) -> str:
    (metadata,) = orjson.loads(action.split(b"\n", 1)[0]).values()
    return index_of(metadata["_index"])


def _outcome(action: bytes, item: Mapping[str, Any]) -> Outcome | None:
    """Return the outcome; None if a retry may succeed. Raises `ReindexRequiredError` if the index is missing."""
    status, error = item["status"], item.get("error")
    if error is None:
        if isinstance(status, int) and (status < 300 or (status == 404 and action.startswith(b'{"delete":'))):
            return WRITTEN  # The deletion of a document that does not exist answers 404.
        return None
    if status == 409:
        return _SUPERSEDED
    match classify_error(status, str(error.get("type")), str(error.get("reason"))):
        case ErrorKind.INDEX_MISSING:
            raise ReindexRequiredError(f"index {_index_of(action)} was deleted")
        case ErrorKind.TRANSIENT:
            return None
        case ErrorKind.REFUSED:
            return Outcome(Result.REFUSED, f"{REFUSED}: {_item_reason(item)}")


def _item_reason(item: Mapping[str, Any]) -> str:
    return describe_error(item["status"], item.get("error", {}))


def _request_reason(error: TransportError) -> str:
    return describe_error(error.status_code, error_of(error) or {"type": "the request is too large"})
