"""An engine that is measured."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rich.console import Console

from benchmarks.stack import Stack


@dataclass(frozen=True)
class Peer:
    """An engine with its settings; it publishes the rows of all aggregate tables as the stream job does."""

    title: str
    version: str
    settings: str
    does_not: str
    """What the stream job does, and this engine with these settings does not."""
    set_up: Callable[[Console], None]
    """Downloads what it needs, once."""
    start: Callable[[Stack, str, str], AbstractContextManager[int]]
    """Runs it during the `with` block, from one topic to another; the value is the id of its process."""
