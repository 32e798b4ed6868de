"""Snapshots of a running pipeline: topics, lake, indices, and the services' health and metrics."""

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException

from contract import metric_names
from contract.alerts import ALERTS, FIRED_AT, FIRING, STATUS
from contract.declared import EVENT, PIPELINE, TABLES
from observer.lake_cuts import Cut, read_cuts
from observer.malformed_records import MalformedRecords
from observer.services import OK, read_service
from runtime.settings import Settings
from runtime.topic_reader import offset_ranges

_TIMEOUT: Final = 2.0
_LATEST_ALERTS: Final = 8
_ALL: Final = "all"
_SINK: Final = "elasticsearch_sink_alert"
"""The name of the total among the aggregations."""


@dataclass(frozen=True)
class Snapshot:
    """State of the pipeline at one moment. None: unknown, because the server or service does not answer."""

    sent: int | None = None
    """End offsets of the interactions topic, up to the first open transaction: the records and, where producers use
    transactions, aborted records and a marker per transaction. Only reading the topic could separate these."""
    ends: Mapping[int, int] | None = None
    """The same by partition."""
    cuts: tuple[Cut, ...] = ()
    """The latest versions of the lake, the latest last, read after everything else; none if it cannot be read."""
    unread: int | None = None
    """Offsets that the stream job has not finished; None also in the middle of a batch."""
    in_the_lake: int | None = None
    aggregated: int | None = None
    published: int | None = None
    sink_lag: int | None = None
    """Records that the sink knows of and has not indexed."""
    uncommitted: int | None = None
    """Offsets of the aggregated topic that the sink has not committed, which it does after indexing."""
    dead_letters: int | None = None
    documents: Mapping[str, int] = field(default_factory=dict)
    """Number of documents per index."""
    indexed: int | None = None
    """Events counted by the documents of the overview's table."""
    indexed_after: float = 0.0
    """Seconds from the reading of `sent` to that of `indexed`; negative if that was read first."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """The same per value of the overview's choice."""
    mean: float | None = None
    """The overview's mean."""
    firing: int | None = None
    alerts: tuple[Mapping[str, Any], ...] = ()
    """The latest first."""
    health: Mapping[str, str] = field(default_factory=dict)
    """Per service and server: `OK`, or the reason why not."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Per service that answers: the metrics by name."""

    @property
    def malformed(self) -> int | None:
        """Malformed records that ingest has read by the latest cut; None: unknown."""
        return self.cuts[-1].malformed if self.cuts else None

    @property
    def committed(self) -> int | None:
        """Number of published rows that the sink has committed, which it does after indexing."""
        return None if self.published is None or self.uncommitted is None else self.published - self.uncommitted

    @property
    def waiting_rows(self) -> int | None:
        """Published rows that wait for the sink: those that it knows of, or those that it has not committed.

        A sink that has a problem, such as no partitions yet, does not know them all.
        """
        return self.sink_lag if self.health.get(_SINK, OK) == OK and self.sink_lag is not None else self.uncommitted

    @property
    def is_drained(self) -> bool:
        """Whether everything sent has reached the end of the pipeline."""
        is_read = self.sent is not None and (
            # The counts stay different after aborted records or dead letters of the sink.
            self.unread == 0 or self.sent == (self.in_the_lake or 0) + (self.dead_letters or 0)
        )
        is_indexed = self.sink_lag == 0 and self.uncommitted == 0
        return is_read and (self.aggregated or 0) == self.in_the_lake and is_indexed

    @property
    def offsets_match_records(self) -> bool:
        """Whether, as far as known, the n-th offset is the n-th interaction or dead letter."""
        if self.unread is None:
            return True
        return (self.sent or 0) - self.unread <= (self.in_the_lake or 0) + (self.dead_letters or 0)


class Observer:
    """Takes snapshots; leaves out what does not answer within seconds."""

    def __init__(
        self,
        settings: Settings,
        elasticsearch: Elasticsearch,
        warehouse: str,
        services: Mapping[str, str],
        group_id: str,
    ) -> None:
        """Create an observer of `services`: the URLs below which each has /health and /metrics.

        `group_id` is the consumer group of the sink.
        """
        self._settings = settings
        self._warehouse = warehouse
        self._services = dict(services)
        self._malformed = MalformedRecords(settings.kafka_client, settings.kafka_topic, settings.dead_letter_topic)
        # With read_committed, a partition ends where its first open transaction begins.
        self._consumer = Consumer(
            {**settings.kafka_client, "group.id": "observer", "log_level": 0, "isolation.level": "read_committed"}
        )
        # Never subscribed, so it is no member of the group.
        self._sink_group = Consumer({**settings.kafka_client, "group.id": group_id, "log_level": 0})
        self._elasticsearch = elasticsearch
        # A thread for each service, Kafka and Elasticsearch: none waits for another that does not answer.
        self._pool = ThreadPoolExecutor(len(self._services) + 2, thread_name_prefix="observer")

    def close(self) -> None:
        """Close all connections."""
        self._pool.shutdown()
        self._consumer.close()
        self._sink_group.close()
        self._elasticsearch.close()

    def snapshot(self) -> Snapshot:
        """Take a snapshot now."""
        pending = {name: self._pool.submit(read_service, url) for name, url in self._services.items()}
        pending_topics, pending_indices = self._pool.submit(self._read_topics), self._pool.submit(self._read_indices)
        service_states = {name: future.result() for name, future in pending.items()}
        metrics = {name: value for _, of_service in service_states.values() for name, value in of_service.items()}
        in_the_lake = self._interactions_in_the_lake(metrics)
        (topics, sent_at), (indices, indexed_at) = pending_topics.result(), pending_indices.result()
        cuts = self._read_cuts()
        return Snapshot(
            cuts=self._with_malformed(cuts) if topics else tuple(cuts),
            unread=_unread(cuts, topics["ends"], metrics) if topics else None,
            in_the_lake=in_the_lake,
            aggregated=_whole(metrics.get(metric_names.AGGREGATED_INTERACTIONS)),
            sink_lag=_whole(metrics.get(metric_names.SINK_LAG_RECORDS)),
            health={
                "Kafka": OK if topics else "does not answer",
                "Elasticsearch": OK if indices else "does not answer",
                **{name: health for name, (health, _) in service_states.items()},
            },
            metrics={name: of_service for name, (_, of_service) in service_states.items() if of_service},
            indexed_after=indexed_at - sent_at,
            **topics,
            **indices,
        )

    def lake_rows(self, table: str) -> int | None:
        """Count the rows of a Delta table, with a reader of its own; None if it cannot be read."""
        try:
            return int(self._table(table).count())
        except DeltaError:
            return None

    def _table(self, name: str) -> DeltaTable:
        return DeltaTable(f"{self._warehouse.rstrip('/')}/{name}")

    def _read_cuts(self) -> list[Cut]:
        try:
            return read_cuts(self._table(EVENT.name), self._settings.kafka_topic)
        except DeltaError:
            return []

    def _with_malformed(self, cuts: list[Cut]) -> tuple[Cut, ...]:
        """Add the number of malformed records to cuts that were read before."""
        try:
            letters = offset_ranges(self._consumer, self._settings.dead_letter_topic, _TIMEOUT)
            if not self._malformed.read(letters, _TIMEOUT):
                return tuple(cuts)
        except KafkaException:
            return tuple(cuts)
        return tuple(replace(cut, malformed=self._malformed.before(cut.offsets)) for cut in cuts)

    def _interactions_in_the_lake(self, metrics: Mapping[str, float]) -> int | None:
        in_the_lake = _whole(metrics.get(metric_names.LAKE_INTERACTIONS))
        if in_the_lake is None:
            return self.lake_rows(EVENT.name)
        # The job adds an append to this metric after the aggregation has taken it over, when it may already be counted.
        return max(in_the_lake, _whole(metrics.get(metric_names.AGGREGATED_INTERACTIONS)) or 0)

    def _read_topics(self) -> tuple[dict[str, Any], float]:
        """Return the snapshot's fields about topics, empty without Kafka, and when the topic of events was read."""
        settings, read_at = self._settings, time.monotonic()
        try:
            ends = self._end_offsets(settings.kafka_topic)
            read_at = time.monotonic()
            rows = offset_ranges(self._consumer, settings.aggregated_topic, _TIMEOUT)
            topics = {
                "ends": ends,
                "sent": sum(ends.values()),
                "published": sum(end for _, end in rows.values()),
                "uncommitted": self._uncommitted(rows),
                "dead_letters": sum(self._end_offsets(settings.dead_letter_topic).values()),
            }
            return topics, read_at
        except KafkaException:
            return {}, read_at

    def _end_offsets(self, topic: str) -> dict[int, int]:
        return {partition: end for partition, (_, end) in offset_ranges(self._consumer, topic, _TIMEOUT).items()}

    def _uncommitted(self, rows: Mapping[int, tuple[int, int]]) -> int:
        partitions = [TopicPartition(self._settings.aggregated_topic, partition) for partition in rows]
        committed = self._sink_group.committed(partitions, timeout=_TIMEOUT) if partitions else []
        # Without a committed offset, it is negative.
        return sum(max(0, rows[p.partition][1] - max(p.offset, rows[p.partition][0])) for p in committed)

    def _read_indices(self) -> tuple[dict[str, Any], float]:
        """Return the snapshot's fields about indices, and when the events that they count were read.

        The fields are empty if Elasticsearch or any shard does not answer.
        """
        read_at = time.monotonic()
        try:
            documents = self._count_documents()
            if documents is None:
                return {}, read_at
            totals = self._read_totals()
            read_at = time.monotonic()
            return {"documents": documents, **totals, "mean": self._read_mean(), **self._read_alerts()}, read_at
        except ElasticsearchException:
            return {}, read_at

    def _count_documents(self) -> dict[str, int] | None:
        """Count the documents per index; None if a shard does not answer."""
        indices = [*(table.name for table in TABLES), ALERTS]
        self._elasticsearch.indices.refresh(index=indices, ignore_unavailable=True)
        counts = {index: self._elasticsearch.count(index=index, ignore_unavailable=True) for index in indices}
        if any(count["_shards"]["failed"] for count in counts.values()):
            return None
        return {index: int(count["count"]) for index, count in counts.items()}

    def _read_totals(self) -> dict[str, Any]:
        overview = PIPELINE.overview
        values = overview.by.choices if overview.by else ()
        columns = {f"by {value}": overview.column_of(value) for value in values} | {_ALL: overview.total.name}
        sums = {name: {"sum": {"field": column}} for name, column in columns.items()}
        response = self._search(overview.total.table.name, size=0, aggs=sums)
        found = {name: _whole(each["value"]) or 0 for name, each in response.get("aggregations", {}).items()}
        return {
            "indexed": found.get(_ALL, 0),
            "totals": {value: found.get(f"by {value}", 0) for value in values},
        }

    def _read_mean(self) -> float | None:
        reference = PIPELINE.overview.mean
        if reference is None:
            return None
        rows = self._search(reference.table.name, size=1)["hits"]["hits"]
        return rows[0]["_source"][reference.name] if rows else None

    def _read_alerts(self) -> dict[str, Any]:
        latest_first = [{FIRED_AT: {"order": "desc", "unmapped_type": "date"}}]
        firing = {"firing": {"filter": {"term": {STATUS: FIRING}}}}
        response = self._search(ALERTS, size=_LATEST_ALERTS, sort=latest_first, aggs=firing)
        return {
            "firing": response.get("aggregations", {}).get("firing", {}).get("doc_count", 0),
            "alerts": tuple(hit["_source"] for hit in response["hits"]["hits"]),
        }

    def _search(self, index: str, **query: Any) -> dict[str, Any]:
        response: dict[str, Any] = self._elasticsearch.search(
            index=index, ignore_unavailable=True, allow_partial_search_results=False, **query
        )
        return response


def _unread(cuts: Sequence[Cut], ends: Mapping[int, int], metrics: Mapping[str, float]) -> int | None:
    """Count the offsets before `ends` that the stream job has not finished, by its last append."""
    if not cuts or not metrics.get(metric_names.FINISHED_BATCH, -1) >= cuts[-1].batch >= 0:
        return None
    return sum(max(0, end - cuts[-1].offsets.get(partition, 0)) for partition, end in ends.items())


def _whole(value: float | None) -> int | None:
    return None if value is None or math.isnan(value) else int(value)
