"""Measures how long the pipeline needs after a fault.

A fault is recovered from when everything that was sent up to its end is in the lake and indexed. At its end a record of
a user of its own is sent to each partition, behind everything else there. The time ends when the lake has been made
beyond all of these records, and Elasticsearch has the documents of their users.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException

from chaos.load import Load, Probes
from chaos.stack import Stack
from contract.declared import EVENT

_POLL: Final = 0.5
"""Seconds: the precision of a recovery."""
_TIMEOUT: Final = 5
"""Seconds of a request to Elasticsearch."""
_INDEX: Final = "agg_interactions_user"


@dataclass(frozen=True)
class _Recovery:
    probes: Probes
    ended: float
    on_recovered: Callable[[float], None]


class RecoveryWatch(threading.Thread):
    """Looks for the probes of faults that have ended."""

    def __init__(self, stack: Stack, load: Load) -> None:
        super().__init__(name="recovery", daemon=True)
        self.failure: str | None = None
        """Why it does not look any longer."""
        self._stack = stack
        self._load = load
        self._pending: list[_Recovery] = []
        self._lock = threading.Lock()
        self._number = 0

    def begin(self, on_recovered: Callable[[float], None]) -> None:
        """Call a function with the seconds of the recovery from a fault that has ended now, when it is over."""
        with self._lock:
            self._number += 1
            probes = self._load.send_probes(f"probe-{self._number}")
            self._pending.append(_Recovery(probes, time.monotonic(), on_recovered))

    def run(self) -> None:
        """Look until the run is over."""
        try:
            self._look()
        except Exception as error:
            self.failure = f"the watch of recoveries has failed: {error}"
            raise

    def _look(self) -> None:
        with Elasticsearch([self._stack.es_host], timeout=_TIMEOUT, max_retries=0) as client:
            while not self._stack.stopped.wait(_POLL):
                with self._lock:
                    pending = [each for each in self._pending if each.probes.are_acknowledged]
                if not pending:
                    continue
                read = lake_offsets(self._stack.warehouse, self._stack.settings.kafka_topic)
                for recovery in pending:
                    if _is_in(recovery.probes, read) and _is_indexed(client, recovery.probes):
                        recovery.on_recovered(time.monotonic() - recovery.ended)
                        with self._lock:
                            self._pending.remove(recovery)

    @property
    def waiting(self) -> int:
        """Faults that have ended and are not recovered from yet."""
        return len(self._pending)


def lake_offsets(warehouse: Path, topic: str) -> dict[int, int]:
    """Return the next offset of each partition that the lake was made up to; empty if it cannot be read now."""
    log = warehouse / EVENT.name / "_delta_log"
    try:
        for entry in sorted(log.glob("[0-9]*.json"), reverse=True):
            for line in entry.read_text().splitlines():
                # Compactions have no such metadata.
                if written := json.loads(line).get("commitInfo", {}).get("userMetadata"):
                    offsets = json.loads(written)["offsets"].get(topic, {})
                    return {int(partition): int(offset) for partition, offset in offsets.items()}
    except (OSError, ValueError, KeyError):
        pass
    return {}


def _is_in(probes: Probes, read: Mapping[int, int]) -> bool:
    return all(read.get(partition, 0) > offset for partition, offset in probes.offsets.items())


def _is_indexed(client: Elasticsearch, probes: Probes) -> bool:
    try:
        documents = client.mget(index=_INDEX, body={"ids": probes.users}, _source=False)["docs"]
    except ElasticsearchException:
        return False
    return all(document.get("found", False) for document in documents)
