"""Benchmark: processor and memory of the stream job and the sink at several rates, and of the whole demo."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
from mirakuru import HTTPExecutor

from benchmarks.results import Result
from benchmarks.stack import Stack
from local_stack import services
from local_stack.services import ROOT

_RATES = (1_000, 50, 0)
"""Interactions a second."""
_SETTLE_SECONDS = 15.0
"""From a change of the rate to the measurement."""
_READY = "running: open"
"""The demo's line when everything is ready."""


def measure(stack: Stack, warm: float, seconds: float) -> Iterator[Result]:
    """Measure over `seconds` at each rate, after `warm` seconds at the highest."""
    topic = "cost"
    with ExitStack() as running:
        measured = {
            name: running.enter_context(stack.service(service, topic))
            for name, service in {"stream job": services.STREAM, "sink": services.SINK}.items()
        }
        for rate in _RATES:
            with ExitStack() as producing:
                if rate:
                    producing.enter_context(stack.service(services.PRODUCER, topic, PRODUCER_RATE=1 / rate))
                time.sleep(warm if rate == _RATES[0] else _SETTLE_SECONDS)
                before = {name: cpu_seconds(executor) for name, executor in measured.items()}
                time.sleep(seconds)
                at = f"at {rate:,}/s" if rate else "idle"
                for name, executor in measured.items():
                    yield Result(f"{name}, {at}", (cpu_seconds(executor) - before[name]) / seconds, "cores")
                    yield Result(f"{name}, {at}: memory", memory(executor) / (1 << 20), "MB")


def demo(stack: Stack, warm: float, seconds: float) -> Iterator[Result]:
    """Measure all processes of the demo at its default rate over `seconds`, `warm` seconds after it is ready."""
    started_at = time.monotonic()
    with _demo(stack, warm + seconds + 30) as process:
        _wait_until_ready(process)
        yield Result("demo without data → ready", time.monotonic() - started_at, "s")
        time.sleep(warm)
        tree = list(psutil.Process(process.pid).children(recursive=True))
        before = sum(map(_cpu_seconds, tree))
        time.sleep(seconds)
        yield Result("whole demo at its default rate", (sum(map(_cpu_seconds, tree)) - before) / seconds, "cores")
        yield Result("whole demo: memory", sum(each.memory_info().rss for each in tree) / (1 << 20), "MB")
    started_at = time.monotonic()
    with _demo(stack, 1) as process:
        _wait_until_ready(process)
        yield Result("demo with data → ready", time.monotonic() - started_at, "s")


@contextmanager
def _demo(stack: Stack, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "local_stack", "demo", "--free-ports", "--no-view"]
    command += ["--data", str(stack.data / "demo"), "--for", str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        yield process
        # The rest of its output has to be read, or it would wait.
        process.communicate(timeout=seconds + 120)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def _wait_until_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    if not any(_READY in line for line in process.stdout):
        raise RuntimeError("the demo has ended before it was ready")


def cpu_seconds(executor: HTTPExecutor) -> float:
    """Return the processor time that a service and its children have taken."""
    return sum(map(_cpu_seconds, processes(executor)))


def memory(executor: HTTPExecutor) -> int:
    """Return the resident bytes of a service and its children."""
    return sum(int(process.memory_info().rss) for process in processes(executor))


def processes(executor: HTTPExecutor) -> list[psutil.Process]:
    """Return the processes of a service."""
    assert executor.process is not None
    process = psutil.Process(executor.process.pid)
    return [process, *process.children(recursive=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
