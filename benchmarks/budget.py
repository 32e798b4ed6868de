"""Benchmark: where the time of a batch goes at a constant rate, and what the machine itself can do."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer
from mirakuru import HTTPExecutor

from benchmarks.growth import batch_seconds
from benchmarks.metrics import labelled_metric
from benchmarks.process_tree import process_id, sample
from benchmarks.results import Result
from benchmarks.stack import Stack
from local_stack import services
from runtime.topic_reader import assign_all, offset_ranges

_RATE: Final = 1_000
_BLOCK: Final = 1 << 20
_WRITTEN: Final = 1 << 30
"""Bytes that the disk and the memory are measured with."""
_COMMITS: Final = 200


def measure(stack: Stack, warm: float, interactions: int) -> Iterator[Result]:
    """Measure the phases of a batch, and the limits of broker, disk and memory."""
    yield from _phases(stack, warm)
    yield from _broker(stack, interactions)
    yield from _disk(stack.data)
    yield from _memory()


def _phases(stack: Stack, warm: float) -> Iterator[Result]:
    topic = "budget"
    with (
        stack.service(services.STREAM, topic) as job,
        stack.service(services.PRODUCER, topic, PRODUCER_RATE=1 / _RATE),
    ):
        time.sleep(warm)
        before, cost_before = _totals(job), sample(process_id(job))
        batches = batch_seconds(job)["ingest"]
        after, cost_after = _totals(job), sample(process_id(job))
    seconds = (cost_after.at_ms - cost_before.at_ms) / 1000
    yield Result(f"phases at {_RATE:,}/s: whole batch of ingest", sum(batches) / len(batches) * 1000, "ms", len(batches))
    for phase, (total, count) in after.items():
        total, count = total - before[phase][0], count - before[phase][1]
        if count:
            yield Result(f"phases at {_RATE:,}/s: {phase}", total / count * 1000, "ms", int(count))
    cores = (cost_after.core_seconds - cost_before.core_seconds) / seconds
    yield Result(f"phases at {_RATE:,}/s: processor", cores, "cores")


def _totals(job: HTTPExecutor) -> dict[str, tuple[float, float]]:
    """Return the seconds and the number of each phase until now."""
    counts = labelled_metric(job, "stream_phase_seconds_count", "phase")
    return {
        phase: (seconds, counts[phase])
        for phase, seconds in labelled_metric(job, "stream_phase_seconds_sum", "phase").items()
    }
