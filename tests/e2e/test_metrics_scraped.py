"""A real Prometheus scrapes all services of a running pipeline, and evaluates the rules on what they expose."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mirakuru import HTTPExecutor
from ruamel.yaml import YAML

from local_stack.servers import HOST, free_port
from local_stack.services import PAGE, PRODUCER, ROOT, SINK, STREAM
from tests.pipeline import Pipeline, assert_equal, eventually
from tests.prometheus_tools import program
from tests.unit.test_metrics import _documented

_OBSERVABILITY = ROOT / "observability"
_SERVICES = ("data-producer", "stream-processing", "elasticsearch-sink-alert", "live-page")
_PREFIXES = ("producer_", "stream_", "sink_", "page_")
"""How the names of each of these services' metrics begin."""
_ABSENT = {
    # Of a replay only.
    "producer_replayed_rows_total", "producer_skipped_rows_total",
}  # fmt: skip
"""Metrics without a value in a healthy pipeline of random data."""


@contextmanager
def _prometheus(folder: Path, targets: dict[str, int]) -> Iterator[str]:
    """Run Prometheus with the project's configuration, scraping these ports of this machine; yields its URL."""
    config = YAML(typ="safe").load(_OBSERVABILITY / "prometheus.yml")
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(_OBSERVABILITY / "rules.yml")]
    del config["alerting"]
    for target in config["scrape_configs"][0]["static_configs"]:
        target["targets"] = [f"{HOST}:{targets[target['labels']['service']]}"]
    file = folder / "prometheus.json"
    file.write_text(json.dumps(config))
    port = free_port()
    executor = HTTPExecutor(
        [
            program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={HOST}:{port}", "--log.level=warn",
        ],
        url=f"http://{HOST}:{port}/-/ready",
        method="GET",
        timeout=120,
        expected_returncode=0,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        executor.start()
        yield f"http://{HOST}:{port}"
        executor.stop()
    finally:
        executor.kill()


def _get(url: str, path: str, **parameters: str) -> Any:
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=10) as response:
        return json.load(response)["data"]


def _series(url: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = _get(url, "series", **{"match[]": '{job="pipeline"}'})
    return found


def _value(url: str, query: str) -> float:
    """Return the only value of a query."""
    found = _get(url, "query", query=query)["result"]
    assert len(found) == 1, f"{query} has {len(found)} values"
    return float(found[0]["value"][1])


def _assert_up(url: str) -> None:
    targets = _get(url, "targets")["activeTargets"]
    assert {target["labels"]["service"]: target["lastError"] for target in targets} == dict.fromkeys(_SERVICES, "")
    assert {target["health"] for target in targets} == {"up"}


def _assert_present(url: str) -> None:
    suffixes = {"histogram": "_count"}
    expected = {name + suffixes.get(kind, "") for name, (kind, _) in _documented().items() if name not in _ABSENT}
    series = _series(url)
    assert expected - {each["__name__"] for each in series} == set()
    of_service = dict(zip(_SERVICES, _PREFIXES, strict=True))
    own = [each for each in series if each["__name__"].startswith(_PREFIXES)]
    assert [each for each in own if not each["__name__"].startswith(of_service[each["service"]])] == []


def _assert_rules_evaluate(url: str) -> None:
    rules = [rule for group in _get(url, "rules")["groups"] for rule in group["rules"]]
    assert len(rules) == 23
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}


def _assert_records(url: str) -> None:
    rules = [rule for group in _get(url, "rules")["groups"] for rule in group["rules"]]
    for name in (rule["name"] for rule in rules if rule["type"] == "recording"):
        assert _get(url, "query", query=name)["result"], f"{name} has no value"


def test_prometheus_scrapes_every_metric_of_every_service_and_evaluates_every_rule(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    malformed = [b"not json", None, b'{"user_id": "u", "item_id": "i", "interaction_type": "like"}']
    with ExitStack() as stack:
        stream = stack.enter_context(pipeline.running(STREAM, UPKEEP_INTERVAL=2))
        sink = stack.enter_context(pipeline.running(SINK))
        producer = stack.enter_context(pipeline.running(PRODUCER, PRODUCER_RATE=0.01))
        ports = {
            "stream-processing": stream.port,
            "elasticsearch-sink-alert": sink.port,
            "data-producer": producer.port,
        }
        urls = {
            f"{name}_URL": executor.url.geturl().removesuffix("/health")
            for name, executor in (("PRODUCER", producer), ("STREAM", stream), ("SINK", sink))
        }
        page = stack.enter_context(pipeline.running(PAGE, WAREHOUSE=str(pipeline.data / "warehouse"), **urls))
        url = stack.enter_context(_prometheus(tmp_path, {**ports, "live-page": page.port}))
        pipeline.send(pipeline.topic, [(b"bad", value) for value in malformed])
        # A key that names no row, and one that is not UTF-8.
        pipeline.publish((b"unknown", b"{}"), (b"\xff", b"{}"))

        eventually(lambda: _assert_up(url))
        eventually(lambda: _assert_present(url))
        eventually(lambda: _assert_rules_evaluate(url))
        eventually(lambda: _assert_records(url))
        of_stream = {"empty": 1.0, "not_json": 1.0, "missing_field": 1.0, "refused": 0.0}
        for reason, number in of_stream.items():
            query = f'stream_dead_letters_total{{reason="{reason}"}}'
            eventually(lambda query=query, number=number: assert_equal(_value(url, query), number))  # type: ignore[misc]
        for reason in ("key", "encoding"):
            query = f'sink_dead_letters_total{{reason="{reason}"}}'
            eventually(lambda query=query: assert_equal(_value(url, query), 1.0))  # type: ignore[misc]
        eventually(lambda: assert_equal(_value(url, "sum(page_part_healthy)"), 5.0))
        assert 0 < _value(url, "pipeline:end_to_end_latency_seconds:p99") < 3600
        # Both are read within a second of each other.
        assert _value(url, "sum(stream_batch_seconds_count)") > 0
        eventually(lambda: assert_equal(_value(url, "stream_lag_seconds") < 60, True))
