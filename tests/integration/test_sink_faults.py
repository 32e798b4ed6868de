"""Faults of Elasticsearch and of requests to it: nothing is lost or stuck, and /health reports the fault."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from mirakuru import HTTPExecutor

from contract.topics import aggregated_topic
from local_stack import servers
from local_stack.services import SINK
from runtime import topic_admin
from tests.fault_proxy import Fault, fault_proxy
from tests.pipeline import Pipeline, assert_equal, assert_more_than, eventually, headers_of, item_record
from tests.short_timeouts_sink import IMPATIENT_SINK

ITEMS = "agg_interactions_item"


def _found(pipeline: Pipeline) -> dict[str, int]:
    return {id_: source["max_interactions"] for id_, source in pipeline.documents(ITEMS).items()}


def _firing(pipeline: Pipeline) -> set[str]:
    return {alert["id"] for alert in pipeline.alerts() if alert["status"] == "firing"}


def _problem(sink: HTTPExecutor) -> str:
    """Return the state of Elasticsearch in /health."""
    return str(requests.get(sink.url.geturl(), timeout=10).json()["parts"]["elasticsearch"])


def _assert_problem(sink: HTTPExecutor, *problems: str) -> None:
    problem = _problem(sink)
    assert any(each in problem for each in problems), problem


@contextmanager
def _running(folder: Path, port: int) -> Iterator[None]:
    server = servers.elasticsearch(folder, port)
    try:
        server.start()
        yield
    finally:
        server.kill()


@pytest.mark.timeout(600)
def test_an_elasticsearch_that_comes_back_empty_is_filled_again(
    pipeline: Pipeline, cache: None, tmp_path: Path
) -> None:
    port, folder = servers.free_port(), tmp_path / "emptied"
    own_pipeline = replace(pipeline, es_url=f"http://{servers.HOST}:{port}")
    with _running(folder, port):
        sink = own_pipeline.service(SINK)
        sink.start()
    try:
        own_pipeline.publish(*[item_record(n, 20) for n in range(100)])
        eventually(lambda: _assert_problem(sink, "Connection refused", "ConnectionError"))
        # After an ordinary restart, it is the same cluster.
        with _running(folder, port):
            eventually(lambda: assert_equal(_found(own_pipeline), {f"item_{n}": 20 for n in range(100)}))
            eventually(lambda: assert_equal(len(_firing(own_pipeline)), 100))
            own_pipeline.publish(*[item_record(n, 5) for n in range(10)])
            eventually(lambda: assert_equal(len(_firing(own_pipeline)), 90))
        assert "was emptied" not in own_pipeline.log(SINK)
        shutil.rmtree(folder)
        # It is noticed without a new record.
        with _running(folder, port):
            expected = {f"item_{n}": 5 if n < 10 else 20 for n in range(100)}
            eventually(lambda: assert_equal(_found(own_pipeline), expected))
            eventually(lambda: assert_equal(len(_firing(own_pipeline)), 90))
            mapping = own_pipeline.elasticsearch.indices.get_mapping(index=ITEMS)[ITEMS]["mappings"]
            assert mapping["dynamic"] == "strict"
            sink.stop()
        assert own_pipeline.log(SINK).count("was emptied") == 1
        shutil.rmtree(folder)
        # It is noticed also if the sink was not running.
        with _running(folder, port), own_pipeline.running(SINK) as again:
            eventually(lambda: assert_equal(_found(own_pipeline), expected))
            eventually(lambda: assert_equal(len(_firing(own_pipeline)), 90))
            assert _problem(again) == "ok"
    finally:
        sink.kill()


def test_the_sink_waits_for_an_index_that_a_full_disk_made_read_only(pipeline: Pipeline) -> None:
    block = "index.blocks.read_only_allow_delete"
    with pipeline.running(SINK) as sink:
        pipeline.publish(item_record(1, 1))
        eventually(lambda: assert_equal(_found(pipeline), {"item_1": 1}))
        indices = pipeline.elasticsearch.indices
        indices.put_settings(index=ITEMS, body={block: True})
        pipeline.publish(item_record(1, 2), item_record(2, 20))
        eventually(lambda: _assert_problem(sink, "cluster_block_exception"))
        # The other indices of the same batch are written meanwhile, and nothing is dead-lettered.
        indices.put_settings(index=ITEMS, body={block: None})
        eventually(lambda: assert_equal(_found(pipeline), {"item_1": 2, "item_2": 20}))
        eventually(lambda: assert_equal(_firing(pipeline), {"item_2"}))
        eventually(lambda: assert_equal(_problem(sink), "ok"))
    assert pipeline.read(pipeline.settings.dead_letter_topic) == []


def test_rows_of_five_megabytes_are_indexed_or_dead_lettered_whole(pipeline: Pipeline) -> None:
    topic = aggregated_topic(pipeline.settings)
    large_enough = replace(topic, config={**topic.config, "max.message.bytes": str(10 << 20)})
    topic_admin.create_missing_topics(pipeline.settings.kafka_client, threading.Event(), large_enough)
    with pipeline.running(SINK):
        key, value = item_record(1, 7)
        large = value + b" " * (5 << 20)
        refused = value.replace(b"item_1", b"item_9") + b" " * (5 << 20)
        records = [(key, large), (key.replace(b"item_1", b"item_2"), refused), item_record(3, 8)]
        pipeline.publish(*records)
        eventually(lambda: assert_equal(_found(pipeline), {"item_1": 7, "item_3": 8}))
        eventually(lambda: assert_equal(len(pipeline.read(pipeline.settings.dead_letter_topic)), 1))
    (dead_letter,) = pipeline.read(pipeline.settings.dead_letter_topic)
    assert dead_letter.value() == refused
    assert "item_id is 'item_9', but the key says 'item_2'" in headers_of(dead_letter)["dead_letter.reason"]


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("429", "TransportError(429"),
        ("503", "TransportError(503"),
        ("reset", "Connection aborted"),
        ("lost response", "Connection aborted"),
        ("slow", "ConnectionTimeout"),
    ],
)
def test_the_sink_waits_for_a_failing_elasticsearch_and_nothing_is_lost_or_duplicated(
    pipeline: Pipeline, fault: Fault, problem: str
) -> None:
    with fault_proxy(pipeline.es_url) as proxy, pipeline.running(IMPATIENT_SINK, ES_HOST=proxy.url) as sink:
        pipeline.publish(*[item_record(n, 13) for n in range(50)])
        eventually(lambda: assert_equal(_firing(pipeline), {f"item_{n}" for n in range(50)}))
        proxy.fault = fault
        pipeline.publish(*[item_record(n, 5 if n < 25 else 20) for n in range(50)], item_record(50, 1))
        eventually(lambda: _assert_problem(sink, problem))
        pipeline.publish(item_record(50, 2))
        eventually(lambda: assert_more_than(proxy.faulted_requests, 2))
        proxy.fault = "none"
        expected = {f"item_{n}": 5 if n < 25 else 20 for n in range(50)} | {"item_50": 2}
        eventually(lambda: assert_equal(_found(pipeline), expected))
        eventually(lambda: assert_equal(_firing(pipeline), {f"item_{n}" for n in range(25, 50)}))
        eventually(lambda: assert_equal(_problem(sink), "ok"))
    assert len(pipeline.alerts()) == 50
    assert pipeline.read(pipeline.settings.dead_letter_topic) == []
