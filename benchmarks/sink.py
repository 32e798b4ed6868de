"""Benchmark: the sink with a backlog, against ready-made bulk requests as the limit, and at a steady rate."""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import orjson
import psutil
from confluent_kafka import Producer
from elasticsearch import Elasticsearch
from elasticsearch_sink_alert.indexing.index_templates import mappings, template

from benchmarks.latency import percentiles
from benchmarks.metrics import wait_for
from benchmarks.process_tree import process_id, sample
from benchmarks.published import records
from benchmarks.results import Result
from benchmarks.stack import Stack
from contract import metric_names
from contract.declared import table_named
from contract.keys import decode_key, encode_key
from contract.topics import aggregated_topic
from local_stack import services
from runtime import topic_admin
from runtime.settings import Settings

_TABLE = table_named("agg_interactions_user").name
_CHANGES_PER_USER = 4
_PER_REQUEST = 5_000
_WRITERS = (1, 2, 4)
"""Parallel writers of ready-made requests; the best number of them is the limit."""

_STEADY_RATE = 1_000
"""Users, each of which changes once a second."""
_WARM_SECONDS = 10
_STEADY_SECONDS = 60
_SAMPLED_EVERY = 47
"""The distance between users whose documents are polled: few, as Elasticsearch has to answer meanwhile.
Not in step with the sink's batches."""
_POLL_SECONDS = 0.01

LIMIT = "ready-made bulk requests → Elasticsearch"


def measure(stack: Stack, rows: int) -> Iterator[Result]:
    """Measure the limit, the sink, its memory, and its latency; these rows fire no rule."""
    client = Elasticsearch([stack.es_host])
    changed = _rows(rows)
    # Elasticsearch becomes faster with each backlog: the first one is not measured, and the sink is measured between
    # two runs of its limit.
    _ready_made(client, changed, _WRITERS[-1])
    before = {writers: _ready_made(client, changed, writers) for writers in _WRITERS}
    writers = max(before, key=lambda number: before[number])
    client.indices.delete(index=_TABLE)
    settings = Settings(kafka_broker=stack.kafka, kafka_topic="sink")
    topic_admin.create_missing_topics(settings.kafka_client, threading.Event(), aggregated_topic(settings))
    _publish(stack.kafka, settings.aggregated_topic, changed)
    with stack.service(services.SINK, "sink") as sink:
        assert sink.process is not None
        memory = psutil.Process(sink.process.pid).memory_info
        started_at, first = wait_for(sink, metric_names.SINK_RECORDS, 1)
        half = wait_for(sink, metric_names.SINK_RECORDS, rows // 2)
        at_half = memory().rss
        ended_at, _ = wait_for(sink, metric_names.SINK_RECORDS, rows)
        at_end = memory().rss
    rate = (rows - first) / (ended_at - started_at)
    after = _ready_made(client, changed, writers)
    limit = (before[writers] + after) / 2
    yield Result(f"{LIMIT}, {writers} writers, before the sink", before[writers], "rows/s", rows)
    yield Result(f"{LIMIT}, {writers} writers, after the sink", after, "rows/s", rows)
    yield Result(LIMIT, limit, "rows/s", rows)
    yield Result("sink, backlog of changed rows → Elasticsearch", rate, "rows/s", int(rows - first))
    yield Result("sink, of ready-made bulk requests", rate / limit, "of the limit", int(rows - first))
    yield Result("sink's memory, half of the backlog done", at_half / (1 << 20), "MB", int(half[1]))
    yield Result("sink's memory, the whole backlog done", at_end / (1 << 20), "MB", rows)
    yield from _steady(stack)


def _steady(stack: Stack) -> Iterator[Result]:
    """Measure the latency from a record's append to the topic until its document can be read, and the processor."""
    name = "sink-steady"
    settings = Settings(kafka_broker=stack.kafka, kafka_topic=name)
    topic_admin.create_missing_topics(settings.kafka_client, threading.Event(), aggregated_topic(settings))
    with stack.service(services.SINK, name) as sink, ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(_publish_steadily, stack.kafka, settings.aggregated_topic)
        time.sleep(_WARM_SECONDS)
        before = sample(process_id(sink))
        observed = _observe(Elasticsearch([stack.es_host]), publishing)
        after = sample(process_id(sink))
    latencies = []
    for key, value, appended_ms in records(stack.kafka, settings.aggregated_topic):
        of_id = observed.get(decode_key(key.decode()).id, [])
        n = bisect_left(of_id, orjson.loads(value)["total_click"], key=lambda seen: seen[0])
        if n < len(of_id) and appended_ms >= before.at_ms:
            latencies.append(int(of_id[n][1] - appended_ms))
    yield from percentiles(f"topic → document, {_STEADY_RATE:,} changed rows/s", latencies)
    cores = (after.core_seconds - before.core_seconds) / (after.at_ms - before.at_ms) * 1000
    yield Result(f"sink, {_STEADY_RATE:,} changed rows/s", cores, "cores")


def _publish_steadily(kafka: str, topic: str) -> None:
    """Change every user once a second, one after the other: `total_click` is the number of the change."""
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0})
    started_at = time.monotonic()
    for change in range(1, _WARM_SECONDS + _STEADY_SECONDS + 1):
        for n in range(_STEADY_RATE):
            at = started_at + change + n / _STEADY_RATE
            while (early := at - time.monotonic()) > 0:
                producer.poll(early)
            row_id = f"steady_{n}"
            producer.produce(topic, key=encode_key(_TABLE, row_id), value=_row(row_id, 80, total_click=change))
    assert producer.flush(120) == 0


def _observe(client: Elasticsearch, publishing: "Future[None]") -> dict[str, list[tuple[int, float]]]:
    """Poll some documents until all is published; return the times (epoch ms) when each change was first observed."""
    observed: dict[str, list[tuple[int, float]]] = {f"steady_{n}": [] for n in range(0, _STEADY_RATE, _SAMPLED_EVERY)}
    while not publishing.done():
        response = client.mget(index=_TABLE, body={"ids": list(observed)}, _source=["total_click"])
        now = time.time() * 1000
        for document in response["docs"]:
            change = document.get("_source", {}).get("total_click", 0)
            seen = observed[document["_id"]]
            if not seen or change > seen[-1][0]:
                seen.append((change, now))
        time.sleep(_POLL_SECONDS)
    publishing.result()
    return observed


def _rows(count: int) -> list[tuple[str, bytes]]:
    """Return ids and rows; every user changes a few times, far enough apart to be in different requests."""
    users = count // _CHANGES_PER_USER
    rows = []
    for change in range(_CHANGES_PER_USER):
        for n in range(users):
            total = 4 * change + 80
            rows.append((f"user_{n}", _row(f"user_{n}", total, avg_interactions=40.0 + n % 100 / 100)))
    return rows


def _row(row_id: str, total: int, **fields: float) -> bytes:
    row = {
        "user_id": row_id,
        **dict.fromkeys(("total_click", "total_like", "total_view", "total_purchase"), total // 4),
    }
    row |= {"total_interactions": total, "avg_interactions": 40.0, "last_interaction": "2026-01-01T00:00:00.000Z"}
    return orjson.dumps(row | fields)


def _ready_made(client: Elasticsearch, changed: Sequence[tuple[str, bytes]], writers: int) -> float:
    """Return the rows per second with requests that are built before the clock starts."""
    client.indices.delete(index=_TABLE, ignore_unavailable=True)
    client.indices.put_index_template(name=_TABLE, body=template(_TABLE, dict(mappings())[_TABLE]))
    client.indices.create(index=_TABLE)
    requests = []
    for start in range(0, len(changed), _PER_REQUEST):
        lines = []
        for version, (row_id, row) in enumerate(changed[start : start + _PER_REQUEST], start=start + 1):
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
    return len(changed) / (time.monotonic() - started_at)


def _publish(kafka: str, topic: str, changed: Sequence[tuple[str, bytes]]) -> None:
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000})
    for row_id, row in changed:
        producer.produce(topic, key=encode_key(_TABLE, row_id), value=row)
        producer.poll(0)
    assert producer.flush(120) == 0
