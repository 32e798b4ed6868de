"""How fast the whole pipeline works off a backlog: from Kafka to the last document in Elasticsearch.

    python -m benchmarks.backlog [INTERACTIONS]

Cold: from the start of the processes, JVM included. Warm: a second backlog of the same size, sent to the same
processes. The producer's own rate on the same machine in the same run is the yardstick.
"""

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from elasticsearch import Elasticsearch
from elasticsearch.exceptions import NotFoundError
from rich.console import Console
from rich.table import Table

from contract.tables import table_named
from local_stack import cache, servers, services

USERS = ITEMS = 1_000


def main() -> None:
    """Run the benchmark, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    console = Console()
    cache.fill(cache.SPARK, cache.KAFKA, cache.ELASTICSEARCH, cache.ELASTICSEARCH_NETTY, console=console)
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        kafka_port, es_port = servers.free_port(), servers.free_port()
        stack.enter_context(servers.kafka(data, kafka_port))
        stack.enter_context(servers.elasticsearch(data, es_port))
        client = Elasticsearch([f"http://{servers.HOST}:{es_port}"])
        told = {
            "KAFKA_BROKER": f"{servers.HOST}:{kafka_port}",
            "ES_HOST": f"http://{servers.HOST}:{es_port}",
            "RANDOM_DATA_MAX_USERS": str(USERS),
            "RANDOM_DATA_MAX_ITEMS": str(ITEMS),
            "PRODUCER_RATE": "0",
            "PRODUCER_LIMIT": str(count),
            "LOOP_SLEEP": "0.5",
        }
        sending = _send(data, told)
        began = time.monotonic()
        for service in (services.STREAM, services.SINK):
            stack.enter_context(services.run(service, data, told, port=servers.free_port()))
        cold = _seconds_until(client, count, began)
        began = time.monotonic()
        _send(data, told)
        warm = _seconds_until(client, 2 * count, began)
    table = Table("what", "interactions", "seconds", "interactions a second", title=f"{os.cpu_count()} cores")
    table.add_row("producer alone", f"{count:,}", f"{sending:.1f}", f"{count / sending:,.0f}")
    table.add_row("whole pipeline, cold, from process start", f"{count:,}", f"{cold:.1f}", f"{count / cold:,.0f}")
    table.add_row("whole pipeline, warm, producer running", f"{count:,}", f"{warm:.1f}", f"{count / warm:,.0f}")
    console.print(table)


def _send(data: Path, told: dict[str, str]) -> float:
    began = time.monotonic()
    producer = services.run(services.PRODUCER, data, told, port=servers.free_port())
    with producer:
        assert producer.process is not None
        producer.process.wait()
    return time.monotonic() - began


def _seconds_until(client: Elasticsearch, count: int, began: float) -> float:
    """Until the total over all users' documents is `count`."""
    total = table_named("agg_interactions_user").name
    while True:
        try:
            client.indices.refresh(index=total)
            if _total(client, total) >= count:
                return time.monotonic() - began
        except NotFoundError:
            pass
        time.sleep(0.25)


def _total(client: Elasticsearch, index: str) -> float:
    found = client.search(index=index, size=0, aggs={"total": {"sum": {"field": "total_interactions"}}})
    return float(found["aggregations"]["total"]["value"])


if __name__ == "__main__":
    main()
