"""Benchmark: processor and memory of the stream job and the sink at several rates, and of the whole demo."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from benchmarks.process_tree import Sample, process_id, sample
from benchmarks.results import Result
from benchmarks.stack import Stack
from local_stack import services
from local_stack.services import ROOT

_RATES = (1_000, 50, 0)
"""Interactions a second."""
_SETTLE_SECONDS = 15.0
"""From a change of the rate to the measurement."""
_DEMO = {
    "PRODUCER_RATE": "0.02",
    "PRODUCER_WAVE": "0",
    "RANDOM_DATA_MAX_USERS": "10",
    "RANDOM_DATA_MAX_ITEMS": "10",
    "RANDOM_DATA_SKEW": "0",
    "DATA_MAPPER": str(ROOT / "03-ElasticsearchSink-Alert" / "data_mapper.yml"),
}
"""A constant load, and the same as in earlier results: 50 interactions a second."""
_READY = "running: open"
"""The demo's line when everything is ready."""


def measure(stack: Stack, warm: float, seconds: float) -> Iterator[Result]:
    """Measure over `seconds` at each rate, after `warm` seconds at the highest."""
    topic = "cost"
    with ExitStack() as running:
        measured = {
            name: process_id(running.enter_context(stack.service(service, topic)))
            for name, service in {"stream job": services.STREAM, "sink": services.SINK}.items()
        }
        for rate in _RATES:
            with ExitStack() as producing:
                if rate:
                    producing.enter_context(stack.service(services.PRODUCER, topic, PRODUCER_RATE=1 / rate))
                time.sleep(warm if rate == _RATES[0] else _SETTLE_SECONDS)
                at = f"at {rate:,}/s" if rate else "idle"
                before = {name: sample(pid) for name, pid in measured.items()}
                time.sleep(seconds)
                for name, pid in measured.items():
                    yield from _costs(f"{name}, {at}", before[name], sample(pid))


def demo(stack: Stack, warm: float, seconds: float) -> Iterator[Result]:
    """Measure all processes of the demo at 50/s over `seconds`, `warm` seconds after it is ready."""
    started_at = time.monotonic()
    with demo_process(stack, warm + seconds + 30, _DEMO) as process:
        wait_until_ready(process)
        yield Result("demo without data → ready", time.monotonic() - started_at, "s")
        time.sleep(warm)
        before = sample(process.pid)
        time.sleep(seconds)
        yield from _costs("whole demo at 50/s", before, sample(process.pid))
    started_at = time.monotonic()
    with demo_process(stack, 1, _DEMO) as process:
        wait_until_ready(process)
        yield Result("demo with data → ready", time.monotonic() - started_at, "s")


def _costs(name: str, before: Sample, after: Sample) -> Iterator[Result]:
    seconds = (after.at_ms - before.at_ms) / 1000
    yield Result(name, (after.core_seconds - before.core_seconds) / seconds, "cores")
    yield Result(f"{name}: memory", after.memory / (1 << 20), "MB")


@contextmanager
def demo_process(stack: Stack, seconds: float, settings: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Run the demo for `seconds`, or until it is terminated, and wait for its end after the `with` block."""
    command = [sys.executable, "-m", "local_stack", "demo", "--free-ports", "--no-view"]
    command += ["--data", str(stack.data / "demo"), "--for", str(seconds)]
    variables = {**os.environ, **settings}
    process = subprocess.Popen(
        command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
        # The rest of its output has to be read, or it would wait.
        process.communicate(timeout=seconds + 120)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def wait_until_ready(process: "subprocess.Popen[str]") -> str:
    """Wait until everything of a demo is ready; return the address of its page. Raises RuntimeError if it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_READY):
            return line.removeprefix(_READY).split()[0]
    raise RuntimeError("the demo has ended before it was ready")
