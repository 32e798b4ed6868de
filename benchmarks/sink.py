"""Benchmark: how fast the sink processes a backlog of changed rows, against ready-made bulk requests as the limit."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import orjson
import psutil
from confluent_kafka import Producer
from elasticsearch import Elasticsearch
from elasticsearch_sink_alert.indexing.index_templates import mappings, template

from benchmarks.metrics import wait_for
from benchmarks.results import Result
from benchmarks.stack import Stack
from contract.keys import encode_key
from contract.tables import table_named
from contract.topics import aggregated_topic
from local_stack import services
from runtime import topic_admin
from runtime.settings import Settings

_TABLE = table_named("agg_interactions_user").name
_CHANGES_PER_USER = 4
_PER_REQUEST = 5_000
_WRITERS = (1, 2, 4)
"""Parallel writers of ready-made requests; the best number of them is the limit."""

LIMIT = "ready-made bulk requests → Elasticsearch"


def measure(stack: Stack, rows: int) -> Iterator[Result]:
    """Measure the limit, the sink, and the sink's memory; these rows fire no rule."""
    client = Elasticsearch([stack.es_host])
    records = _records(rows)
    best = max(_ready_made(client, records, writers) for writers in _WRITERS)
    client.indices.delete(index=_TABLE)
    yield Result(LIMIT, best, "rows/s", rows)
    settings = Settings(kafka_broker=stack.kafka, kafka_topic="sink")
    topic_admin.create_missing_topics(settings.kafka_client, threading.Event(), aggregated_topic(settings))
    _publish(stack.kafka, settings.aggregated_topic, records)
    with stack.service(services.SINK, "sink") as sink:
        assert sink.process is not None
        memory = psutil.Process(sink.process.pid).memory_info
        started_at, first = wait_for(sink, "sink_records_total", 1)
        half = wait_for(sink, "sink_records_total", rows // 2)
        at_half = memory().rss
        ended_at, _ = wait_for(sink, "sink_records_total", rows)
        at_end = memory().rss
    rate = (rows - first) / (ended_at - started_at)
    yield Result("sink, backlog of changed rows → Elasticsearch", rate, "rows/s", int(rows - first))
    yield Result("sink, of ready-made bulk requests", rate / best, "of the limit", int(rows - first))
    yield Result("sink's memory, half of the backlog done", at_half / (1 << 20), "MB", int(half[1]))
    yield Result("sink's memory, the whole backlog done", at_end / (1 << 20), "MB", rows)


def _records(rows: int) -> list[tuple[str, bytes]]:
    """Return ids and rows; every user changes a few times, far enough apart to be in different requests."""
    users = rows // _CHANGES_PER_USER
    records = []
    for change in range(_CHANGES_PER_USER):
        for n in range(users):
            total = 4 * change + 80
            row = {"user_id": f"user_{n}", **dict.fromkeys(("total_click", "total_like", "total_view"), total // 4)}
            row |= {"total_purchase": total // 4, "total_interactions": total, "avg_interactions": 40.0 + n % 100 / 100}
            records.append((f"user_{n}", orjson.dumps(row | {"last_interaction": "2026-01-01T00:00:00.000Z"})))
    return records


def _ready_made(client: Elasticsearch, records: Sequence[tuple[str, bytes]], writers: int) -> float:
    """Return the rows per second with requests that are built before the clock starts."""
    client.indices.delete(index=_TABLE, ignore_unavailable=True)
    client.indices.put_index_template(name=_TABLE, body=template(_TABLE, dict(mappings())[_TABLE]))
    client.indices.create(index=_TABLE)
    requests = []
    for start in range(0, len(records), _PER_REQUEST):
        lines = []
        for version, (row_id, row) in enumerate(records[start : start + _PER_REQUEST], start=start + 1):
            action = {"_index": _TABLE, "_id": row_id, "version": version, "version_type": "external_gte"}
            lines += [orjson.dumps({"index": action}), row]
        requests.append(b"\n".join([*lines, b""]))

    def post(body: bytes) -> None:
        client.transport.perform_request(
            "POST",
            "/_bulk",
            headers={"content-type": "application/x-ndjson"},
            params={"filter_path": "errors", "request_timeout": 120},
            body=body,
        )

    started_at = time.monotonic()
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(post, requests))
    return len(records) / (time.monotonic() - started_at)


def _publish(kafka: str, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000})
    for row_id, row in records:
        producer.produce(topic, key=encode_key(_TABLE, row_id), value=row)
        producer.poll(0)
    assert producer.flush(120) == 0
