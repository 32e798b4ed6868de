"""`python -m observer` tells a pipeline that is well from one that needs attention, and from none."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mirakuru import HTTPExecutor

from contract.declared import EVENT, TABLES
from local_stack.services import PRODUCER, SINK, STREAM, Service
from tests.pipeline import Pipeline, assert_equal, eventually

_SECONDS = 5.0
_NOWHERE = "127.0.0.1:1"


def test_a_pipeline_that_runs_is_well_and_what_hangs_is_named(pipeline: Pipeline) -> None:
    with (
        pipeline.running(SINK) as sink,
        pipeline.running(STREAM) as stream,
        pipeline.running(PRODUCER, PRODUCER_RATE=0.02) as producer,
    ):
        urls = _urls(producer, stream, sink)
        eventually(lambda: _assert_all_is_known(pipeline.status(**urls)))
        eventually(lambda: _assert_all_well(pipeline.command(Service("observer", "", 0), expected_status=0, **urls)))

        with _frozen(sink):
            report = pipeline.status(**urls)
            assert report["exit_status"] == 1
            assert report["seconds"] < _SECONDS
            assert _problems(report)["elasticsearch_sink_alert"] == ["does not answer"]
            assert report["sent"] > 0
            behind = "published rows are not indexed for more than 0.5 s"
            eventually(lambda: _assert_behind(pipeline, urls, "elasticsearch_sink_alert", behind))
        with _frozen(stream):
            behind = "records in Kafka are not in the lake for more than 0.5 s"
            eventually(lambda: _assert_behind(pipeline, urls, "stream_processing", behind))
            assert all(table["in_the_state"] is None for table in pipeline.status(**urls)["tables"])
        eventually(lambda: assert_equal(pipeline.status(**urls)["problems"], []))


def test_a_producer_that_has_sent_everything_is_well_where_its_limit_is_known(pipeline: Pipeline) -> None:
    with pipeline.running(SINK) as sink, pipeline.running(STREAM) as stream:
        pipeline.run_to_end(PRODUCER, PRODUCER_RATE=0, PRODUCER_LIMIT=100)
        urls = _urls(None, stream, sink)
        eventually(lambda: assert_equal(pipeline.status(PRODUCER_LIMIT=100, **urls)["problems"], []))
        assert list(_problems(pipeline.status(**urls))) == ["data_producer"]


def test_without_servers_and_services_it_says_that_it_cannot_ask(pipeline: Pipeline) -> None:
    nowhere = {"KAFKA_BROKER": _NOWHERE, "ES_HOST": f"http://{_NOWHERE}", **_urls(None, None, None)}
    error = pipeline.command(Service("observer", "", 0), expected_status=2, **nowhere)
    assert error.startswith(f"cannot ask: nothing answers at {_NOWHERE}, http://{_NOWHERE}")
    assert len(error.splitlines()) == 1
    report = pipeline.status(**nowhere)
    assert (report["exit_status"], report["sent"], report["indexed"]) == (2, None, None)
    assert report["seconds"] < _SECONDS


def _assert_all_is_known(report: Mapping[str, Any]) -> None:
    assert report["problems"] == []
    assert report["sent"] >= report["in_the_lake"] > 0
    assert report["indexed"] > 0
    assert report["malformed"] == report["dead_letters"] == 0
    assert report["batch"]["records"] > 0
    assert all(stage["rate"] is not None for stage in report["stages"])
    assert [table["name"] for table in report["tables"]] == [EVENT.name, *(table.name for table in TABLES)]
    assert all(table["in_the_state"] and table["indexed"] for table in report["tables"][1:])
    assert {disk["name"]: bool(disk["free"]) for disk in report["disks"]} == {"the lake": True, "Elasticsearch": True}


def _assert_all_well(text: str) -> None:
    assert text.splitlines()[-1].startswith("all well at ")


def _assert_behind(pipeline: Pipeline, urls: Mapping[str, str], part: str, reason: str) -> None:
    report = pipeline.status("--behind", "0.5", **urls)
    assert report["seconds"] < _SECONDS
    assert any(found.startswith("is behind: ") and found.endswith(reason) for found in _problems(report).get(part, []))


def _problems(report: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for problem in report["problems"]:
        found.setdefault(problem["part"], []).append(problem["reason"])
    return found


def _urls(*executors: HTTPExecutor | None) -> dict[str, str]:
    """Return the settings of the URLs of producer, stream job and sink."""
    urls = (f"http://{_NOWHERE}" if each is None else each.url.geturl().removesuffix("/health") for each in executors)
    return dict(zip(("PRODUCER_URL", "STREAM_URL", "SINK_URL"), urls, strict=True))


@contextmanager
def _frozen(executor: HTTPExecutor) -> Iterator[None]:
    """Stop the process by SIGSTOP for the `with` block."""
    assert executor.process is not None
    os.kill(executor.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(executor.process.pid, signal.SIGCONT)
