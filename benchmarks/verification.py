"""Benchmark: the rate and the memory of `python -m verify` with a growing history."""

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.metrics import wait_for
from benchmarks.process_tree import sampled
from benchmarks.results import Result
from benchmarks.stack import Stack
from contract import metric_names
from local_stack import services

_TOPIC = "verify"
_PARTS = 4
"""The first level is this part of the second one."""


def measure(stack: Stack, interactions: int) -> Iterator[Result]:
    """Measure with a part of the interactions and with all of them, beside a pipeline that has processed them.

    Raises `RuntimeError` if something differs.
    """
    sent = 0
    with stack.service(services.STREAM, _TOPIC) as job, stack.service(services.SINK, _TOPIC):
        for level in (interactions // _PARTS, interactions):
            stack.send(_TOPIC, level - sent)
            wait_for(job, metric_names.AGGREGATED_INTERACTIONS, level)
            sent = level
            seconds, memory = _verify(stack)
            yield Result(f"verify, {level:,} in the lake", level / seconds, "interactions/s", level)
            yield Result(f"verify's memory, {level:,} in the lake", memory / (1 << 20), "MB")


def _verify(stack: Stack) -> tuple[float, int]:
    """Return the seconds of a comparison, and the most memory that it had, in bytes."""
    started_at = time.monotonic()
    with (
        subprocess.Popen(
            [sys.executable, "-m", "verify"],
            cwd=services.ROOT, env=stack.environment(_TOPIC), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        ) as process,
        sampled(process.pid) as costs,
    ):  # fmt: skip
        output, _ = process.communicate()
        seconds = time.monotonic() - started_at
    if process.returncode:
        raise RuntimeError(output)
    return seconds, costs.peak_memory
