"""Benchmark: seconds from the start of the stream job's process to its first aggregate in Kafka."""

import time
from collections.abc import Iterator

from benchmarks.published import records
from benchmarks.results import Result
from benchmarks.stack import Stack
from local_stack import services


def measure(stack: Stack) -> Iterator[Result]:
    """Measure a job with an empty lake and interactions in the topic."""
    stack.send("start", 1_000)
    start_ms = time.time() * 1000
    with stack.service(services.STREAM, "start"):
        while True:
            times = [at_ms for _, _, at_ms in records(stack.kafka, "start_aggregated")]
            if times:
                break
            time.sleep(0.2)
    yield Result("cold start: process start → first aggregate in Kafka", (min(times) - start_ms) / 1000, "s")
