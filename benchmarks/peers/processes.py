"""Runs an engine as a process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mirakuru import SimpleExecutor

from benchmarks.process_tree import process_id
from local_stack.process_marks import marked

JOBS: Final = Path(__file__).with_name("jobs")
"""What the engines run."""


@contextmanager
def running(command: Sequence[str], log: Path, **environment: str) -> Iterator[int]:
    """Run a command during the `with` block; the value is the id of its process. Its children end with it."""
    with log.open("w") as output:
        executor = marked(SimpleExecutor(list(command), envvars=environment, stdout=output, stderr=output))
        executor.start()
        try:
            yield process_id(executor)
        finally:
            executor.kill()
