"""Classifies errors of Elasticsearch: is it the document that is wrong, or its index or the cluster?

Only an error about a document may make it a dead letter. All others are retried, or make the sink index the whole
topic again, as no row would be written meanwhile.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from elasticsearch.exceptions import ConnectionError, SerializationError, TransportError
from elasticsearch.helpers import ScanError

from runtime.logs import escape_controls


class UnavailableError(Exception):
    """Elasticsearch has not processed all of a request, for a reason that may pass or be fixed."""


class ReindexRequiredError(Exception):
    """Indexed rows are missing: the cluster or one of its indices was replaced. The message says which."""


class ErrorKind(Enum):
    """What an error is about."""

    TRANSIENT = "transient"
    """The state of the index or the cluster: the same request may succeed later."""
    INDEX_MISSING = "index missing"
    """The index does not exist, or no longer."""
    REFUSED = "refused"
    """The request itself."""


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
        "the cluster has no room for more shards: delete indices, or raise cluster.max_shards_per_node",
    ),
    (_ARGUMENT, "pipeline with id [", "the index has a final_pipeline that does not exist: remove it"),
    (_ARGUMENT, "no write index is defined for alias [", "another index has the same alias: remove it there"),
    (_ARGUMENT, "number of documents in the index cannot exceed ", _FULL),
    (_ARGUMENT, "Number of documents in shard ", _FULL),
)
"""Error types, the start of their reasons, and remedies: errors about an index or the cluster, though some have status
400. Only the start counts, for the rest of a reason may quote a document. A document that would add too many fields to
an index is not among them: it is refused."""


def classify_error(status: object, error_type: str, reason: str) -> ErrorKind:
    """Return what an error with this HTTP status, type and reason is about."""
    if error_type == "index_not_found_exception":
        return ErrorKind.INDEX_MISSING
    # 413: the request is too large, in the end because of one document.
    if status == 413 or (status == 400 and error_type and not _remedy(error_type, reason)):
        return ErrorKind.REFUSED
    # A status without an error type is not from Elasticsearch, but for example from a proxy.
    return ErrorKind.TRANSIENT


def classify_exception(error: BaseException) -> ErrorKind | None:
    """Return what an exception of the client is about; None if it is not about a request."""
    if isinstance(error, UnavailableError | ConnectionError | SerializationError | ScanError):
        return ErrorKind.TRANSIENT
    if isinstance(error, TransportError):
        return classify_error(error.status_code, *_type_and_reason(error))
    return None


def describe_error(status: object, error: Mapping[str, Any]) -> str:
    """Return an error of Elasticsearch in one line, with its remedy if that is known."""
    error_type, reason = str(error.get("type", "")), str(error.get("reason", ""))
    cause = error.get("caused_by")
    cause_text = f" ({cause['reason']})" if isinstance(cause, dict) and cause.get("reason") else ""
    remedy = _remedy(error_type, reason)
    parts = (f"{status} {error_type}", reason + cause_text, remedy)
    return _one_line(": ".join(part for part in parts if part))


def describe_exception(error: BaseException) -> str:
    """Return an exception of the client in one line, with its remedy if that is known."""
    remedy = _remedy(*_type_and_reason(error)) if isinstance(error, TransportError) else ""
    # The client's own text of a failed connection repeats everything.
    text = f"{type(error).__name__}: {error.error}" if isinstance(error, ConnectionError) else f"{error}"
    return _one_line(text + (f": {remedy}" if remedy else ""))


def require_no_errors(documents: Iterable[Mapping[str, Any]]) -> None:
    """Raise the first error among the documents of a multi-get, whose own status is 200.

    Raises `ReindexRequiredError` if an index is missing, and `UnavailableError` otherwise.
    """
    for document in documents:
        error = document.get("error")
        if error is None:
            continue
        index = str(document.get("_index"))
        if classify_error(404, str(error.get("type", "")), str(error.get("reason", ""))) is ErrorKind.INDEX_MISSING:
            raise ReindexRequiredError(f"index {index} was deleted")
        raise UnavailableError(f"index {index}: {describe_error(404, error)}")


def error_of(error: TransportError) -> Mapping[str, Any]:
    """Return Elasticsearch's own description of an error; empty if the response has none."""
    found = error.info.get("error") if isinstance(error.info, dict) else None
    return found if isinstance(found, dict) else {}


def _type_and_reason(error: TransportError) -> tuple[str, str]:
    found = error_of(error)
    return str(found.get("type", "")), str(found.get("reason", ""))


def _remedy(error_type: str, reason: str) -> str:
    return next((remedy for type_, start, remedy in _REMEDIES if type_ == error_type and reason.startswith(start)), "")


def _one_line(text: str) -> str:
    # Elasticsearch quotes values of documents.
    line = escape_controls(" ".join(text.split()))
    return line if len(line) <= 1_000 else f"{line[:1_000]}…"
