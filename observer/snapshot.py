"""Looks at a running pipeline from outside: topics, lake, indices, and the services' own metrics and health."""

import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import requests
from confluent_kafka import Consumer, KafkaException
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException
from prometheus_client.parser import text_string_to_metric_families

from contract.interaction import INTERACTION_TYPES
from contract.tables import AGGREGATE_TABLES, INTERACTIONS, Measure
from observer.http import ask
from runtime.settings import Settings
from runtime.topic_reader import offset_ranges

ALERTS: Final = "alerts"
OK: Final = "ok"
_TIMEOUT: Final = 2.0
_BATCHES: Final = "stream_batches"
"""Batches that the stream job's query of the topic has finished."""

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
    """Offsets of the topic of interactions, but for transactions that are open: the records, and, where producers use
    transactions, also aborted records and a marker per transaction. Nothing but reading the topic tells them apart."""
    unread: int | None = None
    """Offsets that the stream job has not finished; None while it is in the middle of a batch, too."""
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
        is_read = self.sent is not None and (
            # Counts can differ for good: by aborted records, or by dead letters of the sink.
            self.unread == 0 or self.sent == (self.in_the_lake or 0) + (self.dead_letters or 0)
        )
        return is_read and (self.aggregated or 0) == self.in_the_lake and self.sink_lag == 0

    @property
    def is_countable(self) -> bool:
        """Whether the n-th offset is the n-th interaction or dead letter, as far as is known."""
        return self.unread is None or (self.sent or 0) - self.unread <= (self.in_the_lake or 0) + (
            self.dead_letters or 0
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
        # Of committed records: the end of a partition is then where the first open transaction begins.
        self._consumer = Consumer(
            {**settings.kafka_client, "group.id": "observer", "log_level": 0, "isolation.level": "read_committed"}
        )
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
        ends: dict[int, int] = topics.pop("ends", {})
        return Snapshot(
            unread=self._unread(ends, metrics) if topics else None,
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
            ends = self._ends(settings.kafka_topic)
            return {
                "ends": ends,
                "sent": sum(ends.values()),
                "published": sum(self._ends(settings.aggregated_topic).values()),
                "dead_letters": sum(self._ends(settings.dead_letter_topic).values()),
            }
        except KafkaException:
            return {}

    def _ends(self, topic: str) -> dict[int, int]:
        """The next offset of each partition; none where there is no topic yet."""
        return {partition: end for partition, (_, end) in offset_ranges(self._consumer, topic, _TIMEOUT).items()}

    def _unread(self, ends: Mapping[int, int], metrics: Mapping[str, float]) -> int | None:
        """Offsets before `ends` that the stream job has not finished, by what its last append says of itself."""
        try:
            table = DeltaTable(f"{self._warehouse.rstrip('/')}/{INTERACTIONS}", without_files=True)
            (commit,) = table.history(1)
            appended = json.loads(commit["userMetadata"])
            read = appended["offsets"][self._settings.kafka_topic]
            is_finished = metrics.get(_BATCHES, 0) > appended["batch"]
            left = sum(max(0, end - int(read.get(str(partition), 0))) for partition, end in ends.items())
        except (DeltaError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return left if is_finished else None

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
            counts = {index: client.count(index=index, **everywhere) for index in indices}
            if any(count["_shards"]["failed"] for count in counts.values()):
                return {}
            documents = {index: int(count["count"]) for index, count in counts.items()}
            everywhere |= {"allow_partial_search_results": False}
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


def _ask(url: str) -> tuple[str, dict[str, float]]:
    """A service's health, and its metrics: those without labels, and the batches of the query that reads the topic."""
    try:
        answer = ask("GET", f"{url}/health", timeout=_TIMEOUT).json()
        if "error" in answer:
            return str(answer["error"]), {}
        parts = answer["parts"]
        state = "; ".join(f"{part}: {state}" for part, state in parts.items() if state != OK) or OK
    except requests.RequestException:
        return "does not answer", {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return "something else answers at its address", {}
    try:
        text = ask("GET", f"{url}/metrics", timeout=_TIMEOUT).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (requests.RequestException, ValueError):
        return "does not tell its metrics", {}
    metrics = {sample.name: sample.value for sample in samples if not sample.labels}
    metrics |= {sample.name: sample.value for sample in samples if sample.labels == {"query": "ingest"}}
    return state, metrics


def _whole(value: float | None) -> int | None:
    return None if value is None or math.isnan(value) else int(value)
