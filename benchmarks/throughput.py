"""Benchmark: interactions a second of each stage over one backlog."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from mirakuru import HTTPExecutor

from benchmarks.metrics import wait_for
from benchmarks.process_tree import process_id, sampled, suspended
from benchmarks.published import read_published
from benchmarks.results import Result
from benchmarks.stack import Stack
from contract import metric_names
from local_stack import services

LIMIT = "Kafka → parse with all checks → nothing"
"""The rate that the other rates are compared with."""
WHOLE = "whole job, backlog to the last changed aggregate in Kafka"
_WARM_UP = 3
"""Backlogs before the measured one: for that long Java's optimising compiler, which gets the CPU time that others
leave, still compiles the job's code."""


def measure(stack: Stack, interactions: int) -> Iterator[Result]:
    """Measure the producer, the engine's limits and the whole job."""
    seconds = stack.send("backlog", interactions)
    yield Result("producer alone", interactions / seconds, "interactions/s", interactions)
    for stage, name in {
        "nothing": "Kafka → nothing",
        "json": "Kafka → Spark's JSON parser → nothing",
        "parse": LIMIT,
        "ingest": "ingest alone",
    }.items():
        command = [sys.executable, "-m", "benchmarks.engine", stage]
        completed = subprocess.run(
            command, env=stack.environment("backlog"), check=True, stdout=subprocess.PIPE, text=True
        )
        measured = json.loads(completed.stdout.splitlines()[-1])
        yield Result(name, measured["rate"], "interactions/s", measured["warm"])
        yield Result(f"{name}: processor time", measured["cost"], "µs", measured["warm"])
    with stack.service(services.STREAM, "whole") as job:
        rate, cost = drain_backlog(stack, job, "whole", interactions, warm_up=_WARM_UP * interactions)
    yield Result(WHOLE, rate, "interactions/s", interactions)
    yield Result(f"{WHOLE}: processor time", cost, "µs", interactions)


def drain_backlog(
    stack: Stack, job: HTTPExecutor, topic: str, interactions: int, *, warm_up: int, **producer: object
) -> tuple[float, float]:
    """Let a job process a backlog, after another one of `warm_up` interactions.

    Returns interactions a second, and microseconds of the job's processor time for each. Measured from the job's
    first poll of the backlog to the last changed aggregate in Kafka.
    """

    def progress() -> list[tuple[int, int]]:
        return read_published(stack.kafka, f"{topic}_aggregated").progress()

    def wait_for_all(total: int) -> list[tuple[int, int]]:
        # The topic is read only once: with a million users it has gigabytes, and reading them takes CPU from the job.
        wait_for(job, metric_names.AGGREGATED_INTERACTIONS, total)
        return _wait_until_covered(progress, total)

    stack.send(topic, warm_up, **producer)
    wait_for_all(warm_up)
    # The job is suspended while the backlog is written.
    with suspended(process_id(job)):
        stack.send(topic, interactions, **producer)
    start_ms = time.time() * 1000
    with sampled(process_id(job)) as costs:
        end_ms = wait_for_all(warm_up + interactions)[-1][0]
    cost = costs.core_seconds(start_ms, end_ms) / interactions * 1e6
    return interactions / (end_ms - start_ms) * 1000, cost


def _wait_until_covered(read: Callable[[], list[tuple[int, int]]], interactions: int) -> list[tuple[int, int]]:
    """Poll the curve of covered interactions over time until it covers all of them; return it."""
    end = time.monotonic() + 900
    while time.monotonic() < end:
        time.sleep(3)  # Reading takes CPU from the job.
        curve = read()
        if curve and curve[-1][1] >= interactions:
            return curve
    raise TimeoutError(f"{curve[-1][1] if curve else 0} of {interactions} interactions were aggregated in 15 minutes")
