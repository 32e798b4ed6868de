"""Benchmark: how fast the whole pipeline processes a backlog, from Kafka to the last document in Elasticsearch."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

from elasticsearch import Elasticsearch
from elasticsearch.exceptions import NotFoundError

from benchmarks.results import Result
from benchmarks.stack import Stack
from contract.declared import table_named
from local_stack import services

_INDEX = table_named("agg_interactions_user").name


def measure(stack: Stack, interactions: int) -> Iterator[Result]:
    """Measure cold, from the start of the processes, and warm: a second backlog while the producer sends it."""
    client = Elasticsearch([stack.es_host])
    stack.send("documents", interactions)
    with ExitStack() as running:
        started_at = time.monotonic()
        for service in (services.STREAM, services.SINK):
            running.enter_context(stack.service(service, "documents"))
        seconds = _seconds_until(client, interactions, started_at)
        yield Result("whole pipeline, cold, from process start", interactions / seconds, "interactions/s", interactions)
        started_at = time.monotonic()
        stack.send("documents", interactions)
        seconds = _seconds_until(client, 2 * interactions, started_at)
    yield Result("whole pipeline, warm, producer running", interactions / seconds, "interactions/s", interactions)


def _seconds_until(client: Elasticsearch, count: int, started_at: float) -> float:
    """Wait until the total over all users' documents is `count`; return the seconds since `started_at`."""
    while True:
        try:
            client.indices.refresh(index=_INDEX)
            total = {"total": {"sum": {"field": "total_interactions"}}}
            response = client.search(index=_INDEX, size=0, aggs=total)
            if response["aggregations"]["total"]["value"] >= count:
                return time.monotonic() - started_at
        except NotFoundError:
            pass
        time.sleep(0.25)
