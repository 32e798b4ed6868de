"""Writes documents in bulk, each guarded by its version, and tells what became of each one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import orjson
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import SerializationError, TransportError
from elasticsearch.serializer import JSONSerializer

from elasticsearch_sink_alert.indexing.answers import (
    EmptiedError,
    Meaning,
    UnavailableError,
    describe_answer,
    error_of,
    meaning,
    meaning_of,
)
from elasticsearch_sink_alert.indexing.cluster import Cluster
from elasticsearch_sink_alert.indexing.index_templates import write_alias
from elasticsearch_sink_alert.indexing.retrier import Patience

_REQUEST_BYTES: Final = 5 << 20
"""Where a request is full; Elasticsearch's own advice is 5 to 15 MB, and its limit 100 MB."""
_REQUEST_DOCUMENTS: Final = 5_000
"""The same; a batch of the default size is then two requests, which Elasticsearch works on side by side."""
_REQUESTS_AT_ONCE: Final = 5
"""Those of two batches, and one for alerts, which do not wait for the rows of later batches."""


class Fate(Enum):
    """What became of a document."""

    WRITTEN = "written"
    SUPERSEDED = "superseded"
    """A newer version is there already."""
    REFUSED = "refused"
    """It does not fit, and never will."""


@dataclass(slots=True)
class Document:
    """A version of a document, or of its deletion."""

    index: str
    id: str
    version: int
    source: bytes | None
    """JSON; None deletes the document."""

    def lines(self) -> bytes:
        """Its part of a bulk request."""
        action = "delete" if self.source is None else "index"
        # Greater or equal: the same version again is the same document, as after a crash before the commit.
        where = {
            "_index": write_alias(self.index),
            "_id": self.id,
            "version": self.version,
            "version_type": "external_gte",
        }
        header = orjson.dumps({action: where})
        if self.source is None:
            return header + b"\n"
        source = self.source if b"\n" not in self.source else orjson.dumps(orjson.loads(self.source))
        return header + b"\n" + source + b"\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A document's fate, and why it was refused."""

    fate: Fate
    reason: str = ""


_WRITTEN: Final = Outcome(Fate.WRITTEN)
_SUPERSEDED: Final = Outcome(Fate.SUPERSEDED)


class Serializer(JSONSerializer):
    """The client's, with a faster parser of answers."""

    def loads(self, s: str) -> Any:
        """Parse an answer; raises `SerializationError`."""
        try:
            return orjson.loads(s)
        except orjson.JSONDecodeError as error:
            raise SerializationError(s, error) from None


class Request:
    """Documents that are sent together, and what became of each of them so far."""

    def __init__(self, documents: Sequence[tuple[Document, bytes]]) -> None:
        self.documents = documents
        self._outcomes: list[Outcome | None] = [None] * len(documents)

    def attempt(self, request: Callable[[Sequence[bytes]], list[dict[str, Any]]]) -> None:
        """Send what has no outcome yet; raises `UnavailableError` where something still has none.

        Raises `EmptiedError` if an index is gone.
        """
        rest = [n for n, outcome in enumerate(self._outcomes) if outcome is None]
        items = request([self.documents[n][1] for n in rest])
        if len(items) != len(rest):
            raise UnavailableError(f"{len(rest)} documents were sent, and {len(items)} answered: that is no answer")
        for n, item in zip(rest, items, strict=True):
            self._outcomes[n] = _outcome(self.documents[n][0], item)
        waiting = [item for n, item in zip(rest, items, strict=True) if self._outcomes[n] is None]
        if waiting:
            raise UnavailableError(f"{len(waiting)} of {len(rest)} documents: {_reason(waiting[0])}")

    @property
    def outcomes(self) -> list[Outcome]:
        """Those that there are."""
        return [outcome for outcome in self._outcomes if outcome is not None]


class BulkWriter:
    """Writes until every document is written, superseded or refused; nothing else is given up.

    Raises `EmptiedError` if an index is gone, or if another cluster answers after a failure.
    """

    def __init__(self, client: Elasticsearch, patience: Patience, cluster: Cluster) -> None:
        self._client = client
        self._patience = patience
        self._cluster = cluster
        self._pool = ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="bulk")

    def write(self, documents: Sequence[Document]) -> list[Outcome]:
        """The outcomes, in the order of the documents."""
        return self.begin(requests(documents))()

    def begin(self, parts: Sequence[Request]) -> Callable[[], list[Outcome]]:
        """Send what `requests` has made, a few at once; what is returned waits, and gives what `write` does.

        No two of the documents may be the same one, for which of the requests comes first is left open.
        """
        attempts = [self._pool.submit(part.attempt, self._request) for part in parts]
        return lambda: [
            outcome for part, attempt in zip(parts, attempts, strict=True) for outcome in self._finish(part, attempt)
        ]

    def _finish(self, part: Request, first: Future[None] | None) -> list[Outcome]:
        begun = [] if first is None else [first]

        def attempt() -> None:
            if begun:
                self._await(begun.pop())
            else:
                self._cluster.require_same()
                part.attempt(self._request)

        try:
            description = f"writing {len(part.documents)} documents to {part.documents[0][0].index}"
            self._patience.call(description, attempt, of_documents=True)
        except TransportError as error:
            if meaning_of(error) is not Meaning.REFUSED:
                raise
            # The request as a whole was refused. One document must be to blame: look for it by halves.
            if len(part.documents) == 1:
                return [Outcome(Fate.REFUSED, f"Elasticsearch refuses it: {_whole_reason(error)}")]
            middle = len(part.documents) // 2
            halves = part.documents[:middle], part.documents[middle:]
            return [outcome for half in halves for outcome in self._finish(Request(half), None)]
        return part.outcomes

    def _await(self, attempt: Future[None]) -> None:
        """The end of an attempt; raises what it raised."""
        while wait([attempt], timeout=1.0).not_done:
            self._patience.stay()
        attempt.result()

    def _request(self, lines: Iterable[bytes]) -> list[dict[str, Any]]:
        answer: Any = self._client.transport.perform_request(
            "POST",
            "/_bulk",
            headers={"content-type": "application/x-ndjson"},
            params={
                "filter_path": "items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason",
                # No write creates an index.
                "require_alias": "true",
                # What an index's settings or someone's template would do to the rows.
                "pipeline": "_none",
            },
            body=b"".join(lines),
        )
        try:
            items = [result for item in answer["items"] for result in item.values()]
            if all("status" in item for item in items):
                return items
        except (AttributeError, KeyError, TypeError):
            pass
        raise UnavailableError(f"this is no answer of Elasticsearch's to a bulk request: {str(answer)[:200]}")


def requests(documents: Iterable[Document]) -> list[Request]:
    """The requests that write these documents, none of them larger than is good."""
    return [Request(part) for part in _parts(documents)]


def _parts(documents: Iterable[Document]) -> Iterator[list[tuple[Document, bytes]]]:
    part: list[tuple[Document, bytes]] = []
    size = 0
    for document in documents:
        lines = document.lines()
        if part and (size + len(lines) > _REQUEST_BYTES or len(part) == _REQUEST_DOCUMENTS):
            yield part
            part, size = [], 0
        part.append((document, lines))
        size += len(lines)
    if part:
        yield part


def _outcome(document: Document, item: dict[str, Any]) -> Outcome | None:
    """None where waiting may help; raises `EmptiedError` if the index is gone."""
    status, error = item["status"], item.get("error")
    if error is None:
        if isinstance(status, int) and (status < 300 or (status == 404 and document.source is None)):
            return _WRITTEN  # A deletion of what is not there answers 404.
        return None
    if status == 409:
        return _SUPERSEDED
    match meaning(status, str(error.get("type")), str(error.get("reason"))):
        case Meaning.GONE:
            raise EmptiedError(f"index {document.index} was deleted")
        case Meaning.IN_THE_WAY:
            return None
        case Meaning.REFUSED:
            return Outcome(Fate.REFUSED, f"Elasticsearch refuses it: {_reason(item)}")


def _reason(item: dict[str, Any]) -> str:
    return describe_answer(item["status"], item.get("error", {}))


def _whole_reason(error: TransportError) -> str:
    return describe_answer(error.status_code, error_of(error) or {"type": "the request is too large"})
