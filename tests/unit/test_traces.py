"""Which interactions start a trace, what their records have, and which headers continue one."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import polars as pl
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from data_producer import publisher as publisher_module
from data_producer.events import record_of
from data_producer.generator import EventGenerator
from data_producer.publisher import KAFKA, Publisher
from data_producer.tracing import SendTraces
from opentelemetry import trace
from pyspark.sql import Row
from stream_processing.counts import Counts
from stream_processing.event_reader import frame, read
from stream_processing.kafka_io import RowProducer
from stream_processing.lake import Lake
from stream_processing.measures import KEYS
from stream_processing.row_publisher import RowPublisher
from stream_processing.settings import StreamProcessingSettings
from stream_processing.tracing import JobTraces, _changes

from contract.topics import TRACEPARENT
from runtime.health import Health
from runtime.tracing import context_in

_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class _Client:
    """Takes records like the Kafka client, in one list; refuses those with a header if they are `too_large`."""

    def __init__(self, *, too_large: bool = False) -> None:
        self.sent: list[tuple[bytes, Mapping[str, str] | None]] = []
        self._too_large = too_large
        self._is_full = True

    def produce_batch(self, _topic: str, records: list[dict[str, Any]]) -> None:
        self.sent += [(record["value"], None) for record in records]

    def produce(self, _topic: str, **record: Any) -> None:
        if self._is_full:
            self._is_full = False
            raise BufferError
        if self._too_large:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self.sent.append((record["value"], record["headers"]))

    def poll(self, _seconds: float) -> None:
        pass

    def __len__(self) -> int:
        return 0


class _EveryThird:
    def sampled(self, size: int) -> Iterator[int]:
        return iter(range(0, size, 3))

    @contextmanager
    def sending(self, record: Mapping[str, Any]) -> Iterator[dict[str, str]]:
        yield {TRACEPARENT: record["key"].decode()}


def _published(client: _Client, number: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Publisher, list[bytes]]:
    monkeypatch.setattr(publisher_module, "Producer", lambda *_, **__: cast(Producer, client))
    publisher = Publisher({}, "topic", Health(KAFKA), 1_000_000, cast(SendTraces, _EveryThird()))
    events = EventGenerator(5, 5, seed=1).batch(number, 1736404972)
    publisher.publish(events)
    return publisher, [record_of(event)["value"] for event in events]


@pytest.mark.parametrize("number", [0, 1, 3, 10])
def test_sampled_records_are_sent_among_the_others_in_their_order(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client = _Client()
    publisher, values = _published(client, number, monkeypatch)
    assert [value for value, _ in client.sent] == values
    assert [headers is not None for _, headers in client.sent] == [n % 3 == 0 for n in range(number)]
    assert (publisher.accepted, publisher.refused) == (number, 0)


def test_a_record_that_is_too_large_with_its_header_is_sent_without(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _Client(too_large=True)
    publisher, values = _published(client, 5, monkeypatch)
    assert client.sent == [(value, None) for value in values]
    assert (publisher.accepted, publisher.refused) == (5, 0)


@pytest.mark.parametrize(
    "header",
    [None, "", "00", "\x00", "é" * 55, _PARENT[:-1], f"{_PARENT}-more", _PARENT.replace("-01", "-00"),
     "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff" + _PARENT[2:], _PARENT.upper().replace("AF", "ZZ")],
)  # fmt: skip
def test_a_header_that_is_invalid_or_not_sampled_continues_no_trace(header: str | None) -> None:
    assert context_in(header) is None


def test_a_sampled_header_continues_its_trace() -> None:
    context = context_in(_PARENT)
    assert context is not None
    span = trace.get_current_span(context).get_span_context()
    assert (f"{span.trace_id:032x}", f"{span.span_id:016x}") == (_PARENT[3:35], _PARENT[36:52])


class _Topic:
    def __init__(self) -> None:
        self.values: dict[str, str | None] = {}
        self.headers: dict[str, str] = {}

    def send(self, records: Any, headers: Mapping[str, str] | None = None) -> None:
        for key, value in records:
            assert key not in self.values
            self.values[key] = value
            if headers is not None:
                self.headers[key] = headers[TRACEPARENT]


def test_the_rows_that_continue_a_trace_are_exactly_those_that_its_interactions_change() -> None:
    values = [record_of(event)["value"] for event in EventGenerator(20, 30, seed=3).batch(200, 1736404972)]
    events: pl.DataFrame = frame(read(values)[0])
    counts = Counts(Lake("unused"))
    counts.add(0, events.lazy())
    topic = _Topic()
    publisher = RowPublisher(cast(RowProducer, topic))
    changed = counts.take_unpublished()
    for key in KEYS:
        publisher.publish(key, changed[key], counts.clock)
    changes = _changes(events)
    assert changes.keys() == topic.values.keys()
    assert changes["avg_interactions"] == list(range(200))


def test_rows_with_a_trace_are_the_same_records_as_without() -> None:
    values = [record_of(event)["value"] for event in EventGenerator(4, 4, seed=3).batch(50, 1736404972)]
    counts = Counts(Lake("unused"))
    counts.add(0, frame(read(values)[0]).lazy())
    changed = counts.take_unpublished()
    plain, traced = _Topic(), _Topic()
    contexts = {"agg_interactions_user-user_1": "a", "avg_interactions": "b", "of another publication": "c"}
    for topic, of_topic in ((plain, None), (traced, contexts)):
        for key in KEYS:
            RowPublisher(cast(RowProducer, topic)).publish(key, changed[key], counts.clock, of_topic)
    assert traced.values == plain.values
    assert not plain.headers
    assert traced.headers == {"agg_interactions_user-user_1": "a", "avg_interactions": "b"}


def test_of_a_batch_in_which_every_record_claims_to_be_sampled_a_hundred_are_traced_and_malformed_ones_not() -> None:
    values = [record_of(event)["value"] for event in EventGenerator(4, 4, seed=3).batch(150, 1736404972)]
    values[7] = b"not JSON"
    record = Row("value", "partition", "offset", TRACEPARENT)
    traces = JobTraces(StreamProcessingSettings(), "http://127.0.0.1:1")
    try:
        traced = traces.ingested([record(value, 0, n, _PARENT) for n, value in enumerate(values)], 1)
    finally:
        traces.close()
    assert traced is not None
    assert (len(traced.events), len(traced.contexts)) == (99, 99)
    assert traced.events.rows() == frame(read(values[:100])[0]).rows()


@pytest.mark.parametrize("package", ["data_producer", "stream_processing", "elasticsearch_sink_alert"])
def test_a_service_does_not_import_opentelemetry_by_itself(package: str) -> None:
    code = f"import sys, {package}.__main__\nsys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)
