"""Reads the checkpoint of a streaming query: which batch is unfinished, and which offsets each batch ends at.

Spark writes `offsets/<batch>` before it runs a batch and `commits/<batch>` after it. Both are part of its documented
recovery semantics, and their format has not changed since Spark 2.1.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pyspark.sql import SparkSession

from stream_processing.storage import list_names, read_text

_VERSION: Final = "v1"
"""Of the files of offsets and commits."""


@dataclass(frozen=True)
class Checkpoint:
    """A query's checkpoint folder: a path or any URI that Hadoop supports."""

    session: SparkSession
    path: str

    @property
    def exists(self) -> bool:
        """Whether the query has run before."""
        return "metadata" in list_names(self.session, self.path)

    @property
    def query_id(self) -> str:
        """The id of the query, which a new checkpoint does not share; empty if its file is damaged."""
        try:
            return self._read_query_id()
        except ValueError:
            return ""

    def require_readable(self) -> None:
        """Raise ValueError if the latest of the files that Spark reads at a start are damaged.

        As a power failure can leave them. Spark would refuse them, at every start.
        """
        self._read_query_id()
        self.started_offsets()
        if committed := self._batches("commits"):
            require_commit(read_text(self.session, f"{self.path}/commits/{max(committed)}"))

    def _read_query_id(self) -> str:
        return parse_query_id(read_text(self.session, f"{self.path}/metadata"))

    def unfinished_batch(self) -> int | None:
        """Return the batch that was started and not committed: Spark repeats it first after a restart."""
        return unfinished_batch(self._batches("offsets"), self._batches("commits"))

    def committed_offsets(self) -> dict[str, Any] | None:
        """Return the end offsets of the last committed batch; None if there is none.

        Raises ValueError if their file is damaged.
        """
        # Spark starts a batch only after the one before is committed, whose commit may have been lost since.
        last = max(max(self._batches("commits"), default=-1), max(self._batches("offsets"), default=-1) - 1)
        return self.end_offsets(last) if last >= 0 else None

    def started_offsets(self) -> dict[str, Any] | None:
        """Return the end offsets of the latest batch, committed or not; None if none was started.

        Raises ValueError if its file is damaged, as a power failure can leave it.
        """
        started = self._batches("offsets")
        return self.end_offsets(max(started)) if started else None

    def end_offsets(self, batch_id: int) -> dict[str, Any]:
        """Return the end offsets of a batch, by topic and partition, for a query whose only source is Kafka."""
        return self._source_offsets(batch_id)[0]

    def start_of_last_batch(self) -> list[dict[str, Any]] | None:
        """Return the start offset of the latest batch, by source; None if it is the first batch."""
        started = self._batches("offsets")
        return self._source_offsets(sorted(started)[-2]) if len(started) > 1 else None

    def _source_offsets(self, batch_id: int) -> list[dict[str, Any]]:
        return parse_offsets(read_text(self.session, f"{self.path}/offsets/{batch_id}"))

    def _batches(self, folder: str) -> list[int]:
        return batch_ids(list_names(self.session, f"{self.path}/{folder}"))


def parse_query_id(text: str) -> str:
    """Return the id of the query from a `metadata` file; raises ValueError if it is damaged.

    >>> parse_query_id('{"id":"8a63d2b4-5c1f-4e0a-9b7d-2f4d1836d971"}')
    '8a63d2b4-5c1f-4e0a-9b7d-2f4d1836d971'
    """
    try:
        return str(UUID(json.loads(text)["id"]))
    except (KeyError, TypeError, AttributeError):
        raise ValueError("the file has no id") from None


def parse_offsets(text: str) -> list[dict[str, Any]]:
    """Return the end offset of each source from an `offsets/<batch>` file; raises ValueError if it is damaged."""
    # A line with the version, one with the query's metadata, then one per source.
    _, *offsets = _after_version(text)
    if not offsets:
        raise ValueError("the file has no offsets")
    return offsets


def require_commit(text: str) -> None:
    """Raise ValueError if a `commits/<batch>` file is damaged.

    >>> require_commit('v1\\n{"nextBatchWatermarkMs":0}')
    """
    if not _after_version(text):
        raise ValueError("the file has no metadata")


def _after_version(text: str) -> list[Any]:
    """Return the JSON of each line after the first one, which has the version; raises ValueError if it is damaged."""
    version, *lines = text.splitlines() or [""]
    # Bytes that are not UTF-8 are read as this character, which Spark does not write.
    if version != _VERSION or "\ufffd" in text:
        raise ValueError("the file is damaged")
    return [json.loads(line) for line in lines]


def batch_ids(names: Iterable[str]) -> list[int]:
    """Return the batch ids among the names of the files in `offsets` or `commits`, which hold temporary files too."""
    return [int(name) for name in names if name.isdecimal()]


def unfinished_batch(started: Iterable[int], committed: Iterable[int]) -> int | None:
    """Return the batch that was started and not committed, if there is one."""
    last = max(started, default=-1)
    return last if last > max(committed, default=-1) else None
