"""An engine that is measured."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from benchmarks.stack import Stack

RATE: Final = 1_000
"""Interactions a second at which latency and cores are measured."""
BACKLOG: Final = "backlog"
COST: Final = "cost of a backlog"
LATENCY: Final = f"send → row in Kafka, {RATE:,}/s"
CORES: Final = f"cores at {RATE:,}/s"
MEMORY: Final = "peak memory"
EXACT: Final = "rows equal to the reference"


@dataclass(frozen=True)
class Peer:
    """An engine with its settings; it publishes the rows of all aggregate tables as the stream job does."""

    title: str
    version: str
    lake: str
    """Where every interaction is kept."""
    settings: str
    does_not: str
    """What the stream job does, and this engine with these settings does not."""
    set_up: Callable[[Console], None]
    """Downloads what it needs, once."""
    start: Callable[[Stack, str, str], AbstractContextManager[int]]
    """Runs it during the `with` block, from one topic to another; the value is the id of its process."""

    def result_name(self, measure: str) -> str:
        """Return the name of a result."""
        return f"peers, {self.title}: {measure}"
