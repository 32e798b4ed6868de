"""Kafka Streams: `jobs/KafkaStreamsJob.java` over in-memory stores."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from benchmarks.peers.java_program import FOLDER, JARS, JavaProgram
from benchmarks.peers.peer import Peer
from benchmarks.stack import Stack
from local_stack.cache import Download

_COMMIT_MS: Final = 200
_PROGRAM: Final = JavaProgram(
    "KafkaStreamsJob.java", Download("Kafka Streams 3.9.1", JARS / "kafka_streams.txt", FOLDER / "kafka_streams")
)
_SETTINGS: Final = {
    "num.stream.threads": 2,
    "commit.interval.ms": _COMMIT_MS,
    "statestore.cache.max.bytes": 64 << 20,
    "replication.factor": 1,
    "topology.optimization": "all",
    "buffered.records.per.partition": 10_000,
    "consumer.auto.offset.reset": "earliest",
    "consumer.max.poll.records": 10_000,
    # Longer than the process is suspended.
    "consumer.session.timeout.ms": 600_000,
    "producer.transaction.timeout.ms": 600_000,
}


@contextmanager
def _start(stack: Stack, topic: str, output: str, *, guarantee: str) -> Iterator[int]:
    settings = {
        **_SETTINGS,
        "application.id": topic,
        "bootstrap.servers": stack.kafka,
        "state.dir": stack.data / topic / "state",
        "processing.guarantee": guarantee,
    }
    arguments = [f"{name}={value}" for name, value in settings.items()]
    with _PROGRAM.run(stack, topic, [topic, output, *arguments]) as pid:
        yield pid


def _peer(title: str, guarantee: str, does_not: str) -> Peer:
    return Peer(
        title=f"Kafka Streams, {title}",
        version="Kafka Streams 3.9.1",
        lake="none",
        settings=f"`{guarantee}`, a commit each {_COMMIT_MS} ms, 2 threads, stores in memory with changelog topics,"
        " a cache of 64 MB, a heap of 1 GB",
        does_not=f"no dead letters: a malformed record stops it; no checks of fields; {does_not}",
        set_up=_PROGRAM.set_up,
        start=partial(_start, guarantee=guarantee),
    )


AT_LEAST_ONCE: Final = _peer("at least once", "at_least_once", "a restart can count interactions twice")
EXACTLY_ONCE: Final = _peer(
    "exactly once",
    "exactly_once_v2",
    f"its rows are visible up to {_COMMIT_MS} ms after their append, at the commit, which the latency does not include",
)
