"""Starts the servers once per test process, and gives each test a pipeline with its own topics, tables and indices."""

import fcntl
import logging
import os
import random
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from elasticsearch import Elasticsearch
from elasticsearch_sink_alert.indexing.index_templates import mappings
from rich.console import Console

from local_stack import services
from local_stack.java import JAVA_HOME
from runtime import proxies
from tests import servers
from tests.case_ids import case_id
from tests.pipeline import Pipeline

# The containers are removed by the fixtures that start them.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
os.environ["JAVA_HOME"] = str(JAVA_HOME)
proxies.exempt_local_hosts()
# The same examples in each run, so that the gate fails for a change only; others with --hypothesis-profile=long.
hypothesis.settings.register_profile("gate", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("long", max_examples=5_000, database=None, deadline=None, print_blob=True)
hypothesis.settings.load_profile("gate")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=8, help="number of kills in the test of random kills")
    parser.addoption("--deeper", type=int, default=0, help="further steps in the tests of the models")
    parser.addoption("--seed", type=int, default=None, help="seed of the random kills; reported in the header")


def pytest_configure(config: pytest.Config) -> None:
    # Set before pytest-xdist starts its workers, which inherit the options: all of them use the same seed.
    if config.option.seed is None:
        config.option.seed = random.randrange(1_000_000)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed of random kills: {config.option.seed}"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name the cases of parametrised tests; see `case_id`."""
    return case_id(val, argname)


@pytest.fixture(autouse=True)
def _root_level() -> Iterator[None]:
    """Restore the level of all loggers, which a tested command has set: the next test may look for a warning."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
def kills(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.option.kills)


@pytest.fixture
def deeper(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.option.deeper)


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.option.seed)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    # The first of the parallel test processes fills the cache, the others wait for it.
    with (tmp_path_factory.getbasetemp().parent / "cache.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        services.fill_caches(Console(stderr=True))


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
    indices = ",".join(index for index, _ in mappings())
    with Elasticsearch([elasticsearch_url]) as client:
        client.indices.delete(index=indices, ignore_unavailable=True)


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Restore the handlers of the signals that stop a program after the test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
