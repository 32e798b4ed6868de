"""What a service cannot have is one line that names the setting and the remedy, and no traceback."""

import socket
from subprocess import CalledProcessError

import pytest
from mirakuru import SimpleExecutor

from local_stack.services import PRODUCER, SINK, Service
from tests.pipeline import Pipeline, eventually


def _last_line(pipeline: Pipeline, service: Service, status: int, **settings: object) -> str:
    with pytest.raises(CalledProcessError) as ended:
        pipeline.run_to_end(service, **settings)
    assert ended.value.returncode == status
    log = pipeline.log(service)
    assert "Traceback" not in log
    errors = [line for line in log.splitlines() if " ERROR " in line]
    assert len(errors) == 1, log
    return errors[0]


@pytest.mark.parametrize("service", [PRODUCER, SINK])
def test_more_replicas_than_brokers_are_one_line(pipeline: Pipeline, service: Service) -> None:
    line = _last_line(pipeline, service, 1, KAFKA_TOPIC_REPLICATION_FACTOR=3)
    assert f"topic {pipeline.topic}" in line
    assert "KAFKA_TOPIC_REPLICATION_FACTOR is 3: set it to at most the number of brokers" in line


def test_a_number_of_partitions_or_replicas_that_no_kafka_takes_is_one_line(pipeline: Pipeline) -> None:
    line = _last_line(pipeline, PRODUCER, 1, KAFKA_TOPIC_REPLICATION_FACTOR=99_999)
    assert "KAFKA_TOPIC_REPLICATION_FACTOR" in line


def test_a_client_that_cannot_be_made_is_one_line(pipeline: Pipeline) -> None:
    file = pipeline.data / "no-such.pem"
    line = _last_line(pipeline, PRODUCER, 1, KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_CA_FILE=str(file))
    assert f"KAFKA_CA_FILE={file}" in line
    assert "certificate" in line


def test_a_port_that_is_taken_is_one_line_with_its_setting(pipeline: Pipeline) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        line = _last_line(pipeline, PRODUCER, 2, PRODUCER_METRICS_PORT=port)
        assert f"PRODUCER_METRICS_PORT={port} is taken at 127.0.0.1" in line


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "a..b"])
def test_an_address_that_this_machine_does_not_have_is_one_line(pipeline: Pipeline, host: str) -> None:
    line = _last_line(pipeline, PRODUCER, 2, METRICS_HOST=host)
    assert f"METRICS_HOST={host} is no address of this machine" in line


@pytest.mark.parametrize("service", [PRODUCER, SINK])
def test_a_service_that_is_stopped_while_it_waits_for_kafka_ends_as_it_should(
    pipeline: Pipeline, service: Service
) -> None:
    executor = pipeline.service(service, KAFKA_BROKER="127.0.0.1:1")
    try:
        # It is not ready, and will not be.
        SimpleExecutor.start(executor)
        eventually(lambda: _assert_waits(pipeline, service))
        assert executor.process is not None
        executor.process.terminate()
        assert executor.process.wait(60) == 0
    finally:
        executor.kill()
    assert "Traceback" not in pipeline.log(service)


def _assert_waits(pipeline: Pipeline, service: Service) -> None:
    assert "no answer from Kafka at 127.0.0.1:1" in pipeline.log(service)
