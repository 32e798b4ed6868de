"""An Elasticsearch that others use, configure and clean up: no row is lost, and problems are reported."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from elasticsearch_sink_alert.cli.check import check
from elasticsearch_sink_alert.indexing.cluster import Cluster
from elasticsearch_sink_alert.indexing.index_templates import mappings
from elasticsearch_sink_alert.settings import SinkSettings
from mirakuru import HTTPExecutor

from local_stack.servers import HOST
from local_stack.services import SINK
from tests.fault_proxy import Fault, fault_proxy
from tests.pipeline import Pipeline, assert_equal, assert_more_than, eventually, item_record

ITEMS = "agg_interactions_item"
MAPPER_HEAD = f"{ITEMS}:\n  id: item_id\n  alerts:\n"


@contextmanager
def _cluster_settings(pipeline: Pipeline, **settings: object) -> Iterator[None]:
    """Apply cluster settings, named with __ for dots, and remove them afterwards."""
    client = pipeline.elasticsearch
    named = {name.replace("__", "."): value for name, value in settings.items()}
    client.cluster.put_settings(body={"transient": named})
    try:
        yield
    finally:
        client.cluster.put_settings(body={"transient": dict.fromkeys(named)})


@contextmanager
def _templates(pipeline: Pipeline, **templates: Mapping[str, Any]) -> Iterator[None]:
    """Put index templates of other users; `legacy` is a legacy template."""
    indices = pipeline.elasticsearch.indices
    try:
        for name, body in templates.items():
            if name == "legacy":
                indices.put_template(name=name, body=body)
            else:
                indices.put_index_template(name=name, body=body)
        yield
    finally:
        indices.delete_template(name="legacy", ignore=[404])
        for name in templates:
            indices.delete_index_template(name=name, ignore=[404])


def _max_interactions(pipeline: Pipeline) -> dict[str, int]:
    return {id_: source["max_interactions"] for id_, source in pipeline.documents(ITEMS).items()}


def _firing(pipeline: Pipeline) -> list[str]:
    """Return the ids of firing alerts, once per alert."""
    return sorted(alert["id"] for alert in pipeline.alerts() if alert["status"] == "firing")


def _problem(sink: HTTPExecutor, part: str = "elasticsearch") -> str:
    return str(requests.get(sink.url.geturl(), timeout=10).json()["parts"][part])


def _assert_problem(sink: HTTPExecutor, *problems: str) -> None:
    problem = _problem(sink)
    assert all(each in problem for each in problems), problem


def _assert_our_mappings(pipeline: Pipeline) -> None:
    found = pipeline.elasticsearch.indices.get(index=",".join(index for index, _ in mappings()))
    for index, mapping in mappings():
        assert found[index]["mappings"]["dynamic"] == "strict"
        types = {name: field["type"] for name, field in found[index]["mappings"]["properties"].items()}
        # In a merged mapping, an object without properties has no type.
        assert types == {name: field["type"] for name, field in mapping["properties"].items()}
        assert found[index]["settings"]["index"]["number_of_shards"] == "1"


def _deletions(pipeline: Pipeline) -> int:
    return pipeline.log(SINK).count("the whole topic is indexed again")


def test_an_index_that_is_deleted_while_the_sink_runs_is_recreated_and_filled_again(pipeline: Pipeline) -> None:
    indices = pipeline.elasticsearch.indices
    expected = {f"item_{n}": 20 if n < 10 else 1 for n in range(50)}
    firing = sorted(f"item_{n}" for n in range(10))
    with pipeline.running(SINK) as sink:
        pipeline.publish(*[item_record(int(id_[5:]), value) for id_, value in expected.items()])
        eventually(lambda: assert_equal(_max_interactions(pipeline), expected))
        eventually(lambda: assert_equal(_firing(pipeline), firing))
        # It is noticed without a new record.
        indices.delete(index=ITEMS)
        eventually(lambda: assert_equal(_max_interactions(pipeline), expected))
        # Without the template, and while rows arrive: no write creates it with a dynamic mapping.
        for automatic in ("true", "false"):
            with _cluster_settings(pipeline, action__auto_create_index=automatic):
                indices.delete_index_template(name=ITEMS)
                indices.delete(index=ITEMS)
                expected.update({"item_30": expected["item_30"] + 1, f"item_{automatic}": 2})
                existing_key, value = item_record(30, expected["item_30"])
                added = (
                    f"{ITEMS}-item_{automatic}".encode(),
                    item_record(0, 2)[1].replace(b"item_0", f"item_{automatic}".encode()),
                )
                pipeline.publish((existing_key, value), added, (f"{ITEMS}-item_nowhere".encode(), None))
                eventually(lambda: assert_equal(_max_interactions(pipeline), expected))
                _assert_our_mappings(pipeline)
        # Earlier alerts are neither lost nor duplicated.
        assert _firing(pipeline) == firing
        assert len(pipeline.alerts()) == len(firing)
        # The indices of alerts: rules that are true of the rows fire again, and waiting alerts and windows start again.
        before = _deletions(pipeline)
        indices.delete(index="alerts,alerts_waiting,alerts_histories")
        eventually(lambda: assert_more_than(_deletions(pipeline), before))
        eventually(lambda: assert_equal(_firing(pipeline), firing))
        pipeline.publish(item_record(1, 3), item_record(20, 14))
        eventually(lambda: assert_equal(_firing(pipeline), sorted({*firing, "item_20"} - {"item_1"})))
        eventually(lambda: assert_equal(_problem(sink), "ok"))
        _assert_our_mappings(pipeline)
    # It is noticed also if the sink was not running.
    indices.delete(index=f"{ITEMS},avg_interactions")
    expected.update({"item_1": 3, "item_20": 14})
    with pipeline.running(SINK):
        eventually(lambda: assert_equal(_max_interactions(pipeline), expected))
        before = _deletions(pipeline)
    assert _deletions(pipeline) == before
    assert len(pipeline.alerts()) == 11
    assert pipeline.read(pipeline.settings.dead_letter_topic) == []


def test_rows_that_are_indexed_again_do_not_repeat_earlier_alerts(pipeline: Pipeline) -> None:
    indices = pipeline.elasticsearch.indices
    values = [20, 5, 30, 31, 4, 2, 40, 41]
    with pipeline.running(SINK, SINK_BATCH_SIZE=1):
        for value in values:
            pipeline.publish(item_record(1, value), item_record(2, value // 2))
            expected = {"item_1": value, "item_2": value // 2}
            eventually(lambda expected=expected: assert_equal(_max_interactions(pipeline), expected))  # type: ignore[misc]
        eventually(lambda: assert_equal(_firing(pipeline), ["item_1", "item_2"]))
        before = pipeline.documents("alerts")
        assert len(before) == 5
        fired = pipeline.log(SINK).count("firing: ")
        indices.delete(index=ITEMS)
        eventually(lambda: assert_equal(_deletions(pipeline), 1))
        pipeline.publish(item_record(3, 1))
        eventually(lambda: assert_equal(_max_interactions(pipeline), {"item_1": 41, "item_2": 20, "item_3": 1}))
        assert pipeline.documents("alerts") == before
        assert pipeline.log(SINK).count("firing: ") == fired
        pipeline.publish(item_record(1, 1))
        eventually(lambda: assert_equal(_firing(pipeline), ["item_2"]))


def test_the_sink_waits_for_a_closed_blocked_or_misconfigured_index(pipeline: Pipeline) -> None:
    mapper = pipeline.data / "mapper.yml"
    mapper.write_text(
        MAPPER_HEAD + '    - [max_interactions, ">", 12]\n'
        '    - {field: max_interactions, operator: ">", threshold: 5, within: 3600, name: rise}\n'
    )
    indices = pipeline.elasticsearch.indices
    expected: dict[str, int] = {}
    with pipeline.running(SINK, DATA_MAPPER=mapper) as sink:
        for n, index in enumerate((ITEMS, "alerts", "alerts_histories")):
            indices.close(index=index)
            expected[f"item_{n}"] = 20
            pipeline.publish(item_record(n, 20))
            eventually(lambda: _assert_problem(sink, "closed", "open the index"))
            indices.open(index=index)
            eventually(lambda: assert_equal(_max_interactions(pipeline), expected))
            eventually(lambda: assert_equal(_firing(pipeline), sorted(expected)))
            eventually(lambda: assert_equal(_problem(sink), "ok"))
        # A window that cannot be read for a while does not count as empty.
        indices.close(index="alerts_histories")
        pipeline.publish(item_record(0, 30))
        eventually(lambda: _assert_problem(sink, "closed"))
        indices.open(index="alerts_histories")
        eventually(lambda: assert_equal(_firing(pipeline), sorted([*expected, "item_0"])))
        # Index settings that would affect every row.
        for setting, value, problem in (
            ("index.final_pipeline", "nowhere", "pipeline with id [nowhere] does not exist: the index has a final_pi"),
            ("index.blocks.write", True, "remove the block"),
        ):
            indices.put_settings(index=ITEMS, body={setting: value})
            pipeline.publish(item_record(7, 7))
            eventually(lambda problem=problem: _assert_problem(sink, problem))  # type: ignore[misc]
            indices.put_settings(index=ITEMS, body={setting: None})
            eventually(lambda: assert_equal(_problem(sink), "ok"))
        indices.put_settings(index=ITEMS, body={"index.default_pipeline": "nowhere"})
        pipeline.publish(item_record(7, 8))
        expected.update({"item_0": 30, "item_7": 8})
        eventually(lambda: assert_equal(_max_interactions(pipeline), expected))
        # No room for a new index after it was deleted.
        with _cluster_settings(pipeline, cluster__max_shards_per_node=1):
            indices.delete(index=ITEMS)
            eventually(
                lambda: _assert_problem(sink, f"{ITEMS}", "maximum normal shards open", "delete indices, or raise")
            )
            pipeline.publish(item_record(8, 8))
        eventually(lambda: assert_equal(_max_interactions(pipeline), expected | {"item_8": 8}))
        eventually(lambda: assert_equal(_problem(sink), "ok"))
    assert pipeline.read(pipeline.settings.dead_letter_topic) == []


def test_a_response_that_is_not_from_elasticsearch_is_retried(pipeline: Pipeline) -> None:
    faults: tuple[Fault, ...] = ("HTML page", "text", "JSON")
    with fault_proxy(pipeline.es_url) as proxy, pipeline.running(SINK, ES_HOST=proxy.url) as sink:
        for value, fault in enumerate(faults, start=13):
            proxy.fault, proxy.faulted_requests = fault, 0
            pipeline.publish(item_record(1, value), item_record(value, 20))
            eventually(lambda: assert_more_than(proxy.faulted_requests, 2))
            eventually(lambda: assert_equal(_problem(sink) in ("ok", ""), False))
            assert "\n" not in _problem(sink)
            proxy.fault = "none"
            eventually(lambda value=value: assert_equal(_max_interactions(pipeline).get("item_1"), value))  # type: ignore[misc]
        eventually(lambda: assert_equal(_firing(pipeline), ["item_1", "item_13", "item_14", "item_15"]))
        eventually(lambda: assert_equal(_problem(sink), "ok"))
    assert pipeline.read(pipeline.settings.dead_letter_topic) == []
    assert "Traceback" not in pipeline.log(SINK)


FOREIGN: dict[str, Any] = {
    "settings": {"number_of_shards": 3, "final_pipeline": "nowhere", "default_pipeline": "nowhere"},
    "mappings": {
        "dynamic": True,
        "_routing": {"required": True},
        "_source": {"enabled": False},
        "properties": {"max_interactions": {"type": "text"}, "status": {"type": "text"}},
    },
}
"""Defaults that others set for all of their indices."""


def test_other_index_templates_do_not_change_the_indices_of_the_sink(pipeline: Pipeline) -> None:
    patterns = ["a*"]
    for index, _ in mappings():
        pipeline.elasticsearch.indices.delete_index_template(name=index, ignore=[404])
    with (
        _templates(
            pipeline,
            legacy={"index_patterns": patterns, "order": 500, **FOREIGN},
            same_priority={"index_patterns": ["agg_*", "other-[x]*"], "priority": 200, "template": FOREIGN},
            high_priority={"index_patterns": patterns, "priority": 100_000, "template": FOREIGN},
        ),
        pipeline.running(SINK),
    ):
        pipeline.publish(item_record(1, 20))
        eventually(lambda: assert_equal(_firing(pipeline), ["item_1"]))
        _assert_our_mappings(pipeline)
        # Neither does one that is put later, with the highest priority.
        pipeline.elasticsearch.indices.put_index_template(
            name="later",
            body={
                "index_patterns": patterns,
                "priority": (1 << 63) - 1,
                "template": {"settings": {"number_of_shards": 3}, "mappings": {"dynamic": True}},
            },
        )
        try:
            pipeline.elasticsearch.indices.delete(index=ITEMS)
            eventually(lambda: assert_equal(_max_interactions(pipeline), {"item_1": 20}))
            _assert_our_mappings(pipeline)
        finally:
            pipeline.elasticsearch.indices.delete_index_template(name="later")


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"properties": {"max_interactions": {"type": "text"}}}, "has another mapping than this version writes (400"),
        ({"_routing": {"required": True}}, "requires a routing"),
        ({"_source": {"enabled": False}}, "does not store the rows"),
    ],
)
def test_an_index_that_does_not_fit_ends_the_start_with_one_line(
    pipeline: Pipeline, mapping: dict[str, Any], problem: str
) -> None:
    pipeline.elasticsearch.indices.create(index=ITEMS, mappings=mapping)
    assert problem in _last_line(pipeline)


def test_the_sink_waits_if_an_index_stops_fitting_while_it_runs(pipeline: Pipeline) -> None:
    indices = pipeline.elasticsearch.indices
    with pipeline.running(SINK) as sink:
        pipeline.publish(item_record(1, 20))
        eventually(lambda: assert_equal(_max_interactions(pipeline), {"item_1": 20}))
        indices.create(index="others", mappings={"properties": {"item_id": {"type": "long"}}})
        try:
            swap = [{"remove_index": {"index": ITEMS}}, {"add": {"index": "others", "alias": ITEMS}}]
            indices.update_aliases(body={"actions": swap})
            eventually(lambda: _assert_problem(sink, f"index {ITEMS} has another mapping", "reindex it, or delete it"))
            pipeline.publish(item_record(1, 21), item_record(2, 2))
        finally:
            indices.delete(index="others")
        eventually(lambda: assert_equal(_max_interactions(pipeline), {"item_1": 21, "item_2": 2}))
        eventually(lambda: assert_equal(_problem(sink), "ok"))
        assert _firing(pipeline) == ["item_1"]


class _Other(BaseHTTPRequestHandler):
    """Responds with the server's `response`: status, content type, body."""

    server: Any

    def _any(self) -> None:
        status, kind, body = self.server.response
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_HEAD = _any  # noqa: N815 - the base class looks for these

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


PAGE = b"<html>\n<head><title>Hello</title></head>\n</html>\n"
OPENSEARCH = b'{"version": {"number": "2.11.0", "distribution": "opensearch"}, "tagline": "The OpenSearch Project"}'


@pytest.mark.parametrize(
    "response",
    [
        (200, "text/html", PAGE),
        (404, "text/html", PAGE),
        (200, "application/json", OPENSEARCH),
        (200, "application/json", b"[1, 2]"),
        (200, "application/json", b"{not JSON"),
        (200, "text/plain", b"hello"),
    ],
    ids=["a page", "a 404 page", "OpenSearch", "JSON of another kind", "broken JSON", "text"],
)
def test_a_server_that_is_not_elasticsearch_ends_the_start_with_one_line(
    pipeline: Pipeline, response: tuple[int, str, bytes]
) -> None:
    with ThreadingHTTPServer((HOST, 0), _Other) as server:
        server.response = response  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{HOST}:{server.server_port}"
        line = _last_line(pipeline, ES_HOST=url)
        assert f"ES_HOST={url} is no Elasticsearch 7.14 to 7.17" in line
        assert line.endswith("set it to the URL of one")
        assert check(SinkSettings(es_host=url), SinkSettings().data_mapper) == 1
        server.shutdown()


@pytest.mark.parametrize("url", ["http://localhost:port", "http://"])
def test_an_invalid_url_ends_the_start_with_one_line(pipeline: Pipeline, url: str) -> None:
    line = _last_line(pipeline, status=2, ES_HOST=url)
    assert line.strip().startswith(f"ES_HOST='{url}': expected a URL with http:// or https:// and a host")


def _last_line(pipeline: Pipeline, status: int = 1, **settings: object) -> str:
    """Return the last log line of a sink that exits at its start with this status."""
    sink = pipeline.service(SINK, **settings)
    try:
        with pytest.raises(Exception, match=f"exited with a non-zero code: {status}"):
            sink.start()
    finally:
        sink.kill()
    log = pipeline.log(SINK)
    assert "Traceback" not in log
    return log.splitlines()[-1]


def test_elasticsearch_accepts_every_rule_that_the_data_mapper_accepts(
    pipeline: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    client = pipeline.elasticsearch
    Cluster(client).prepare()
    row = {
        "user_id": "ann",
        "total_interactions": 7,
        "avg_interactions": 3.5,
        "last_interaction": "2026-01-01T00:00:00Z",
    }
    for n in range(3):
        client.index(index="agg_interactions_user", id=f"ann{n}", document=row | {"user_id": f"ann{n}"}, refresh=True)
    patterns = [
        "*" + "a" * 127, "*" + "ab" * 40 + "*" + "ab" * 22, "*a" + "?" * 7 + "b" * 100, "*a*a*a*a*a*a*a*a" + "b" * 100,
        "*a?*a?*a?*a?" + "ab" * 50, "*?a*?a*?a*?a" + "é" * 50, "x" * 512, "\\\\[a]", "\\*",
    ]  # fmt: skip
    rule_texts = [
        *[f'[total_interactions, "{operator}", {n}]' for operator in (">", "==", "!=") for n in (
            (1 << 63) - 1, -(1 << 63), 9.2e18, 40.5, "0x10", "1e5")],
        *[f'[avg_interactions, "{operator}", {n}]' for operator in ("<", "==") for n in (
            (1 << 63) - 1, 1.7e308, 5e-324, -0.0)],
        *[f'[last_interaction, ">", "{time}"]' for time in (
            "2026-01-31 12:00:00Z", "20260131T120000Z", "2026-W05-6T12:00:00+01:00", "0001-01-01T00:00:00+00:00",
            "9999-12-31T23:59:59.999999-00:00", "2026-01-31T12:00:00,5+00:00:30")],
        *[f'[user_id, "{operator}", {text!r}]' for operator in (">", "==") for text in ("x" * 512, "é" * 256, "")],
        *[f'{{field: user_id, operator: "!=", threshold: x, name: n{n}, silence: [{pattern!r}]}}'
          for n, pattern in enumerate(patterns)],
    ]  # fmt: skip
    mapper = pipeline.data / "mapper.yml"
    rules = "".join(f"    - {rule}\n" for rule in rule_texts)
    mapper.write_text(f"agg_interactions_user:\n  id: user_id\n  alerts:\n{rules}")
    status = check(SinkSettings(es_host=pipeline.es_url), mapper)
    printed = capfd.readouterr()
    assert (status, printed.err) == (0, "")
    assert len(printed.out.splitlines()) == 1 + len(rule_texts)
    assert printed.out.count(": true of ") == len(rule_texts)
    client.indices.close(index="agg_interactions_user")
    assert check(SinkSettings(es_host=pipeline.es_url), mapper) == 0
    assert capfd.readouterr().out.count("index agg_interactions_user is missing or closed") == len(rule_texts)


def test_a_fractional_threshold_fires_and_a_broken_data_mapper_leaves_the_last_rules_in_force(
    pipeline: Pipeline,
) -> None:
    mapper = pipeline.data / "mapper.yml"
    mapper.write_text(MAPPER_HEAD + '    - [max_interactions, ">", 12.5]\n    - [min_interactions, "<", 0.5e0]\n')
    with pipeline.running(SINK, DATA_MAPPER=mapper) as sink:
        pipeline.publish(item_record(1, 12), item_record(2, 13))
        eventually(lambda: assert_equal(_firing(pipeline), ["item_2"]))
        for n, (broken, problem) in enumerate(
            [
                (b"\0\xff\xfe\x1b", "not UTF-8"),
                (MAPPER_HEAD.encode() + b'    - [[max_interactions], [">"], {a: b}]\n', "unknown field"),
                (b"{? [a, b] : c}", "expected a name"),
                (b"{a: " * 50_000, "nested more than 50 levels deep"),
                (b"", "expected tables"),
            ],
            start=3,
        ):
            mapper.write_bytes(broken)
            eventually(lambda text=problem: assert_equal(text in _problem(sink, "data mapper"), True))  # type: ignore[misc]
            pipeline.publish(item_record(n, 20))
            eventually(lambda n=n: assert_equal(_firing(pipeline), [f"item_{m}" for m in range(2, n + 1)]))  # type: ignore[misc]
        mapper.unlink()
        eventually(lambda: assert_equal("does not exist" in _problem(sink, "data mapper"), True))
        mapper.write_text(MAPPER_HEAD + '    - [max_interactions, ">", 12.5]\n')
        eventually(lambda: assert_equal(_problem(sink, "data mapper"), "ok"))
        assert len(pipeline.alerts()) == 6
    assert "Traceback" not in pipeline.log(SINK)
