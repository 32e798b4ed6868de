"""A service that cannot start logs one line with the setting and the remedy, and no traceback."""

import signal
import socket
import sys
from subprocess import CalledProcessError

import pytest
from mirakuru import SimpleExecutor

from local_stack.services import PAGE, PRODUCER, SINK, STREAM, Service
from observer.services import OK, read_service
from tests.pipeline import Pipeline, eventually


def _only_error(pipeline: Pipeline, service: Service, status: int, **settings: object) -> str:
    """Run the service until it exits with `status`, and return the one error line of its log."""
    with pytest.raises(CalledProcessError) as raised:
        pipeline.run_to_end(service, **settings)
    assert raised.value.returncode == status
    log = pipeline.log(service)
    assert "Traceback" not in log
    errors = [line for line in log.splitlines() if " ERROR " in line]
    assert len(errors) == 1, log
    return errors[0]


@pytest.mark.parametrize("service", [PRODUCER, SINK])
def test_more_replicas_than_brokers_is_one_error_line(pipeline: Pipeline, service: Service) -> None:
    line = _only_error(pipeline, service, 1, KAFKA_TOPIC_REPLICATION_FACTOR=3)
    assert f"topic {pipeline.topic}" in line
    assert "KAFKA_TOPIC_REPLICATION_FACTOR is 3: set it to at most the number of brokers" in line


def test_the_largest_replication_factor_is_one_error_line(pipeline: Pipeline) -> None:
    line = _only_error(pipeline, PRODUCER, 1, KAFKA_TOPIC_REPLICATION_FACTOR=10_000)
    assert "KAFKA_TOPIC_REPLICATION_FACTOR is 10000: set it to at most the number of brokers" in line


def test_a_replication_factor_beyond_it_is_reported_before_the_service_starts(pipeline: Pipeline) -> None:
    with pytest.raises(CalledProcessError) as raised:
        pipeline.run_to_end(PRODUCER, KAFKA_TOPIC_REPLICATION_FACTOR=10_001)
    assert raised.value.returncode == 2
    assert "KAFKA_TOPIC_REPLICATION_FACTOR='10001': expected a whole number from 1 to 10,000" in pipeline.log(PRODUCER)


def test_a_kafka_client_that_cannot_be_created_is_one_error_line(pipeline: Pipeline) -> None:
    file = pipeline.data / "no-such.pem"
    line = _only_error(pipeline, PRODUCER, 1, KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_CA_FILE=str(file))
    assert f"KAFKA_CA_FILE={file}" in line
    assert "certificate" in line


def test_a_port_in_use_is_one_error_line_with_its_setting(pipeline: Pipeline) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        line = _only_error(pipeline, PRODUCER, 2, PRODUCER_METRICS_PORT=port)
        assert f"PRODUCER_METRICS_PORT={port} is in use at 127.0.0.1" in line


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "a..b"])
def test_an_address_of_another_machine_is_one_error_line(pipeline: Pipeline, host: str) -> None:
    line = _only_error(pipeline, PRODUCER, 2, METRICS_HOST=host)
    assert f"METRICS_HOST={host} is not an address of this machine" in line


@pytest.mark.parametrize(
    "host",
    [
        "::1",
        "::",
        "0.0.0.0",
        pytest.param("127.0.0.2", marks=pytest.mark.skipif(sys.platform != "linux", reason="not an address there")),
    ],
)
def test_a_service_answers_where_it_listens(pipeline: Pipeline, host: str) -> None:
    with (
        pipeline.running(PRODUCER, METRICS_HOST=host) as producer,
        pipeline.running(PAGE, PAGE_HOST=host),
    ):
        health, _ = read_service(producer.url.geturl().removesuffix("/health"))
    assert health == OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("service", [PRODUCER, STREAM, SINK])
def test_a_service_that_is_stopped_while_waiting_for_kafka_exits_cleanly(
    pipeline: Pipeline, service: Service, number: signal.Signals
) -> None:
    executor = pipeline.service(service, KAFKA_BROKER="127.0.0.1:1")
    try:
        # Start without waiting for /health: the service never becomes ready.
        SimpleExecutor.start(executor)
        eventually(lambda: _assert_waiting(pipeline, service))
        assert executor.process is not None
        executor.process.send_signal(number)
        assert executor.process.wait(60) == 0
    finally:
        executor.kill()
    assert {line.split()[1] for line in pipeline.log(service).splitlines()} <= {"INFO", "WARNING"}


@pytest.mark.parametrize("service", [PRODUCER, STREAM, SINK, PAGE], ids=lambda service: service.package)
def test_a_closed_terminal_ends_a_service_as_sigterm_does(pipeline: Pipeline, service: Service) -> None:
    with pipeline.running(service) as executor:
        assert executor.process is not None
        before = len(pipeline.log(service))
        executor.process.send_signal(signal.SIGHUP)
        assert executor.process.wait(60) == 0
    assert [line for line in pipeline.log(service)[before:].splitlines() if " INFO " not in line] == []


def _assert_waiting(pipeline: Pipeline, service: Service) -> None:
    assert "no answer from Kafka at 127.0.0.1:1" in pipeline.log(service)
