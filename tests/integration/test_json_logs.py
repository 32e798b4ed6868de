"""The logs of the services as JSON, while they run, are sent what they refuse, and fail."""

import json
import socket
from contextlib import ExitStack
from typing import Any

from local_stack.services import PAGE, PRODUCER, SINK, STREAM, Service
from tests.pipeline import Pipeline, eventually, headers_of
from tests.processes import java_processes

_HOSTILE = '"}\n{"level": "ERROR"}\r\x1b[2J\x00\x9b31m\u202e\u2028 \\'


def _lines(pipeline: Pipeline, service: Service) -> list[dict[str, Any]]:
    """Parse every line of the service's log."""
    *lines, incomplete = pipeline.log(service).split("\n")
    assert incomplete == ""
    assert all(line.isprintable() for line in lines)
    objects = [json.loads(line) for line in lines]
    assert {line["service"] for line in objects} == {service.package}
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in objects)
    return objects


def _messages(pipeline: Pipeline, service: Service) -> list[str]:
    return [line["message"] for line in _lines(pipeline, service)]


def _assert_logged(pipeline: Pipeline, service: Service, text: str) -> None:
    assert text in str(_messages(pipeline, service))


def test_every_line_that_a_service_logs_is_one_json_object(pipeline: Pipeline) -> None:
    refused = (f"agg_interactions_user-{_HOSTILE}".encode(), f'{{"{_HOSTILE}'.encode())
    job = pipeline.service(STREAM, LOG_FORMAT="json", JDK_JAVA_OPTIONS="-Dprinted.by=Java")
    with ExitStack() as stack:
        stack.callback(job.kill)
        job.start()
        pipeline.send(pipeline.topic, [(b"key", _HOSTILE.encode())])
        pipeline.publish(refused)
        stack.enter_context(pipeline.running(PRODUCER, LOG_FORMAT="json"))
        stack.enter_context(pipeline.running(SINK, LOG_FORMAT="json"))
        page = stack.enter_context(pipeline.running(PAGE, LOG_FORMAT="json"))
        with socket.create_connection((page.host, page.port), timeout=30) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {_HOSTILE}\r\n\r\n".encode())
            assert connection.recv(1024).startswith(b"HTTP/1.1 400 ")
        eventually(lambda: _assert_logged(pipeline, PAGE, "Invalid HTTP request received."))
        eventually(lambda: _assert_logged(pipeline, STREAM, "malformed records: 1 more"))
        eventually(lambda: _assert_logged(pipeline, SINK, "1 records went to the dead letters"))
        assert job.process is not None
        for process in java_processes(job.process.pid):
            process.kill()
        assert job.process.wait(timeout=60) == 1
    dead_letter = next(
        headers
        for headers in map(headers_of, pipeline.read(pipeline.settings.dead_letter_topic))
        if headers["dead_letter.topic"] == pipeline.settings.aggregated_topic
    )
    (line,) = [line for line in _lines(pipeline, SINK) if "dead letters" in line["message"]]
    assert (line["topic"], str(line["partition"]), str(line["offset"])) == tuple(
        dead_letter[f"dead_letter.{name}"] for name in ("topic", "partition", "offset")
    )
    lines = _lines(pipeline, STREAM)
    printed = [line for line in lines if "Picked up JDK_JAVA_OPTIONS: -Dprinted.by=Java" in line["message"]]
    assert {(line["level"], line["logger"]) for line in printed} == {("WARNING", "java")}
    assert any("it was killed by SIGKILL" in line["message"] for line in lines if line["level"] == "ERROR")
    assert any(message.startswith("sent ") for message in _messages(pipeline, PRODUCER))
    assert _messages(pipeline, PAGE)[0].startswith("ready: ")
