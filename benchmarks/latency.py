"""How long from an interaction's send to its aggregate in Kafka, and to its document in Elasticsearch."""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from elasticsearch import Elasticsearch

from benchmarks.published import latencies, read_published, records
from benchmarks.results import Result
from benchmarks.stack import Stack
from contract.tables import table_named
from local_stack import services

_WATCHED = 100
"""Users whose documents are looked at, in turn with everything else."""
_LOOK_SECONDS = 0.1
_PATIENCE = 20.0
"""Seconds, for the last interactions that count to reach their documents."""
_INDEX = table_named("agg_interactions_user").name


def measure(stack: Stack, rate: int, warm: float, seconds: float) -> Iterator[Result]:
    """Percentiles over `seconds` at `rate` interactions a second, after `warm` seconds at the same rate."""
    topic = f"latency-{rate}"
    client = Elasticsearch([stack.es_host])
    with ExitStack() as running:
        for service in (services.STREAM, services.SINK):
            running.enter_context(stack.service(service, topic))
        running.enter_context(stack.service(services.PRODUCER, topic, PRODUCER_RATE=1 / rate))
        time.sleep(warm)
        began_ms = time.time() * 1000
        ended_ms = began_ms + seconds * 1000
        # Longer than any latency: what was sent last has to be seen as well, and at once.
        seen = _watch(client, seconds + _PATIENCE)
    published = read_published(stack.kafka, topic + "_aggregated")
    counted = [ms for sent, ms in latencies(stack.kafka, topic, published) if began_ms <= sent < ended_ms]
    yield from _percentiles(f"send → aggregate in Kafka, {rate:,}/s", counted)
    indexed = list(_until_indexed(stack, topic, seen, began_ms, ended_ms))
    yield from _percentiles(f"send → document in Elasticsearch, {rate:,}/s", indexed)


Seen = dict[bytes, list[tuple[int, int]]]
"""Per user: totals and when (epoch ms) the document was first seen to have them."""


def _watch(client: Elasticsearch, seconds: float) -> Seen:
    ids = [f"user_{n}" for n in range(_WATCHED)]
    seen: Seen = defaultdict(list)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = client.mget(index=_INDEX, body={"ids": ids}, _source=["total_interactions"])
        now = int(time.time() * 1000)
        for document in found["docs"]:
            total = document.get("_source", {}).get("total_interactions", 0)
            rows = seen[document["_id"].encode()]
            if not rows or total > rows[-1][0]:
                rows.append((total, now))
        time.sleep(_LOOK_SECONDS)
    return seen


def _until_indexed(stack: Stack, topic: str, seen: Seen, began_ms: float, ended_ms: float) -> Iterator[int]:
    numbers: dict[bytes, int] = defaultdict(int)
    totals = {user: [total for total, _ in rows] for user, rows in seen.items()}
    for user, _, sent_ms in records(stack.kafka, topic):
        numbers[user] += 1
        if user in seen and began_ms <= sent_ms < ended_ms:
            n = bisect_left(totals[user], numbers[user])
            if n < len(seen[user]):
                yield seen[user][n][1] - sent_ms


def _percentiles(name: str, milliseconds: Sequence[int]) -> Iterator[Result]:
    ordered = sorted(milliseconds)
    for percent in (50, 95, 99):
        value = ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] / 1000
        yield Result(f"{name}, p{percent}", value, "s", len(ordered))
