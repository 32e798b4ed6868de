"""The page's metrics, which Prometheus reads: docs/metrics.md. They are of the latest snapshot of the pipeline."""

import time
from collections.abc import Iterable

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.responses import Response

from observer.reading_history import ReadingHistory
from observer.services import OK

PATH = "/metrics"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PageMetrics(Collector):
    """The figures of the latest snapshot; those that are unknown are absent."""

    def __init__(self, history: ReadingHistory, registry: CollectorRegistry = REGISTRY) -> None:
        self._history = history
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without their values."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        reading = self._history.latest
        age, latency, interactions, dead_letters, healthy = self._families()
        values = (
            (age, max(0.0, time.time() - reading.at) if reading.at else None),
            (latency, reading.latency),
            (interactions, reading.snapshot.sent),
            (dead_letters, reading.snapshot.dead_letters),
        )
        for family, value in values:
            if value is not None:
                family.add_metric([], value)
        for part, state in reading.snapshot.health.items():
            healthy.add_metric([part], float(state == OK))
        return [age, latency, interactions, dead_letters, healthy]

    def _families(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily("page_snapshot_age_seconds", "Age of the snapshot that the page shows"),
            GaugeMetricFamily("page_latency_seconds", "Time from an interaction in Kafka until the indices count it"),
            GaugeMetricFamily("page_kafka_interactions", "End offsets of the topic of interactions"),
            GaugeMetricFamily("page_kafka_dead_letters", "End offsets of the dead letter topic"),
            GaugeMetricFamily("page_part_healthy", "Whether a server or service is healthy", labels=["part"]),
        ]


def response() -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(generate_latest(REGISTRY), media_type=_CONTENT_TYPE)
