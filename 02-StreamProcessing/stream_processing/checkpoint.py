"""Looks into the checkpoint of a streaming query: which batch was under way, and up to which offsets it goes.

Spark writes `offsets/<batch>` before it runs a batch and `commits/<batch>` behind it; both are part of its documented
recovery semantics, and have kept their form since Spark 2.1.
"""

import json
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from stream_processing.storage import names_in, read_text


@dataclass(frozen=True)
class Checkpoint:
    """A query's checkpoint folder: a path or any URI that Hadoop knows."""

    session: SparkSession
    path: str

    @property
    def exists(self) -> bool:
        """Whether the query has run before."""
        return "metadata" in names_in(self.session, self.path)

    @property
    def query_id(self) -> str:
        """What tells this checkpoint from one that is begun anew."""
        return str(json.loads(read_text(self.session, f"{self.path}/metadata"))["id"])

    def unfinished_batch(self) -> int | None:
        """The batch that was begun and not committed: it is the first one to be done after a start, again."""
        begun, committed = self._batches("offsets"), self._batches("commits")
        return max(begun) if begun and max(begun) > max(committed, default=-1) else None

    def committed_offsets(self) -> dict[str, Any] | None:
        """Where the last committed batch ends; None where there is none."""
        committed = self._batches("commits")
        return self.end_offsets(max(committed)) if committed else None

    def end_offsets(self, batch_id: int) -> dict[str, Any]:
        """Where the batch ends, by topic and partition, for a query with one source, a Kafka one."""
        return self._ends(batch_id)[0]

    def start_of_last_batch(self) -> list[dict[str, Any]] | None:
        """Where the latest batch begins, by source; None where there was no batch before it."""
        begun = self._batches("offsets")
        return self._ends(sorted(begun)[-2]) if len(begun) > 1 else None

    def _ends(self, batch_id: int) -> list[dict[str, Any]]:
        # A line with the version, one with the query's settings, then one per source.
        lines = read_text(self.session, f"{self.path}/offsets/{batch_id}").splitlines()
        return [json.loads(line) for line in lines[2:]]

    def _batches(self, folder: str) -> list[int]:
        return [int(name) for name in names_in(self.session, f"{self.path}/{folder}") if name.isdigit()]
