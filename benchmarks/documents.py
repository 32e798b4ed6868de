"""How fast the whole pipeline works off a backlog: from Kafka to the last document in Elasticsearch."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

from elasticsearch import Elasticsearch
from elasticsearch.exceptions import NotFoundError

from benchmarks.results import Result
from benchmarks.stack import Stack
from contract.tables import table_named
from local_stack import services

_INDEX = table_named("agg_interactions_user").name


def measure(stack: Stack, interactions: int) -> Iterator[Result]:
    """Cold: from the start of the processes. Warm: a second backlog, while the producer sends it."""
    client = Elasticsearch([stack.es_host])
    stack.send("documents", interactions)
    with ExitStack() as running:
        began = time.monotonic()
        for service in (services.STREAM, services.SINK):
            running.enter_context(stack.service(service, "documents"))
        seconds = _seconds_until(client, interactions, began)
        yield Result("whole pipeline, cold, from process start", interactions / seconds, "interactions/s", interactions)
        began = time.monotonic()
        stack.send("documents", interactions)
        seconds = _seconds_until(client, 2 * interactions, began)
    yield Result("whole pipeline, warm, producer running", interactions / seconds, "interactions/s", interactions)


def _seconds_until(client: Elasticsearch, count: int, began: float) -> float:
    """Until the total over all users' documents is `count`."""
    while True:
        try:
            client.indices.refresh(index=_INDEX)
            total = {"total": {"sum": {"field": "total_interactions"}}}
            found = client.search(index=_INDEX, size=0, aggs=total)
            if found["aggregations"]["total"]["value"] >= count:
                return time.monotonic() - began
        except NotFoundError:
            pass
        time.sleep(0.25)
