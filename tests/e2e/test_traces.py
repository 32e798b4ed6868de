"""Traces of the whole pipeline, sent to a collector that the test runs; and what happens without one."""

from contextlib import ExitStack

from confluent_kafka import Message

from contract.declared import TABLES
from contract.topics import TRACEPARENT
from local_stack.servers import HOST, free_port
from local_stack.services import PRODUCER, SINK, STREAM, Service
from tests.collector import Collector, collector
from tests.pipeline import Pipeline, assert_equal, assert_more_than, eventually, headers_of

_SERVICES = (PRODUCER, STREAM, SINK)
_WITH_IMPORTS = {"PYTHONPROFILEIMPORTTIME": 1}
"""Python then prints each module that it imports into the log."""


def _traced(messages: list[Message]) -> list[bool]:
    return [TRACEPARENT in headers_of(message) for message in messages]


def _position(message: Message) -> tuple[int | None, int | None]:
    return message.partition(), message.offset()


def _imports_opentelemetry(pipeline: Pipeline, service: Service) -> bool:
    log = pipeline.log(service)
    assert "import time:" in log
    return "opentelemetry" in log


def _assert_interactions(pipeline: Pipeline, number: int) -> None:
    assert len(pipeline.interactions()) == number
    pipeline.assert_everywhere(pipeline.interactions())


def _assert_all_received(traces: Collector, interactions: int, row_records: int) -> None:
    assert len(traces.named("aggregate")) == interactions
    assert len(traces.named("bulk")) > 0
    published = [span for span in list(traces.spans) if span.name.endswith("_aggregated")]
    assert len([span for span in published if span.name.startswith("send ")]) == row_records


def test_without_a_collector_nothing_is_traced_and_with_one_a_trace_leads_from_each_record_to_a_bulk_request(
    pipeline: Pipeline,
) -> None:
    rows = pipeline.settings.aggregated_topic
    with ExitStack() as stack:
        for service in (STREAM, SINK):
            stack.enter_context(pipeline.running(service, **_WITH_IMPORTS))
        pipeline.run_to_end(PRODUCER, PRODUCER_LIMIT=10, PRODUCER_RATE=0.01, **_WITH_IMPORTS)
        _assert_interactions(pipeline, 10)
    assert not any(_traced(pipeline.read(pipeline.topic)) + _traced(pipeline.read(rows)))
    assert [each.package for each in _SERVICES if _imports_opentelemetry(pipeline, each)] == []
    with ExitStack() as stack:
        traces = stack.enter_context(collector())
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, "OTEL_TRACES_SAMPLER_ARG": 1, **_WITH_IMPORTS}
        # From the checkpoint of the job without traces.
        for service in (STREAM, SINK):
            stack.enter_context(pipeline.running(service, **settings))
        # A start can publish rows again.
        before = {_position(message) for message in pipeline.read(rows)}
        pipeline.run_to_end(PRODUCER, PRODUCER_LIMIT=20, PRODUCER_RATE=0.1, **settings)
        _assert_interactions(pipeline, 30)
        new = [each for each in pipeline.read(rows) if _position(each) not in before]
        eventually(lambda: _assert_all_received(traces, 20, len(new)))
    assert all(_traced(new))
    assert sum(_traced(pipeline.read(pipeline.topic))) == 20
    assert all(_imports_opentelemetry(pipeline, each) for each in _SERVICES)

    tables = set()
    for bulk in traces.named("bulk"):
        path = list(reversed(traces.path(bulk)))
        assert [(span.service, span.name) for span in path] == [
            ("data-producer", f"send {pipeline.topic}"),
            ("stream-processing", f"ingest {pipeline.topic}"),
            ("stream-processing", "aggregate"),
            ("stream-processing", f"send {rows}"),
            ("elasticsearch-sink-alert", f"process {rows}"),
            ("elasticsearch-sink-alert", "bulk"),
        ]
        assert path[0].parent == b""
        assert sorted(span.start_ns for span in path) == [span.start_ns for span in path]
        assert all(span.start_ns <= span.end_ns for span in path)
        assert bulk.attributes["sink.outcome"] == "written"
        assert path[3].attributes["messaging.kafka.message.key"] == path[4].attributes["messaging.kafka.message.key"]
        tables.add(bulk.attributes["db.collection.name"])
    assert tables == {table.name for table in TABLES}
    sent = traces.named(f"send {rows}")
    followed = {span.parent for span in sent} | {link for span in sent for link in span.links}
    assert followed == {span.id for span in traces.named("aggregate")}


def test_a_collector_that_is_away_is_logged_once_and_changes_nothing_else(pipeline: Pipeline) -> None:
    port = free_port()
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{port}", "OTEL_TRACES_SAMPLER_ARG": 1}

    def assert_logged(text: str) -> None:
        assert {each.package: pipeline.log(each).count(text) for each in _SERVICES} == {
            each.package: 1 for each in _SERVICES
        }

    with ExitStack() as stack:
        for service in _SERVICES:
            stack.enter_context(pipeline.running(service, PRODUCER_RATE=0.05, **settings))
        eventually(lambda: assert_logged("traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT"))
        eventually(lambda: assert_more_than(len(pipeline.index_tables()["agg_interactions_user"]), 5))
        traces = stack.enter_context(collector(port))
        eventually(lambda: assert_logged("traces are sent again"))
        eventually(lambda: assert_more_than(len(traces.named("bulk")), 0))
        assert_logged("traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT")
    with ExitStack() as stack:
        # The sink and the job were stopped before the producer.
        for service in (STREAM, SINK):
            stack.enter_context(pipeline.running(service, **settings))
        pipeline.assert_everywhere(pipeline.interactions())


def test_a_batch_that_spark_writes_has_one_span_and_is_exact(pipeline: Pipeline) -> None:
    with collector() as traces:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, "OTEL_TRACES_SAMPLER_ARG": 0.01}
        pipeline.run_to_end(PRODUCER, PRODUCER_LIMIT=30_000, PRODUCER_RATE=0, **settings)
        assert 150 < sum(_traced(pipeline.read(pipeline.topic))) < 600
        with pipeline.running(STREAM, **settings):
            eventually(lambda: pipeline.assert_published(pipeline.interactions()))
            eventually(
                lambda: assert_equal(
                    [
                        (span.parent, span.attributes["messaging.batch.message_count"])
                        for span in traces.named(f"ingest {pipeline.topic} by Spark")
                    ],
                    [(b"", 30_000)],
                )
            )
    assert not traces.named(f"ingest {pipeline.topic}")
    assert not any(_traced(pipeline.read(pipeline.settings.aggregated_topic)))
