"""How many interactions a second, stage by stage, over one backlog; and a peer, where it is installed."""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import orjson
import psutil
from mirakuru import HTTPExecutor, SimpleExecutor

from benchmarks.metrics import wait_for
from benchmarks.published import read_published, records
from benchmarks.results import Result
from benchmarks.stack import Stack
from local_stack import services

LIMIT = "Kafka → parse with all checks → nothing"
"""What the other rates are compared with."""
_WARM_UP = 3
"""Backlogs before the one that counts: until then Java's optimising compiler, which has only what others leave of the
processor, is busy with the job's code."""


def measure(stack: Stack, interactions: int, peer: str | None) -> Iterator[Result]:
    """The producer, the engine's limits, the whole job, and Pathway by the Python that `peer` names."""
    took = stack.send("backlog", interactions)
    yield Result("producer alone", interactions / took, "interactions/s", interactions)
    for stage, name in {
        "nothing": "Kafka → nothing",
        "json": "Kafka → Spark's JSON parser → nothing",
        "parse": LIMIT,
        "ingest": "ingest alone",
    }.items():
        command = [sys.executable, "-m", "benchmarks.engine", stage]
        said = subprocess.run(command, env=stack.environment("backlog"), check=True, stdout=subprocess.PIPE, text=True)
        measured = json.loads(said.stdout.splitlines()[-1])
        yield Result(name, measured["rate"], "interactions/s", measured["warm"])
    with stack.service(services.STREAM, "whole") as job:
        found = work_off(stack, job, "whole", interactions, warm_up=_WARM_UP * interactions)
    yield Result("whole job, backlog to the last changed aggregate in Kafka", found, "interactions/s", interactions)
    if peer is not None:
        yield from _pathway(stack, interactions, peer)


def work_off(
    stack: Stack, job: HTTPExecutor, topic: str, interactions: int, *, warm_up: int, **producer: object
) -> float:
    """Interactions a second at which a job over `topic` works off a backlog after one of `warm_up` interactions.

    From its first look at the backlog to the last changed aggregate in Kafka.
    """

    def progress() -> list[tuple[int, int]]:
        return read_published(stack.kafka, f"{topic}_aggregated").progress()

    def all_of(total: int) -> list[tuple[int, int]]:
        # The topic is read once only: with a million users that is gigabytes, from the same two cores.
        wait_for(job, "stream_aggregated_interactions", total)
        return _until_all(progress, total)

    stack.send(topic, warm_up, **producer)
    all_of(warm_up)
    # It stands still while the backlog is made.
    with _suspended(job):
        stack.send(topic, interactions, **producer)
    began_ms = time.time() * 1000
    ended_ms = all_of(warm_up + interactions)[-1][0]
    return interactions / (ended_ms - began_ms) * 1000


@contextmanager
def _suspended(service: HTTPExecutor) -> Iterator[None]:
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    processes = [process, *process.children(recursive=True)]
    for each in processes:
        each.suspend()
    yield
    for each in processes:
        each.resume()


def _until_all(look: Callable[[], list[tuple[int, int]]], interactions: int) -> list[tuple[int, int]]:
    """The curve of what is covered when, once it covers everything."""
    end = time.monotonic() + 900
    while time.monotonic() < end:
        time.sleep(3)  # A look costs something too.
        curve = look()
        if curve and curve[-1][1] >= interactions:
            return curve
    raise TimeoutError(f"{curve[-1][1] if curve else 0} of {interactions} interactions were aggregated in 15 minutes")


def _pathway(stack: Stack, interactions: int, python: str) -> Iterator[Result]:
    for key in ("user_id", "item_id"):
        stack.create_topic(f"pathway_{key}")
    script = Path(__file__).with_name("pathway_peer.py")
    spawn = [str(Path(python).with_name("pathway")), "spawn", "--threads", "2"]
    environment = {**os.environ, "KAFKA_BROKER": stack.kafka, "PATH": f"{Path(python).parent}:{os.environ['PATH']}"}
    command = [*spawn, python, str(script), "backlog", "pathway"]
    with (stack.data / "pathway.log").open("w") as log:
        peer = SimpleExecutor(command, envvars=environment, stdout=log, stderr=log)
        # Stopped with all that it has started.
        peer.start()
        try:
            curves = [_until_all(partial(_pathway_curve, stack, key), interactions) for key in ("user_id", "item_id")]
        finally:
            peer.kill()
    # From its first row, so that its start does not count, to its last.
    milliseconds = max(curve[-1][0] for curve in curves) - min(curve[0][0] for curve in curves)
    yield Result("Pathway, two workers, no lake", interactions / milliseconds * 1000, "interactions/s", interactions)


def _pathway_curve(stack: Stack, key: str) -> list[tuple[int, int]]:
    totals: dict[str, int] = defaultdict(int)
    curve, covered = [], 0
    for _, value, at_ms in sorted(records(stack.kafka, f"pathway_{key}"), key=lambda record: record[2]):
        row = orjson.loads(value)
        if row["diff"] > 0 and row["total_interactions"] > totals[row[key]]:
            covered += row["total_interactions"] - totals[row[key]]
            totals[row[key]] = row["total_interactions"]
            curve.append((at_ms, covered))
    return curve
