"""The metrics: documentation, rules and dashboard name what the services expose, by Prometheus' conventions."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import data_producer.metrics
import elasticsearch_sink_alert.metrics
import orjson
import pytest
import stream_processing.metrics
from elasticsearch_sink_alert import latency
from elasticsearch_sink_alert.indexing.bulk import WRITTEN, Outcome
from elasticsearch_sink_alert.kafka.rows import Record, latest_rows
from elasticsearch_sink_alert.kafka.versions import VersionClock
from elasticsearch_sink_alert.sink import Sink
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from ruamel.yaml import YAML

from contract import dead_letters
from live_page.metrics import PageMetrics
from local_stack.services import PAGE, PRODUCER, ROOT, SINK, STREAM, Service
from observer.reading_history import ReadingHistory
from runtime.metrics import CountedHistogram, Measurement

_OBSERVABILITY = ROOT / "observability"
_OWN = r"\b(?:producer|stream|sink|page)_[a-z0-9_]+"
_SAMPLES = r"_(?:bucket|sum|count)$"
_SECTIONS = {
    "Producer": "producer_",
    "Stream job": "stream_",
    "Sink": "sink_",
    "Live page": "page_",
}


def _described(collector: Any) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for metric in collector.describe():
        labels = tuple(getattr(collector, "_labelnames", getattr(metric, "_labelnames", ())))
        yield metric.name + ("_total" if metric.type == "counter" else ""), metric.type, labels


def _exposed() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of each metric that a service registers."""
    modules = (data_producer.metrics, stream_processing.metrics, elasticsearch_sink_alert.metrics)
    collectors = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, MetricWrapperBase | Measurement | CountedHistogram)
    ]
    page = PageMetrics(ReadingHistory(), CollectorRegistry())
    return {name: (kind, labels) for each in (*collectors, page) for name, kind, labels in _described(each)}


def _documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|(.*?)\| .+ \|$", (ROOT / "docs/metrics.md").read_text(), re.M)
    return {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def _rules() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load(_OBSERVABILITY / "rules.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _dashboard_queries() -> list[str]:
    dashboard = json.loads((_OBSERVABILITY / "grafana/dashboards/pipeline.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_the_documentation_has_each_metric_of_the_services_with_its_type_and_labels() -> None:
    assert _documented() == _exposed()


def test_each_section_of_the_documentation_has_the_metrics_of_its_service() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    for section, prefix in _SECTIONS.items():
        body = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
        assert {name for name, _ in re.findall(r"^\| `(\w+)` \| (\w+)", body, re.M)} == {
            name for name in _documented() if name.startswith(prefix)
        }


@pytest.mark.parametrize(
    ("service", "prefixes"),
    [(PRODUCER, {"producer"}), (STREAM, {"stream"}), (SINK, {"sink"}), (PAGE, set())],
    ids=lambda value: getattr(value, "package", ""),
)
def test_a_service_exposes_no_metrics_of_another_one(service: Service, prefixes: set[str]) -> None:
    program = (
        f"import {service.package}.__main__; from prometheus_client import REGISTRY, generate_latest;"
        " print(generate_latest(REGISTRY).decode())"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    # The live page registers its own once it is running.
    assert set(re.findall(r"^# TYPE (producer|stream|sink|page)_", found, re.M)) == prefixes
    assert "# TYPE process_" in found


def test_names_follow_prometheus_conventions() -> None:
    for name, (kind, _) in _exposed().items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert kind != "histogram" or name.endswith(("_seconds", "_bytes")), name
        assert re.search(r"_(ms|millis|milliseconds|kb|mb|minutes)(_|$)", name) is None, name


def test_rules_and_dashboard_use_only_metrics_and_records_that_exist() -> None:
    queries = [*(rule["expr"] for rule in _rules()), *_dashboard_queries()]
    types = {name: kind for name, (kind, _) in _exposed().items()}
    plain = [re.sub(r"pipeline:[\w:]+|\"[^\"]*\"", "", query) for query in queries]
    used = {name for query in plain for name in re.findall(_OWN, query)}
    of_histograms = {re.sub(_SAMPLES, "", name) for name in used if re.search(_SAMPLES, name)}
    assert used - types.keys() - {name for name in used if re.search(_SAMPLES, name)} == set()
    assert {types.get(name) for name in of_histograms} == {"histogram"}
    records = {rule["record"] for rule in _rules() if "record" in rule}
    recorded = {name for query in queries for name in re.findall(r"pipeline:[\w:]+", query)}
    assert recorded <= records
    assert not records - recorded, "each record has a use"


def test_every_alert_has_a_severity_a_summary_and_a_runbook() -> None:
    alerts = [rule for rule in _rules() if "alert" in rule]
    operations, runbook = (ROOT / "docs/operations.md").read_text(), (ROOT / "docs/runbook.md").read_text()
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert f"\n### {rule['alert']}\n" in runbook
    headings = re.findall(r"^### (\w+)$", runbook.split("\n## Alerts")[1].split("\n## ")[0], re.M)
    assert headings == [rule["alert"] for rule in alerts]
    records = sum("record" in rule for rule in _rules())
    assert f"{records} recording rules and {len(alerts)} alerts" in operations


def test_every_rule_is_tested() -> None:
    tests = (_OBSERVABILITY / "rules_test.yml").read_text()
    names = [rule.get("alert") or rule["record"] for rule in _rules()]
    assert [name for name in names if not re.search(rf"(alertname: |expr: round\(){re.escape(name)}\b", tests)] == []


def test_what_is_not_measured_yet_is_absent() -> None:
    registry = CollectorRegistry()
    measurement = Measurement("a_figure", "A figure", registry=registry)
    assert registry.get_sample_value("a_figure") is None
    measurement.set(0)
    assert registry.get_sample_value("a_figure") == 0
    measurement.add(2)
    assert registry.get_sample_value("a_figure") == 2
    measurement.set(None)
    assert registry.get_sample_value("a_figure") is None
    measurement.set(float("nan"))
    assert registry.get_sample_value("a_figure") is None
    page = CollectorRegistry()
    PageMetrics(ReadingHistory(), page)
    assert [sample for metric in page.collect() for sample in metric.samples] == []


def test_a_histogram_counts_each_value_as_often_as_it_occurs() -> None:
    registry = CollectorRegistry()
    histogram = CountedHistogram("age_seconds", "Ages", (1, 5), registry=registry)
    histogram.observe({0.5: 3, 1.0: 1})
    histogram.observe({7.0: 2})
    buckets = [registry.get_sample_value("age_seconds_bucket", {"le": le}) for le in ("1.0", "5.0", "+Inf")]
    assert buckets == [4, 4, 6]
    assert registry.get_sample_value("age_seconds_count") == 6
    assert registry.get_sample_value("age_seconds_sum") == 16.5


def _record(key: str, appended: float, event: object, offset: int) -> Record:
    row = {"user_id": key, "last_interaction": event}
    return Record("t", 0, offset, int(appended * 1000), f"agg_interactions_user-{key}".encode(), orjson.dumps(row))


def test_the_latency_of_a_batch_has_the_age_of_each_row_and_of_its_latest_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = CollectorRegistry()
    indexing, end_to_end = (CountedHistogram(f"{name}_seconds", "", (1, 5, 60), registry=registry) for name in "ab")
    monkeypatch.setattr(elasticsearch_sink_alert.metrics, "INDEXING_LATENCY", indexing)
    monkeypatch.setattr(elasticsearch_sink_alert.metrics, "END_TO_END_LATENCY", end_to_end)
    start = 1_700_000_000.0
    events = ("2023-11-14T22:13:18.000Z", "2023-11-14T22:12:20.000Z", "2023-11-14T22:13:25.000Z", "no time", None, 7)
    records = [_record(f"u{n}", start - 0.5 * n, event, n) for n, event in enumerate(events)]
    deleted = Record("t", 0, 99, int(start * 1000), b"agg_interactions_user-gone", None)
    rows, rejected = latest_rows([*records, deleted], VersionClock())
    assert not rejected
    latency.observe(rows, start)
    assert registry.get_sample_value("a_seconds_count") == 7
    assert registry.get_sample_value("a_seconds_bucket", {"le": "1.0"}) == 4
    assert registry.get_sample_value("a_seconds_sum") == pytest.approx(0.5 * (1 + 2 + 3 + 4 + 5), abs=0.01)
    # 2 seconds, 60 seconds, and one that is ahead of this machine's clock.
    assert registry.get_sample_value("b_seconds_count") == 3
    assert registry.get_sample_value("b_seconds_sum") == 62


def test_the_latency_of_a_large_batch_is_that_of_rows_spread_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    end_to_end = CountedHistogram("b_seconds", "", (60,), registry=registry)
    monkeypatch.setattr(elasticsearch_sink_alert.metrics, "END_TO_END_LATENCY", end_to_end)
    start = 1_700_000_000.0
    events = ("2023-11-14T22:13:10.000Z", "2023-11-14T22:03:20.000Z")
    records = [_record(f"u{n}", start, events[n >= 7_500], n) for n in range(10_000)]
    rows, _ = latest_rows(records, VersionClock())
    latency.observe(rows, start)
    assert registry.get_sample_value("b_seconds_count") == pytest.approx(10_000, rel=0.001)
    assert registry.get_sample_value("b_seconds_bucket", {"le": "60.0"}) == pytest.approx(7_500, rel=0.01)


def test_the_sinks_lag_is_the_age_of_the_oldest_record_that_is_not_committed() -> None:
    old = time.time() - 100
    batches = [[_record("u1", old + 40, None, 1), _record("u2", old, None, 2)]]
    while_waiting: list[float | None] = []

    def wait() -> list[Outcome]:
        while_waiting.append(REGISTRY.get_sample_value("sink_lag_seconds"))
        return [WRITTEN, WRITTEN]

    do_nothing = MagicMock()
    consumer = MagicMock(assignments={0: 1}, clock=VersionClock(), has_new_partitions=False)
    consumer.poll_batch = lambda *, wait: batches.pop() if batches else []  # noqa: ARG005
    consumer.lag.return_value = 0
    sink = Sink(consumer, MagicMock(start=lambda _: wait), do_nothing, do_nothing)
    assert REGISTRY.get_sample_value("sink_lag_seconds") is None
    sink.run_once()
    assert REGISTRY.get_sample_value("sink_lag_seconds") == pytest.approx(100, abs=30)
    sink.run_once()
    assert while_waiting == [pytest.approx(100, abs=30)]
    assert REGISTRY.get_sample_value("sink_lag_seconds") == 0


_REASONS = {
    "refused": ["Elasticsearch refuses it: mapper_parsing_exception: user_id is missing or null"],
    "empty": ["the value is empty"],
    "too_large": [
        "the value has 5000000 bytes, more than 4194304",
        "user_id has 600 bytes of UTF-8, more than 512",
        "user_id and item_id have 700 bytes as an id, more than 512",
        "the id is longer than the 512 bytes that Elasticsearch accepts",
    ],
    "encoding": ["not UTF-8", r"not text: \ud800 is half of a surrogate pair", "the key is not UTF-8"],
    "not_json": [
        "not one JSON object",
        "the value is not JSON: unexpected character",
        "the value is not a JSON object",
        "a decimal has an exponent of more than 4 digits, or is a string of more than 100 characters",
    ],
    "key": [
        "the record has no key",
        "key 'x' names no row: expected one of agg_interactions_user-<user_id>",
        "user_id is 'a', but the key says 'b'",
    ],
    "duplicate_field": ["user_id occurs more than once"],
    "missing_field": ["user_id is missing or null", "user_id is missing or null: expected text"],
    "invalid_field": [
        "user_id is empty",
        "user_id is not a string",
        "interaction_type is stare, not one of click, like",
        "timestamp is yesterday, not a whole number of seconds",
        "timestamp 1e30 is not epoch seconds within the years 1970 to 9999",
        "'a name' is an array: expected a single value",
    ],
    "other": ["a reason of another kind"],
}


@pytest.mark.parametrize("kind", dead_letters.REASON_KINDS)
def test_every_reason_has_one_of_the_kinds_that_metrics_count(kind: str) -> None:
    for reason in _REASONS[kind]:
        assert dead_letters.kind_of(reason) == kind, reason
    # Whatever a record contains, its reason is of one of them.
    assert dead_letters.kind_of("user_id is x\ny: the value is empty") in dead_letters.REASON_KINDS


def test_dead_letters_are_counted_from_0_for_each_kind_of_reason() -> None:
    for module in (stream_processing.metrics, elasticsearch_sink_alert.metrics):
        labels = {sample.labels["reason"] for metric in module.DEAD_LETTERS.collect() for sample in metric.samples}
        assert labels == set(dead_letters.REASON_KINDS)
