"""Benchmark: latency from the send of an interaction to its aggregate in Kafka and its document in Elasticsearch."""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from elasticsearch import Elasticsearch

from benchmarks.published import latencies, read_published, records
from benchmarks.results import Result
from benchmarks.stack import Stack
from contract.declared import table_named
from local_stack import services

_SAMPLED_USERS = 100
"""Users whose documents are polled."""
_POLL_SECONDS = 0.1
_DRAIN_SECONDS = 20.0
"""For the last measured interactions to reach their documents: longer than any latency."""
_INDEX = table_named("agg_interactions_user").name


def measure(stack: Stack, rate: int, warm: float, seconds: float) -> Iterator[Result]:
    """Measure percentiles over `seconds` at `rate` interactions a second, after `warm` seconds at the same rate."""
    topic = f"latency-{rate}"
    client = Elasticsearch([stack.es_host])
    # Its records keep the time at which they were sent, instead of that of their append.
    stack.create_topic(topic)
    with ExitStack() as running:
        for service in (services.STREAM, services.SINK):
            running.enter_context(stack.service(service, topic))
        running.enter_context(stack.service(services.PRODUCER, topic, PRODUCER_RATE=1 / rate))
        time.sleep(warm)
        start_ms = time.time() * 1000
        end_ms = start_ms + seconds * 1000
        observed = _poll_documents(client, seconds + _DRAIN_SECONDS)
    published = read_published(stack.kafka, topic + "_aggregated")
    published_ms = [ms for sent, ms in latencies(stack.kafka, topic, published) if start_ms <= sent < end_ms]
    yield from percentiles(f"send → aggregate in Kafka, {rate:,}/s", published_ms)
    indexed_ms = list(_indexing_latencies(stack, topic, observed, start_ms, end_ms))
    yield from percentiles(f"send → document in Elasticsearch, {rate:,}/s", indexed_ms)


ObservedTotals = dict[bytes, list[tuple[int, int]]]
"""Per user: each observed total of the document, and the time (epoch ms) when it was first observed."""


def _poll_documents(client: Elasticsearch, seconds: float) -> ObservedTotals:
    ids = [f"user_{n}" for n in range(_SAMPLED_USERS)]
    observed: ObservedTotals = defaultdict(list)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        response = client.mget(index=_INDEX, body={"ids": ids}, _source=["total_interactions"])
        now = int(time.time() * 1000)
        for document in response["docs"]:
            total = document.get("_source", {}).get("total_interactions", 0)
            rows = observed[document["_id"].encode()]
            if not rows or total > rows[-1][0]:
                rows.append((total, now))
        time.sleep(_POLL_SECONDS)
    return observed


def _indexing_latencies(
    stack: Stack, topic: str, observed: ObservedTotals, start_ms: float, end_ms: float
) -> Iterator[int]:
    """Yield the milliseconds from the send of each interaction of a sampled user to its document."""
    numbers: dict[bytes, int] = defaultdict(int)
    totals = {user: [total for total, _ in rows] for user, rows in observed.items()}
    for user, _, sent_ms in records(stack.kafka, topic):
        numbers[user] += 1
        if user in observed and start_ms <= sent_ms < end_ms:
            n = bisect_left(totals[user], numbers[user])
            if n < len(observed[user]):
                yield observed[user][n][1] - sent_ms


def percentiles(name: str, milliseconds: Sequence[int]) -> Iterator[Result]:
    """Yield the 50th, 95th and 99th percentile in seconds."""
    ordered = sorted(milliseconds)
    for percent in (50, 95, 99):
        value = ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] / 1000
        yield Result(f"{name}, p{percent}", value, "s", len(ordered))
