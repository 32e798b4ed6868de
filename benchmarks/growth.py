"""Whether a batch takes as long when history or the number of users grows; and what a restart takes then."""

import time
from collections.abc import Iterator, Sequence
from statistics import median

import psutil
from mirakuru import HTTPExecutor

from benchmarks.metrics import metric, wait_for
from benchmarks.results import Result
from benchmarks.stack import Stack
from benchmarks.throughput import work_off
from contract.tables import INTERACTIONS
from local_stack import services

_WARM = 75.0
_LOOK = 45.0
"""Seconds."""


def users(stack: Stack, interactions: int) -> Iterator[Result]:
    """The whole job's rate with 1,000 and 1,000,000 distinct users, its memory, and a restart with the larger state.

    All with a heap of 2 GB, which a million users' counts in memory need.
    """
    warm_up = interactions // 2
    for count in (1_000, 1_000_000):
        topic = f"users-{count}"
        with stack.service(services.STREAM, topic, SPARK_DRIVER_MEMORY="2g") as job:
            found = work_off(stack, job, topic, interactions, warm_up=warm_up, RANDOM_DATA_MAX_USERS=count)
            yield Result(f"whole job with {count:,} users", found, "interactions/s", interactions)
            yield Result(f"driver's memory with {count:,} users", _memory(job) / (1 << 20), "MB")
    stack.send(topic, 1_000)
    began = time.monotonic()
    with stack.service(services.STREAM, topic, SPARK_DRIVER_MEMORY="2g") as job:
        wait_for(job, "stream_aggregated_interactions", warm_up + interactions + 1_000)
        yield Result("restart with 1,000,000 users → next aggregate", time.monotonic() - began, "s")


def history(stack: Stack, levels: Sequence[int]) -> Iterator[Result]:
    """Seconds of a batch at 1,000 interactions a second with so many in the lake already, each in a job of its own.

    All jobs are equally warm, so that the first level does not pay for a cold machine; and the memory of each.
    """
    topic, there = "history", 0
    for level in levels:
        if level > there:
            stack.send(topic, level - there)
            with stack.service(services.STREAM, topic) as job:
                wait_for(job, "stream_aggregated_interactions", level)
            there = level
        with stack.service(services.STREAM, topic) as job, stack.service(services.PRODUCER, topic, PRODUCER_RATE=0.001):
            time.sleep(_WARM)
            batches = _batches(job)
            memory = _memory(job)
        for query, seconds in batches.items():
            yield Result(f"batch of {query}, {level:,} in the lake", median(seconds), "s", len(seconds))
        yield Result(f"driver's memory, {level:,} in the lake", memory / (1 << 20), "MB")


def soak(stack: Stack, minutes: float) -> Iterator[Result]:
    """What accumulates at 1,000 interactions a second, and whether batches become slower: four looks, equally apart.

    Upkeep is ten times as frequent as by default and keeps a tenth of the history, so an hour shows what ten would.
    """
    topic = "soak"
    log = stack.data / topic / "warehouse" / INTERACTIONS / "_delta_log"
    job_settings = {"UPKEEP_INTERVAL": 30, "LAKE_HISTORY": 1}
    with (
        stack.service(services.STREAM, topic, **job_settings) as job,
        stack.service(services.PRODUCER, topic, PRODUCER_RATE=0.001),
    ):
        began = time.monotonic()
        for look in range(1, 5):
            time.sleep(max(0, began + look * minutes * 15 - _LOOK - time.monotonic()))
            batches = _batches(job)
            after = f"after {look * minutes / 4:g} min"
            for query, seconds in batches.items():
                yield Result(f"{after}: batch of {query}", median(seconds), "s", len(seconds))
            yield Result(f"{after}: files that the table has", metric(job, "stream_lake_files"), "files")
            yield Result(f"{after}: entries of the table's log", len(list(log.iterdir())), "files")
            checkpoints = (stack.data / topic / "checkpoints").rglob("*")
            yield Result(f"{after}: files in checkpoints", sum(file.is_file() for file in checkpoints), "files")
            yield Result(f"{after}: driver's memory", _memory(job) / (1 << 20), "MB")


def _batches(job: HTTPExecutor) -> dict[str, list[float]]:
    """Seconds of the batches that each query ends within a while."""
    seconds: dict[str, list[float]] = {"ingest": [], "aggregate": []}
    numbers = {query: metric(job, "stream_batches", query) for query in seconds}
    end = time.monotonic() + _LOOK
    while time.monotonic() < end:
        time.sleep(0.25)
        for query, found in seconds.items():
            number = metric(job, "stream_batches", query)
            if number > numbers[query]:
                numbers[query] = number
                found.append(metric(job, "stream_batch_seconds", query))
    return seconds


def _memory(job: HTTPExecutor) -> float:
    assert job.process is not None
    process = psutil.Process(job.process.pid)
    return float(sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]))
