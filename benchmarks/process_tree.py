"""A process with all that it has started: suspends it, and samples what it costs."""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import psutil
from mirakuru import SimpleExecutor

_SAMPLE_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Sample:
    """What a process and its children have cost until a point of time (epoch ms)."""

    at_ms: float
    core_seconds: float
    memory: int
    """Resident memory in bytes at that time."""


@dataclass(frozen=True)
class Costs:
    """The samples of a process, in order of time."""

    samples: Sequence[Sample]

    def core_seconds(self, start_ms: float, end_ms: float) -> float:
        """Return the CPU time between two points of time (epoch ms), interpolated between the samples."""
        return self._until(end_ms) - self._until(start_ms)

    @property
    def peak_memory(self) -> int:
        """The greatest resident memory of a sample in bytes."""
        return max(sample.memory for sample in self.samples)

    def _until(self, at_ms: float) -> float:
        n = bisect_left(self.samples, at_ms, key=lambda sample: sample.at_ms)
        if n in (0, len(self.samples)):
            return self.samples[min(n, len(self.samples) - 1)].core_seconds
        before, after = self.samples[n - 1], self.samples[n]
        share = (at_ms - before.at_ms) / (after.at_ms - before.at_ms)
        return before.core_seconds + share * (after.core_seconds - before.core_seconds)


@contextmanager
def sampled(pid: int) -> Iterator[Costs]:
    """Sample the costs of a process during the `with` block, in a thread."""
    samples = [sample(pid)]
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            with suppress(psutil.NoSuchProcess):
                samples.append(sample(pid))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield Costs(samples)
    finally:
        stop.set()
        thread.join()


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Suspend a process and its children during the `with` block."""
    processes = _tree(pid)
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def process_id(executor: SimpleExecutor) -> int:
    """Return the id of a running service's process."""
    assert executor.process is not None
    return executor.process.pid


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def sample(pid: int) -> Sample:
    """Return what a process and its children have cost until now."""
    at_ms, core_seconds, memory = time.time() * 1000, 0.0, 0
    for process in _tree(pid):
        with suppress(psutil.NoSuchProcess), process.oneshot():
            # The times of ended children too, which are their parent's then.
            core_seconds += sum(process.cpu_times()[:4])
            memory += process.memory_info().rss
    return Sample(at_ms, core_seconds, memory)
