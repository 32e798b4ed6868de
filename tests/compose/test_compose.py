"""`docker compose up`: the services that have an image here, seen from outside.

Kibana and Kafka UI are not started: their images cannot be had on every machine that runs the tests.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from playwright.sync_api import expect
from testcontainers.compose import DockerCompose

from contract.interaction import Interaction
from local_stack import servers
from local_stack.services import ROOT
from tests.browser import chromium, page_of
from tests.pipeline import Pipeline, assert_more_than, eventually
from tests.reference import reference_tables
from tests.servers import engine_answers

OURS = ["data-producer", "stream-processing", "elasticsearch-sink-alert"]
PAGE = "live-page"
STARTED = ["kafka", "elasticsearch", "spark-master", "spark-worker", *OURS, PAGE]

needs_an_engine = pytest.mark.skipif(
    not engine_answers(), reason="no container engine answers here, and Compose is nothing without one"
)


@dataclass
class Stack:
    """A Compose project under test."""

    compose: DockerCompose
    pipeline: Pipeline
    page: str
    scratch: Path

    def run(self, *arguments: str) -> str:
        """The output of a `docker compose` command over this project."""
        command = [*self.compose.compose_command_property, *arguments]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    def state(self) -> dict[str, tuple[str, str]]:
        """State and health of each service."""
        lines = self.run("ps", "--all", "--format", "json").splitlines()
        found = [json.loads(line) for line in lines]
        return {container["Service"]: (container["State"], container["Health"]) for container in found}

    def lake(self) -> Pipeline:
        """The pipeline with a copy of the warehouse as it is now."""
        target = self.scratch / f"copy-{time.monotonic_ns()}"
        target.mkdir()
        self.run("cp", "stream-processing:/data/warehouse", str(target))
        return Pipeline(self.pipeline.kafka, self.pipeline.es_url, self.pipeline.topic, target)

    def kill_9(self, service: str) -> None:
        """End a service's first process from outside, as the kernel would when memory runs out."""
        container = self.run("ps", "--quiet", service).split()[0]
        pid = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.Pid}}", container], check=True, capture_output=True, text=True
        ).stdout
        os.kill(int(pid), signal.SIGKILL)


@contextmanager
def _running(project: str, scratch: Path, *overlays: str, **settings: str) -> Iterator[Stack]:
    kafka_port, es_port, page_port = (servers.free_port() for _ in range(3))
    told = {
        "COMPOSE_PROJECT_NAME": project,
        "TEST_KAFKA_PORT": str(kafka_port),
        "TEST_ES_PORT": str(es_port),
        "TEST_PAGE_PORT": str(page_port),
        "PRODUCER_RATE": "0.01",
        "MATERIALISE_INTERVAL": "2",
        "LOOP_SLEEP": "0.2",
        **settings,
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in told.items():
            environment.setenv(name, value)
        compose = DockerCompose(
            ROOT,
            compose_file_name=["docker-compose.yml", *overlays, "tests/compose/ports.yml"],
            build=True,
            wait=True,
            services=STARTED,
        )
        with _leaving_no_untagged_images(), compose:
            pipeline = Pipeline(f"localhost:{kafka_port}", f"http://localhost:{es_port}", "avroic", ROOT)
            yield Stack(compose, pipeline, f"http://localhost:{page_port}", scratch)


@contextmanager
def _leaving_no_untagged_images() -> Iterator[None]:
    """Services that share an image each build it, and the last one's gets the name."""
    before = _untagged_images()
    yield
    if made := _untagged_images() - before:
        # One that another project's containers still use is refused here, and goes with that project.
        subprocess.run(["docker", "rmi", *made], check=False, capture_output=True)


def _untagged_images() -> set[str]:
    command = ["docker", "images", "--filter", "dangling=true", "--no-trunc", "--quiet"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with _running("streaming-analytics-test", tmp_path_factory.mktemp("compose")) as running:
        yield running


@needs_an_engine
@pytest.mark.timeout(1800)
def test_everything_is_healthy_at_the_first_try(stack: Stack) -> None:
    assert stack.state() == dict.fromkeys(STARTED, ("running", "healthy"))


@needs_an_engine
@pytest.mark.parametrize("service", STARTED)
def test_no_container_runs_as_root(stack: Stack, service: str) -> None:
    assert int(stack.run("exec", "-T", service, "id", "-u")) > 0


@needs_an_engine
def test_documents_and_alerts_appear(stack: Stack) -> None:
    def documents_and_alerts() -> None:
        assert len(stack.pipeline.documents("agg_interactions_user")) == 10
        assert len(stack.pipeline.documents("agg_interactions_item")) == 10
        assert len(stack.pipeline.documents("avg_interactions")) == 1
        assert any(alert["status"] == "firing" for alert in stack.pipeline.alerts())

    eventually(documents_and_alerts)


@needs_an_engine
def test_the_live_page_of_its_profile_shows_the_same(stack: Stack) -> None:
    eventually(lambda: assert_more_than(stack.lake().lake_count(), 100))
    with chromium() as browser, page_of(browser, stack.page) as page:
        for name in ("Kafka", "Elasticsearch", "data_producer", "stream_processing", "elasticsearch_sink_alert"):
            expect(page.locator(f'[data-health="{name}"]')).to_have_text("ok", timeout=60_000)
        page.goto("/users")
        expect(page.locator("tbody tr")).to_have_count(10, timeout=60_000)
        page.goto("/lake")
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_text("20 rows")).to_be_visible()
        page.goto("/controls")
        expect(page.get_by_text("set PRODUCER_CONTROLS=true in .env")).to_be_visible()


@needs_an_engine
@pytest.mark.parametrize("service", ["stream-processing", "elasticsearch-sink-alert"])
def test_a_killed_service_comes_back_and_the_counts_stay_right(stack: Stack, service: str) -> None:
    stack.kill_9(service)
    eventually(lambda: _assert_healthy(stack, service))
    stack.run("stop", "data-producer")
    sent = _sent(stack)
    eventually(lambda: _assert_tables(stack, sent))
    stack.run("start", "data-producer")


@needs_an_engine
def test_stopped_services_end_cleanly_within_ten_seconds_and_go_on_with_their_data(stack: Stack) -> None:
    before = len(stack.pipeline.read("avroic"))
    for service in OURS:
        began = time.monotonic()
        stack.run("stop", "--timeout", "30", service)
        assert time.monotonic() - began < 12
    codes = {line["Service"]: line["ExitCode"] for line in map(json.loads, _exited(stack))}
    assert codes == dict.fromkeys(OURS, 0)
    stack.run("down")
    stack.run("up", "--detach", "--wait", *STARTED)
    stack.run("stop", "data-producer")
    sent = _sent(stack)
    assert len(sent) > before
    eventually(lambda: _assert_tables(stack, sent))
    stack.run("start", "data-producer")


@needs_an_engine
def test_on_the_spark_cluster_a_lost_worker_loses_nothing(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_MODE", "cluster")
    stack.run("up", "--detach", "--wait", "--scale", "spark-worker=2", *STARTED)
    before = len(stack.pipeline.alerts())
    lake = stack.lake().lake_count()
    eventually(lambda: assert_more_than(stack.lake().lake_count(), lake))
    stack.kill_9("spark-worker")
    stack.run("stop", "data-producer")
    sent = _sent(stack)
    eventually(lambda: _assert_tables(stack, sent))
    assert len(stack.pipeline.alerts()) >= before


@pytest.mark.parametrize("overlay", [None, "compose.cluster.yml", "compose.secure.yml"])
@needs_an_engine
def test_every_overlay_is_valid(overlay: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "kafka-secret")
    monkeypatch.setenv("ELASTIC_PASSWORD", "elastic-secret")
    files = ["-f", "docker-compose.yml", *(["-f", overlay] if overlay else [])]
    command = ["docker", "compose", *files, "config", "--format", "json"]
    found = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    for name, service in found["services"].items():
        assert "healthcheck" in service or name in OURS, name  # Ours have theirs in the image.
        assert int(service["mem_limit"]) > 0
        assert service["logging"]["options"]["max-size"]
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
        assert ":" in service["image"] or service["image"].startswith("streaming-analytics/")
    limits = sum(int(service["mem_limit"]) for service in found["services"].values())
    assert overlay or limits < 7.5 * 2**30


@needs_an_engine
@pytest.mark.timeout(900)
def test_with_the_secure_overlay_only_who_has_the_password_reaches_kafka(tmp_path: Path) -> None:
    """Kafka's part of the overlay; a stand-in for Elasticsearch's image may have no security to switch on."""
    passwords = {"KAFKA_PASSWORD": "kafka-secret", "ELASTIC_PASSWORD": "elastic-secret"}
    with _running("streaming-analytics-secure", tmp_path, "compose.secure.yml", **passwords) as secure:
        eventually(lambda: _assert_ten_users(secure))
        known: dict[str, str | int | float] = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "pipeline",
        }
        broker: dict[str, str | int | float] = {"bootstrap.servers": secure.pipeline.kafka, "log_level": 0}
        assert (
            "avroic" in AdminClient({**broker, **known, "sasl.password": "kafka-secret"}).list_topics(timeout=20).topics
        )
        for other in (dict[str, str | int | float](), {**known, "sasl.password": "guessed"}):
            with pytest.raises(KafkaException):
                AdminClient({**broker, **other}).list_topics(timeout=3)


_COUNT_USERS = "http://localhost:9200/agg_interactions_user/_count"


def _assert_ten_users(stack: Stack) -> None:
    answer = stack.run("exec", "-T", "elasticsearch", "curl", "-s", "-u", "elastic:elastic-secret", _COUNT_USERS)
    assert json.loads(answer)["count"] == 10


@needs_an_engine
def test_the_secure_overlay_asks_for_passwords_that_are_not_set() -> None:
    command = ["docker", "compose", "-f", "docker-compose.yml", "-f", "compose.secure.yml", "config", "--quiet"]
    environment = {name: value for name, value in os.environ.items() if "PASSWORD" not in name}
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.returncode != 0
    assert "set it in .env" in said.stderr


def _exited(stack: Stack) -> list[str]:
    return stack.run("ps", "--all", "--status", "exited", "--format", "json").splitlines()


def _assert_healthy(stack: Stack, service: str) -> None:
    assert stack.state().get(service) == ("running", "healthy")


def _sent(stack: Stack) -> list[Interaction]:
    """What the topic holds once nobody sends any more."""
    return [Interaction(**json.loads(message.value() or b"")) for message in stack.pipeline.read("avroic")]


def _assert_tables(stack: Stack, sent: list[Interaction]) -> None:
    expected = reference_tables(sent)
    assert stack.pipeline.topic_tables() == expected
    assert stack.pipeline.index_tables() == expected
    lake = stack.lake()
    assert lake.lake_count() == len(sent)
    assert lake.lake_tables() == expected
