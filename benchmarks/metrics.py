"""Reads the metrics of a running service."""

import time
import urllib.request

from mirakuru import HTTPExecutor
from prometheus_client.parser import text_string_to_metric_families


def metric(service: HTTPExecutor, name: str, query: str = "aggregate") -> float:
    """Return a metric's value, of the given `query` if it has one per query; NaN if it is unknown."""
    found = (value for labels, value in _samples(service, name) if labels.get("query", query) == query)
    return next(found, float("nan"))


def by_label(service: HTTPExecutor, name: str, label: str) -> dict[str, float]:
    """Return a metric's values by the value of a label."""
    return {labels[label]: value for labels, value in _samples(service, name)}


def _samples(service: HTTPExecutor, name: str) -> list[tuple[dict[str, str], float]]:
    with urllib.request.urlopen(service.url.geturl().replace("/health", "/metrics"), timeout=10) as response:
        families = text_string_to_metric_families(response.read().decode())
    return [(s.labels, float(s.value)) for family in families for s in family.samples if s.name == name]


def wait_for(service: HTTPExecutor, name: str, least: float) -> tuple[float, float]:
    """Wait until a metric is at least `least`; return when (monotonic seconds) and the value. Raises TimeoutError."""
    end = time.monotonic() + 900
    # Not "less than": an unknown metric is NaN.
    while not (value := metric(service, name)) >= least:
        if time.monotonic() > end:
            raise TimeoutError(f"{name} is {value:,.0f} and did not reach {least:,.0f} in 15 minutes")
        time.sleep(0.25)
    return time.monotonic(), value
