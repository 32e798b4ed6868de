"""Reads the metrics of a running service."""

import time
import urllib.request

from mirakuru import HTTPExecutor
from prometheus_client.parser import text_string_to_metric_families


def metric(service: HTTPExecutor, name: str, query: str = "aggregate") -> float:
    """A metric's value; that of the named query where there is one per query."""
    with urllib.request.urlopen(service.url.geturl().replace("/health", "/metrics"), timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [s for family in families for s in family.samples if s.name == name]
    return float(next((s.value for s in samples if s.labels.get("query", query) == query), float("nan")))


def wait_for(service: HTTPExecutor, name: str, least: float) -> tuple[float, float]:
    """Until a metric has at least this value: when (monotonic seconds) and what was seen; raises TimeoutError."""
    end = time.monotonic() + 900
    # Not "less than": a metric that is not known yet is NaN.
    while not (seen := metric(service, name)) >= least:
        if time.monotonic() > end:
            raise TimeoutError(f"{name} is {seen:,.0f} and did not reach {least:,.0f} in 15 minutes")
        time.sleep(0.25)
    return time.monotonic(), seen
