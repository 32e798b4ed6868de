"""Health and metrics of a service, read over HTTP."""

from typing import Final

import requests
from prometheus_client.parser import text_string_to_metric_families

from contract import metric_names
from observer import http

OK: Final = "ok"
_TIMEOUT: Final = 2.0


def read_service(url: str) -> tuple[str, dict[str, float]]:
    """Return the health of a service, `OK` or the reason, and its metrics by name.

    The metrics are those without labels, those of the stream job's query `ingest`, and those with another label as
    name/label: `stream_state_rows/agg_interactions_user`. Of histograms they are sum and count.
    """
    try:
        response = http.request("GET", f"{url}/health", timeout=_TIMEOUT).json()
        if "error" in response:
            return str(response["error"]), {}
        parts = response["parts"]
        health = "; ".join(f"{part}: {state}" for part, state in parts.items() if state != OK) or OK
    except requests.RequestException:
        return "does not answer", {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return "another program answers at its address", {}
    try:
        text = http.request("GET", f"{url}/metrics", timeout=_TIMEOUT).text
        # Most lines are those of histograms, and this is read every second.
        text = "".join(line for line in text.splitlines(keepends=True) if "_bucket{" not in line)
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (requests.RequestException, ValueError):
        return "its metrics cannot be read", {}
    metrics = {"/".join((sample.name, *sample.labels.values())): sample.value for sample in samples}
    metrics |= {sample.name: sample.value for sample in samples if sample.labels == {"query": metric_names.INGEST}}
    return health, metrics
