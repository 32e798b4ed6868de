"""Looks at a running pipeline from outside: topics, lake, indices, and the services' own metrics."""

import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import TableNotFoundError
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException
from prometheus_client.parser import text_string_to_metric_families

from contract.settings import Settings
from contract.tables import AGGREGATE_TABLES, INTERACTIONS
from local_stack.servers import HOST

ALERTS = "alerts"
_TIMEOUT = 2.0


@dataclass(frozen=True)
class Snapshot:
    """Where everything is at one moment. None: not known, for who would say so does not answer."""

    sent: int | None = None
    in_the_lake: int | None = None
    aggregated: int | None = None
    published: int | None = None
    sink_lag: int | None = None
    dead_letters: int | None = None
    documents: Mapping[str, int] = field(default_factory=dict)
    """Per index."""
    firing: int | None = None
    alerts: tuple[Mapping[str, Any], ...] = ()
    """The latest first."""

    @property
    def is_drained(self) -> bool:
        """Whether all that was sent has gone all the way."""
        return (
            self.sent is not None
            and self.sent == (self.in_the_lake or 0) + (self.dead_letters or 0)
            and (self.aggregated or 0) == self.in_the_lake
            and self.sink_lag == 0
        )


class Observer:
    """Takes snapshots; what does not answer within seconds is left out of one."""

    def __init__(self, settings: Settings, es_host: str, warehouse: Path, metrics_ports: Iterable[int]) -> None:
        self._settings = settings
        self._warehouse = warehouse
        self._metrics_ports = tuple(metrics_ports)
        self._consumer = Consumer({**settings.kafka_client, "group.id": "local-stack-observer", "log_level": 0})
        self._elasticsearch = Elasticsearch([es_host], timeout=_TIMEOUT, max_retries=0)

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()
        self._elasticsearch.close()

    def look(self) -> Snapshot:
        """A snapshot of now."""
        metrics = {name: value for port in self._metrics_ports for name, value in _metrics(port).items()}
        in_the_lake = _whole(metrics.get("stream_lake_interactions"))
        aggregated = _whole(metrics.get("stream_aggregated_interactions"))
        if in_the_lake is None:
            in_the_lake = self.lake_rows(INTERACTIONS)
        elif aggregated is not None:
            # The job counts a batch once Delta has tidied up after it; it may be aggregated by then.
            in_the_lake = max(in_the_lake, aggregated)
        return Snapshot(
            sent=self._end_of(self._settings.kafka_topic),
            in_the_lake=in_the_lake,
            aggregated=aggregated,
            published=self._end_of(self._settings.aggregated_topic),
            sink_lag=_whole(metrics.get("sink_lag_records")),
            dead_letters=self._end_of(self._settings.dead_letter_topic),
            **self._indices(),
        )

    def lake_rows(self, table: str) -> int | None:
        """The number of rows of a Delta table, by a reader of its own."""
        try:
            delta = DeltaTable(self._warehouse / table)
        except TableNotFoundError:
            return None
        counted = QueryBuilder().register("t", delta).execute("SELECT count(*) AS n FROM t").read_all()
        return int(counted["n"].to_pylist()[0])

    def _end_of(self, topic: str) -> int | None:
        """Records ever written to the topic."""
        try:
            partitions = self._consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions
            ends = [
                self._consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=_TIMEOUT) for p in partitions
            ]
        except KafkaException:
            return None
        return sum(end[1] for end in ends if end)

    def _indices(self) -> dict[str, Any]:
        try:
            self._elasticsearch.indices.refresh(index="*")
            indices = [*(table.name for table in AGGREGATE_TABLES), ALERTS]
            documents = {index: self._elasticsearch.count(index=index)["count"] for index in indices}
            latest_first: Any = [{"fired_at": "desc"}]
            firing = {"firing": {"filter": {"term": {"status": "firing"}}}}
            found = self._elasticsearch.search(index=ALERTS, size=8, sort=latest_first, aggs=firing)
        except ElasticsearchException:
            return {}
        return {
            "documents": documents,
            "firing": found["aggregations"]["firing"]["doc_count"],
            "alerts": tuple(hit["_source"] for hit in found["hits"]["hits"]),
        }


def _metrics(port: int) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=_TIMEOUT) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return {}
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


def _whole(value: float | None) -> int | None:
    return None if value is None or math.isnan(value) else int(value)
