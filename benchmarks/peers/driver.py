"""Benchmark: this project's stream job and other engines over the same interactions, in one run.

Each engine gets a topic of its own with the same content (users, items and types from one seed), and is measured like
any other: a backlog to warm up, another one that is written while it is suspended, then 1,000 interactions a second.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import psutil
from rich.console import Console

from benchmarks.latency import percentiles
from benchmarks.peers import flink, kafka_streams, pathway, project
from benchmarks.peers.output_topic import OutputTopic
from benchmarks.peers.peer import BACKLOG, CORES, COST, EXACT, LATENCY, MEMORY, RATE, Peer
from benchmarks.peers.reference import Reference, parse_row
from benchmarks.process_tree import sampled, suspended
from benchmarks.published import records
from benchmarks.results import Result
from benchmarks.stack import Stack
from contract.topics import aggregated_topic, interactions_topic
from local_stack import services
from runtime.settings import Settings

PEERS: Final[dict[str, Peer]] = {
    "project": project.PROJECT,
    "flink": flink.WITHOUT_FILES,
    "flink-files": flink.WITH_FILES,
    "kafka-streams": kafka_streams.AT_LEAST_ONCE,
    "kafka-streams-exactly-once": kafka_streams.EXACTLY_ONCE,
    "pathway": pathway.PATHWAY,
}
_SEED: Final = 7
_LOG_LINES: Final = 20
"""Of an engine that has failed."""


def measure(
    stack: Stack, names: Sequence[str], interactions: int, warm: float, seconds: float, console: Console
) -> Iterator[Result]:
    """Measure the peers with these names one after the other.

    A backlog is `interactions`; latencies and cores are measured over `seconds`, after `warm` seconds at the same rate.
    """
    for name in names:
        PEERS[name].set_up(console)
    for name in names:
        yield from _measure(stack, name, PEERS[name], interactions, warm, seconds)


def _measure(stack: Stack, name: str, peer: Peer, interactions: int, warm: float, seconds: float) -> Iterator[Result]:
    settings = Settings(kafka_broker=stack.kafka, kafka_topic=f"peer-{name}")
    source, target = interactions_topic(settings), aggregated_topic(settings)
    # Its records keep the time at which they were sent, instead of that of their append.
    stack.create(replace(source, config={}), target)
    send = partial(stack.send, source.name, interactions, RANDOM_DATA_SEED=_SEED)
    send()
    with (
        peer.start(stack, source.name, target.name) as pid,
        sampled(pid) as costs,
        OutputTopic(stack.kafka, target.name) as output,
    ):
        check = partial(_require_running, pid, peer, stack.data / f"{source.name}.log")
        output.drain(interactions, check)
        with suspended(pid):
            send()
        resumed_ms = time.time() * 1000
        drained_ms = output.drain(2 * interactions, check)
        with stack.service(services.PRODUCER, source.name, PRODUCER_RATE=1 / RATE, RANDOM_DATA_SEED=_SEED):
            _read_for(output, warm)
            start_ms = time.time() * 1000
            _read_for(output, seconds)
            end_ms = time.time() * 1000
        output.drain(stack.size(source.name), check)
    rate = interactions / (drained_ms - resumed_ms) * 1000
    yield Result(peer.result_name(BACKLOG), rate, "interactions/s", interactions)
    cost = costs.core_seconds(resumed_ms, drained_ms) / interactions * 1e6
    yield Result(peer.result_name(COST), cost, "core-seconds per million", interactions)
    reference, milliseconds = _latencies(stack, source.name, output, start_ms, end_ms)
    yield from percentiles(peer.result_name(LATENCY), milliseconds)
    cores = costs.core_seconds(start_ms, end_ms) / (end_ms - start_ms) * 1000
    yield Result(peer.result_name(CORES), cores, "cores", len(milliseconds))
    yield Result(peer.result_name(MEMORY), costs.peak_memory / (1 << 20), "MB")
    expected = reference.rows()
    exact = sum(key in output.rows and parse_row(key, output.rows[key]) == row for key, row in expected.items())
    rows = len(expected | output.rows)
    yield Result(peer.result_name(EXACT), exact / rows, "of the rows", rows)
    # With those that Kafka Streams has created.
    stack.delete_topics(source.name)


def _latencies(
    stack: Stack, topic: str, output: OutputTopic, start_ms: float, end_ms: float
) -> tuple[Reference, list[int]]:
    """Read the topic of interactions once: for the expected rows, and for the milliseconds from each interaction that
    was sent in the period to the first row of its user that counts it.
    """
    reference, milliseconds = Reference(), []
    for user, value, sent_ms in records(stack.kafka, topic):
        number = reference.add(value)
        if start_ms <= sent_ms < end_ms:
            rows = output.published.rows[user]
            milliseconds.append(rows[bisect_left(rows, number, key=lambda row: row.total)].at_ms - sent_ms)
    return reference, milliseconds


def _read_for(output: OutputTopic, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        output.read(min(left, 0.5))


def _require_running(pid: int, peer: Peer, log: Path) -> None:
    if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
        lines = log.read_text().splitlines()[-_LOG_LINES:] if log.exists() else []
        raise RuntimeError("\n".join([f"{peer.title} has ended:", *lines]))
