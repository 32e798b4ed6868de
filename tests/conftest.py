"""Servers once per run, and a pipeline with its own topics, tables and indices per test."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from contract.tables import AGGREGATE_TABLES
from local_stack.java import JAVA_HOME
from tests import servers
from tests.pipeline import Pipeline

# The containers are removed by the fixtures that start them.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
os.environ["JAVA_HOME"] = str(JAVA_HOME)


@pytest.fixture(scope="session")
def cache() -> None:
    servers.fill_cache()


@pytest.fixture(scope="session")
def kafka(cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.kafka(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(scope="session")
def elasticsearch_url(cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.elasticsearch(tmp_path_factory.mktemp("elasticsearch")) as url:
        yield url


@pytest.fixture
def pipeline(kafka: str, elasticsearch_url: str, tmp_path: Path) -> Iterator[Pipeline]:
    yield Pipeline(kafka, elasticsearch_url, f"test-{uuid.uuid4().hex[:8]}", tmp_path)
    indices = ",".join([*(table.name for table in AGGREGATE_TABLES), "alerts"])
    with Elasticsearch([elasticsearch_url]) as client:
        client.indices.delete(index=indices, ignore_unavailable=True)
