"""What an answer of Elasticsearch's means: something about the document, or something about its index or the cluster.

Only what is about a document may become a dead letter. Everything else is waited for, or makes the topic be indexed
again, as no row would be written by it.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from elasticsearch.exceptions import ConnectionError, SerializationError, TransportError
from elasticsearch.helpers import ScanError


class UnavailableError(Exception):
    """Elasticsearch took part of a request at most, for a reason that may pass or be fixed."""


class EmptiedError(Exception):
    """Rows that were indexed are gone: the cluster is another one, or one of its indices. The message says which."""


class Meaning(Enum):
    """What an error is about."""

    IN_THE_WAY = "in the way"
    """The index or the cluster, as it is now: the same request may be taken later."""
    GONE = "gone"
    """The index does not exist, or no longer."""
    REFUSED = "refused"
    """What was sent."""


_ARGUMENT: Final = "illegal_argument_exception"
_FULL: Final = "the index holds as many documents as it can: delete it"
_REMEDIES: Final = (
    ("index_closed_exception", "", "open the index, POST /<index>/_open"),
    ("cluster_block_exception", "", "free disk space, or remove the block from the index or the cluster"),
    (
        "routing_missing_exception",
        "",
        "the index requires a routing, which this service does not send: delete it",
    ),
    (
        "validation_exception",
        "Validation Failed: 1: this action would add [",
        "the cluster is full of shards: delete indices, or raise cluster.max_shards_per_node",
    ),
    (_ARGUMENT, "pipeline with id [", "the index has a final_pipeline that does not exist: remove it"),
    (_ARGUMENT, "no write index is defined for alias [", "another index has the same alias: remove it there"),
    (_ARGUMENT, "number of documents in the index cannot exceed ", _FULL),
    (_ARGUMENT, "Number of documents in shard ", _FULL),
)
"""Types of errors and how their reasons start, all about an index or the cluster though some of them come with 400; and
what to do about them. (The start, for the rest of a reason may quote a document.) A document that would give an index
too many fields is not among them: it is refused."""


def meaning(status: object, kind: str, reason: str) -> Meaning:
    """What an error of this HTTP status, type and reason is about."""
    if kind == "index_not_found_exception":
        return Meaning.GONE
    # 413: the request is too large, which leaves out one document at most.
    if status == 413 or (status == 400 and kind and not _remedy(kind, reason)):
        return Meaning.REFUSED
    # A status without an error of Elasticsearch's is the answer of something else, such as a proxy.
    return Meaning.IN_THE_WAY


def meaning_of(error: BaseException) -> Meaning | None:
    """The same for what the client raises; None for what is no answer to a request."""
    if isinstance(error, UnavailableError | ConnectionError | SerializationError | ScanError):
        return Meaning.IN_THE_WAY
    if isinstance(error, TransportError):
        return meaning(error.status_code, *_kind_and_reason(error))
    return None


def describe_answer(status: object, error: Mapping[str, Any]) -> str:
    """An error of Elasticsearch's in one line, with what to do about it where that is known."""
    kind, reason = str(error.get("type", "")), str(error.get("reason", ""))
    cause = error.get("caused_by")
    because = f" ({cause['reason']})" if isinstance(cause, dict) and cause.get("reason") else ""
    remedy = _remedy(kind, reason)
    return _one_line(f"{status} {kind}: {reason}{because}" + (f": {remedy}" if remedy else ""))


def describe(error: BaseException) -> str:
    """What the client raises, in one line, with what to do about it where that is known."""
    remedy = _remedy(*_kind_and_reason(error)) if isinstance(error, TransportError) else ""
    # The client's own text of a failed connection has everything twice.
    text = f"{type(error).__name__}: {error.error}" if isinstance(error, ConnectionError) else f"{error}"
    return _one_line(text + (f": {remedy}" if remedy else ""))


def require_no_errors(documents: Iterable[Mapping[str, Any]]) -> None:
    """Raise what the errors among the documents of a multi-get mean; they come with status 200."""
    for document in documents:
        error = document.get("error")
        if error is not None:
            raise_for(404, error, str(document.get("_index")))


def raise_for(status: object, error: Mapping[str, Any], index: str) -> None:
    """Raise `EmptiedError` if the index is gone, and `UnavailableError` otherwise."""
    if meaning(status, str(error.get("type", "")), str(error.get("reason", ""))) is Meaning.GONE:
        raise EmptiedError(f"index {index} was deleted")
    raise UnavailableError(f"index {index}: {describe_answer(status, error)}")


def error_of(error: TransportError) -> Mapping[str, Any]:
    """Elasticsearch's own description of an error; empty if the answer has none."""
    found = error.info.get("error") if isinstance(error.info, dict) else None
    return found if isinstance(found, dict) else {}


def _kind_and_reason(error: TransportError) -> tuple[str, str]:
    found = error_of(error)
    return str(found.get("type", "")), str(found.get("reason", ""))


def _remedy(kind: str, reason: str) -> str:
    return next((remedy for type_, start, remedy in _REMEDIES if type_ == kind and reason.startswith(start)), "")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 1_000 else f"{line[:1_000]}…"
