"""Benchmark: where the time of a batch goes at a constant rate, and what the machine itself can do."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mirakuru import HTTPExecutor

from benchmarks.growth import batch_seconds
from benchmarks.metrics import by_label
from benchmarks.process_tree import process_id, sample
from benchmarks.results import Result
from benchmarks.stack import Stack
from contract import metric_names
from local_stack import services

_RATE: Final = 1_000
_BLOCK: Final = 1 << 20
_WRITTEN: Final = 1 << 30
"""Bytes that the disk and the memory are measured with."""
_COMMITS: Final = 200


def measure(stack: Stack, warm: float) -> Iterator[Result]:
    """Measure the phases of a batch, and the limits of disk and memory."""
    yield from _phases(stack, warm)
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
    yield Result(
        f"phases at {_RATE:,}/s: whole batch of ingest", sum(batches) / len(batches) * 1000, "ms", len(batches)
    )
    for phase, (total, count) in after.items():
        total_before, count_before = before.get(phase, (0.0, 0.0))
        if count > count_before:
            mean = (total - total_before) / (count - count_before)
            yield Result(f"phases at {_RATE:,}/s: {phase}", mean * 1000, "ms", int(count - count_before))
    cores = (cost_after.core_seconds - cost_before.core_seconds) / seconds
    yield Result(f"phases at {_RATE:,}/s: processor", cores, "cores")


def _totals(job: HTTPExecutor) -> dict[str, tuple[float, float]]:
    """Return the seconds and the number of each phase until now."""
    counts = by_label(job, f"{metric_names.PHASE_SECONDS}_count", "phase")
    return {
        phase: (seconds, counts[phase])
        for phase, seconds in by_label(job, f"{metric_names.PHASE_SECONDS}_sum", "phase").items()
    }


def _disk(folder: Path) -> Iterator[Result]:
    block = os.urandom(_BLOCK)
    file = folder / "block"
    started_at = time.monotonic()
    with file.open("wb") as out:
        for _ in range(_WRITTEN // _BLOCK):
            out.write(block)
        os.fsync(out.fileno())
    yield Result("limits: disk, sequential write", _WRITTEN / (time.monotonic() - started_at) / 1e6, "MB/s")
    started_at = time.monotonic()
    for _ in range(_COMMITS):
        with file.open("wb") as out:
            out.write(block[:2048])
            os.fsync(out.fileno())
        file.replace(folder / "renamed")
    yield Result("limits: disk, a small file with fsync", (time.monotonic() - started_at) / _COMMITS * 1000, "ms")


def _memory() -> Iterator[Result]:
    source, target = os.urandom(_BLOCK) * (_WRITTEN // _BLOCK), bytearray(_WRITTEN)
    # The first copy pays for the pages.
    target[:] = source
    started_at = time.monotonic()
    target[:] = source
    yield Result("limits: memory, copy", _WRITTEN / (time.monotonic() - started_at) / 1e9, "GB/s")
