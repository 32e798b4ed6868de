"""Reads the metrics of a running service."""

import urllib.request

from mirakuru import HTTPExecutor
from prometheus_client.parser import text_string_to_metric_families


def metric(service: HTTPExecutor, name: str, query: str = "aggregate") -> float:
    """A metric's value; that of the named query where there is one per query."""
    with urllib.request.urlopen(service.url.geturl().replace("/health", "/metrics"), timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [s for family in families for s in family.samples if s.name == name]
    return float(next((s.value for s in samples if s.labels.get("query", query) == query), float("nan")))
