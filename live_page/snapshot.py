"""Looks at a running pipeline from outside: topics, lake, indices, and the services' own metrics and health."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import requests
from confluent_kafka import Consumer, KafkaException, TopicPartition
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException
from prometheus_client.parser import text_string_to_metric_families

from contract.interaction import INTERACTION_TYPES
from contract.settings import Settings
from contract.tables import AGGREGATE_TABLES, INTERACTIONS, Measure

ALERTS: Final = "alerts"
OK: Final = "ok"
_TIMEOUT: Final = 2.0

_MEASURE_OF_TYPE: Final = {
    "click": Measure.CLICKS,
    "like": Measure.LIKES,
    "view": Measure.VIEWS,
    "purchase": Measure.PURCHASES,
}


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
    indexed: int | None = None
    """Interactions that the documents of the users add up to."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """The same per type of interaction."""
    users_average: float | None = None
    firing: int | None = None
    alerts: tuple[Mapping[str, Any], ...] = ()
    """The latest first."""
    health: Mapping[str, str] = field(default_factory=dict)
    """Per service and server: `OK`, or what is wrong."""

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

    def __init__(
        self, settings: Settings, elasticsearch: Elasticsearch, warehouse: str, services: Mapping[str, str]
    ) -> None:
        """`services` are the URLs of those that have /health and /metrics."""
        self._settings = settings
        self._warehouse = warehouse
        self._services = dict(services)
        self._consumer = Consumer({**settings.kafka_client, "group.id": "observer", "log_level": 0})
        self._elasticsearch = elasticsearch
        # One for each that is asked: none waits for another that is away.
        self._pool = ThreadPoolExecutor(len(self._services) + 2, thread_name_prefix="observer")

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.shutdown()
        self._consumer.close()
        self._elasticsearch.close()

    def look(self) -> Snapshot:
        """A snapshot of now."""
        asked = {name: self._pool.submit(_ask, url) for name, url in self._services.items()}
        in_kafka, in_elasticsearch = self._pool.submit(self._topics), self._pool.submit(self._indices)
        answers = {name: answer.result() for name, answer in asked.items()}
        metrics = {name: value for _, its_metrics in answers.values() for name, value in its_metrics.items()}
        in_the_lake = _whole(metrics.get("stream_lake_interactions"))
        aggregated = _whole(metrics.get("stream_aggregated_interactions"))
        if in_the_lake is None:
            in_the_lake = self.lake_rows(INTERACTIONS)
        elif aggregated is not None:
            # The job counts a batch once Delta has tidied up after it; it may be aggregated by then.
            in_the_lake = max(in_the_lake, aggregated)
        topics, indices = in_kafka.result(), in_elasticsearch.result()
        return Snapshot(
            in_the_lake=in_the_lake,
            aggregated=aggregated,
            sink_lag=_whole(metrics.get("sink_lag_records")),
            health={
                "Kafka": OK if topics else "does not answer",
                "Elasticsearch": OK if indices else "does not answer",
                **{name: health for name, (health, _) in answers.items()},
            },
            **topics,
            **indices,
        )

    def lake_rows(self, table: str) -> int | None:
        """The number of rows of a Delta table, by a reader of its own."""
        try:
            return int(DeltaTable(f"{self._warehouse.rstrip('/')}/{table}").count())
        except DeltaError:
            return None

    def _topics(self) -> dict[str, Any]:
        settings = self._settings
        try:
            return {
                "sent": self._end_of(settings.kafka_topic),
                "published": self._end_of(settings.aggregated_topic),
                "dead_letters": self._end_of(settings.dead_letter_topic),
            }
        except KafkaException:
            return {}

    def _end_of(self, topic: str) -> int:
        """Records ever written to the topic; 0 where there is none yet."""
        return sum(end for _, end in spans(self._consumer, topic, _TIMEOUT).values())

    def _indices(self) -> dict[str, Any]:
        (users,) = (table for table in AGGREGATE_TABLES if table.key == "user_id")
        column_of = {measure: name for name, measure in users.measures.items()}
        (overall,) = (table for table in AGGREGATE_TABLES if table.key is None)
        total = {"sum": {"field": column_of[Measure.INTERACTIONS]}}
        of_types: dict[str, Any] = {
            kind: {"sum": {"field": column_of[_MEASURE_OF_TYPE[kind]]}} for kind in INTERACTION_TYPES
        }
        indices = [*(table.name for table in AGGREGATE_TABLES), ALERTS]
        everywhere: dict[str, Any] = {"ignore_unavailable": True}
        client = self._elasticsearch
        latest_first: Any = [{"fired_at": {"order": "desc", "unmapped_type": "date"}}]
        firing = {"firing": {"filter": {"term": {"status": "firing"}}}}
        try:
            client.indices.refresh(index=indices, **everywhere)
            documents = {index: int(client.count(index=index, **everywhere)["count"]) for index in indices}
            sums = client.search(index=users.name, size=0, aggs={"all": total, **of_types}, **everywhere)
            alerts = client.search(index=ALERTS, size=8, sort=latest_first, aggs=firing, **everywhere)
            average = client.search(index=overall.name, size=1, **everywhere)["hits"]["hits"]
        except ElasticsearchException:
            return {}
        found = {name: _whole(each["value"]) or 0 for name, each in sums.get("aggregations", {}).items()}
        return {
            "documents": documents,
            "indexed": found.pop("all", 0),
            "totals": found,
            "users_average": average[0]["_source"]["avg_interactions"] if average else None,
            "firing": alerts.get("aggregations", {}).get("firing", {}).get("doc_count", 0),
            "alerts": tuple(hit["_source"] for hit in alerts["hits"]["hits"]),
        }


def spans(consumer: Consumer, topic: str, timeout: float) -> dict[int, tuple[int, int]]:
    """The first offset of each partition and the one that its next record gets; raises KafkaException."""
    partitions = consumer.list_topics(topic, timeout=timeout).topics[topic].partitions
    return {n: consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=timeout) or (0, 0) for n in partitions}


def _ask(url: str) -> tuple[str, dict[str, float]]:
    """A service's health, and its metrics that have no labels."""
    try:
        parts = requests.get(f"{url}/health", timeout=_TIMEOUT).json()["parts"]
        text = requests.get(f"{url}/metrics", timeout=_TIMEOUT).text
    except (requests.RequestException, KeyError):
        return "does not answer", {}
    metrics = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }
    return "; ".join(f"{part}: {state}" for part, state in parts.items() if state != OK) or OK, metrics


def _whole(value: float | None) -> int | None:
    return None if value is None or math.isnan(value) else int(value)
