"""Benchmarks: durations of batches and restarts as the history or the number of users grows."""

import time
from collections.abc import Iterator, Sequence
from statistics import median

import polars as pl
from mirakuru import HTTPExecutor
from stream_processing.lake import Lake, read_files

from benchmarks.metrics import metric, wait_for
from benchmarks.process_tree import process_id, sample
from benchmarks.results import Result
from benchmarks.stack import Stack
from benchmarks.throughput import drain_backlog
from contract import metric_names
from contract.declared import EVENT
from local_stack import services

_WARM_UP_SECONDS = 75.0
_SAMPLE_SECONDS = 45.0
"""How long batches are observed for one sample."""
_SAMPLES = 4
"""Of the soak test."""
_QUERIES = 7


def users(stack: Stack, interactions: int) -> Iterator[Result]:
    """Measure the whole job with 1,000 and with 1,000,000 users: rate, memory, and a restart with the latter."""
    warm_up = interactions // 2
    for count in (1_000, 1_000_000):
        topic = f"users-{count}"
        with stack.service(services.STREAM, topic) as job:
            rate, cost = drain_backlog(stack, job, topic, interactions, warm_up=warm_up, RANDOM_DATA_MAX_USERS=count)
            yield Result(f"whole job with {count:,} users", rate, "interactions/s", interactions)
            yield Result(f"whole job with {count:,} users: processor time", cost, "µs", interactions)
            yield Result(f"driver's memory with {count:,} users", sample(process_id(job)).memory / (1 << 20), "MB")
    stack.send(topic, 1_000)
    started_at = time.monotonic()
    with stack.service(services.STREAM, topic) as job:
        wait_for(job, metric_names.AGGREGATED_INTERACTIONS, warm_up + interactions + 1_000)
        yield Result("restart with 1,000,000 users → next aggregate", time.monotonic() - started_at, "s")


def history(stack: Stack, levels: Sequence[int]) -> Iterator[Result]:
    """Measure batches at 1,000 interactions a second, memory and a query, with each of `levels` interactions stored.

    Each level has a job of its own, all equally warm, so that the first level does not pay for a cold machine. The
    query reads the whole table, once beside the running job and once at rest.
    """
    topic, in_the_lake = "history", 0
    lake = Lake(str(stack.data / topic / "warehouse"))
    for level in levels:
        if level > in_the_lake:
            stack.send(topic, level - in_the_lake)
            with stack.service(services.STREAM, topic) as job:
                wait_for(job, metric_names.AGGREGATED_INTERACTIONS, level)
            in_the_lake = level
        with stack.service(services.STREAM, topic) as job, stack.service(services.PRODUCER, topic, PRODUCER_RATE=0.001):
            time.sleep(_WARM_UP_SECONDS)
            batches = batch_seconds(job)
            used = sample(process_id(job)).memory
            beside = _query_seconds(lake)
            files = len(lake.file_sizes())
        for query, seconds in batches.items():
            yield Result(f"batch of {query}, {level:,} in the lake", median(seconds), "s", len(seconds))
        yield Result(f"driver's memory, {level:,} in the lake", used / (1 << 20), "MB")
        yield Result(f"files, {level:,} in the lake", files, "files")
        yield Result(f"query beside the job, {level:,} in the lake", beside, "s")
        yield Result(f"query at rest, {level:,} in the lake", _query_seconds(lake), "s")


def _query_seconds(lake: Lake) -> float:
    """Return the median of the seconds that a query over all interactions takes."""
    seconds = []
    for _ in range(_QUERIES):
        started_at = time.monotonic()
        rows = read_files(lake.files(), {})
        rows.group_by("item_id").agg(pl.len(), pl.col("timestamp").max()).collect(engine="streaming")
        seconds.append(time.monotonic() - started_at)
    return median(seconds)


def soak(stack: Stack, minutes: float) -> Iterator[Result]:
    """Measure at equal intervals what accumulates at 1,000 interactions a second, and whether batches slow down.

    Maintenance is ten times as frequent as by default and keeps a tenth of the history, so one hour stands for ten.
    """
    topic = "soak"
    log = stack.data / topic / "warehouse" / EVENT.name / "_delta_log"
    job_settings = {"UPKEEP_INTERVAL": 30, "LAKE_HISTORY": 1}
    with (
        stack.service(services.STREAM, topic, **job_settings) as job,
        stack.service(services.PRODUCER, topic, PRODUCER_RATE=0.001),
    ):
        started_at = time.monotonic()
        for number in range(1, _SAMPLES + 1):
            elapsed = number * minutes / _SAMPLES
            time.sleep(max(0, started_at + elapsed * 60 - _SAMPLE_SECONDS - time.monotonic()))
            batches = batch_seconds(job)
            after = f"after {elapsed:g} min"
            for query, seconds in batches.items():
                yield Result(f"{after}: batch of {query}", median(seconds), "s", len(seconds))
            yield Result(f"{after}: files that the table has", metric(job, metric_names.LAKE_FILES), "files")
            yield Result(f"{after}: entries of the table's log", len(list(log.iterdir())), "files")
            checkpoints = (stack.data / topic / "checkpoints").rglob("*")
            yield Result(f"{after}: files in checkpoints", sum(file.is_file() for file in checkpoints), "files")
            yield Result(f"{after}: driver's memory", sample(process_id(job)).memory / (1 << 20), "MB")


def _finished(job: HTTPExecutor, query: str) -> float:
    """Return a number that grows with the batches that a query has finished."""
    of_others = f"{metric_names.BATCH_SECONDS}_count"
    return metric(job, metric_names.FINISHED_BATCH if query == metric_names.INGEST else of_others, query)


def batch_seconds(job: HTTPExecutor) -> dict[str, list[float]]:
    """Observe for `_SAMPLE_SECONDS`: the seconds of each batch that completes, by query."""
    seconds: dict[str, list[float]] = {"ingest": [], "aggregate": []}
    numbers = {query: _finished(job, query) for query in seconds}
    end = time.monotonic() + _SAMPLE_SECONDS
    while time.monotonic() < end:
        time.sleep(0.25)
        for query, durations in seconds.items():
            number = _finished(job, query)
            if number > numbers[query]:
                numbers[query] = number
                durations.append(metric(job, metric_names.LAST_BATCH_SECONDS, query))
    return seconds
