"""Starts the servers for the tests: containers where a container engine answers, the local stack otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from docker.errors import DockerException
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed
from testcontainers.core.container import DockerContainer

from local_stack import servers

KAFKA_IMAGE = "apache/kafka:3.9.1"
ELASTICSEARCH_IMAGE = "elasticsearch:7.17.29"


def has_container_engine() -> bool:
    """Whether a container engine answers; False with TEST_SERVERS=local."""
    if os.environ.get("TEST_SERVERS") == "local":
        return False
    try:
        client = docker.from_env()
        client.ping()
        client.close()
    except DockerException:
        return False
    return True


@contextmanager
def kafka(data: Path) -> Iterator[str]:
    """Run a Kafka broker; yields its address."""
    port = servers.free_port()
    address = f"{servers.HOST}:{port}"
    if not has_container_engine():
        with servers.kafka(data, port):
            yield address
        return
    # The same port inside the container: to verify transactions the broker connects to its own advertised address.
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{address}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_HEAP_OPTS": "-Xmx512m",
    }.items():
        container = container.with_env(name, value)
    with container:
        _wait_for_kafka(address)
        yield address


@contextmanager
def elasticsearch(data: Path) -> Iterator[str]:
    """Run an Elasticsearch node; yields its URL."""
    port = servers.free_port()
    url = f"http://{servers.HOST}:{port}"
    if not has_container_engine():
        with servers.elasticsearch(data, port):
            yield url
        return
    container = (
        DockerContainer(ELASTICSEARCH_IMAGE)
        .with_bind_ports(9200, port)
        .with_env("discovery.type", "single-node")
        .with_env("xpack.security.enabled", "false")
        .with_env("ES_JAVA_OPTS", "-Xms768m -Xmx768m")
    )
    with container:
        _wait_for_elasticsearch(url)
        yield url


class _NotReadyError(Exception):
    pass


@retry(retry=retry_if_exception_type(_NotReadyError), wait=wait_fixed(0.3), stop=stop_after_delay(120), reraise=True)
def _wait_for_kafka(address: str) -> None:
    try:
        AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=3)
    except KafkaException as error:
        raise _NotReadyError(f"no answer from Kafka at {address}") from error


@retry(retry=retry_if_exception_type(_NotReadyError), wait=wait_fixed(0.3), stop=stop_after_delay(120), reraise=True)
def _wait_for_elasticsearch(url: str) -> None:
    try:
        Elasticsearch([url], max_retries=0).cluster.health(wait_for_status="yellow")
    except ElasticsearchException as error:
        raise _NotReadyError(f"no answer from Elasticsearch at {url}") from error
