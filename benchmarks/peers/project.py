"""This project's stream job, as any user runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyspark

from benchmarks.peers.peer import Peer
from benchmarks.process_tree import process_id
from benchmarks.stack import Stack
from contract.topics import aggregated_topic_name
from local_stack import services


@contextmanager
def _start(stack: Stack, topic: str, output: str) -> Iterator[int]:
    assert output == aggregated_topic_name(topic)
    # The tables that the peers compute too.
    with stack.service(services.STREAM, topic, PIPELINE=services.ROOT / "benchmarks/without_windows.py") as job:
        yield process_id(job)


PROJECT: Final = Peer(
    title="this project",
    version=f"Spark {pyspark.__version__}, Delta Lake",
    lake="Delta",
    settings="the defaults: a heap of 1 GB, checks of every field, every interaction in the lake before it is counted",
    does_not="–",
    set_up=lambda _: None,
    start=_start,
)
