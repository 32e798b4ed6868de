"""Tests `docker compose up` from a clone made under umask 077, as a user sees it.

Kibana and Kafka UI are not started: their images are not available on every machine that runs the tests.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from playwright.sync_api import expect
from testcontainers.compose import DockerCompose

from local_stack import servers
from local_stack.services import ROOT
from tests.browser import chromium, page_of
from tests.interaction import Interaction
from tests.pipeline import Pipeline, assert_more_than, eventually
from tests.reference import reference_tables
from tests.servers import has_container_engine

SERVICES = ["data-producer", "stream-processing", "elasticsearch-sink-alert"]
PAGE = "live-page"
STARTED = ["kafka", "elasticsearch", *SERVICES, PAGE]
CLUSTER = ["spark-master", "spark-worker"]
RULES = "03-ElasticsearchSink-Alert/data_mapper.yml"

_CLONED_PATHS = (
    "pipeline.py",
    "docker-compose.yml",
    "compose.*.yml",
    ".dockerignore",
    "contract",
    "runtime",
    "observer",
    "observability",
    "build_tools",
    "dashboards",
    "access",
    "live_page",
    "verify",
    "0*",
)
_LABEL = "com.docker.compose.project"

needs_container_engine = pytest.mark.skipif(
    not has_container_engine(), reason="Docker Compose needs a container engine, and none answers"
)


@dataclass
class Stack:
    """A Compose project under test."""

    compose: DockerCompose
    project: str
    clone: Path
    pipeline: Pipeline
    page: str
    scratch: Path

    def run(self, *arguments: str) -> str:
        """Run a `docker compose` command on this project and return its output."""
        return _output([*self.compose.compose_command_property, *arguments], self.clone)

    def state(self) -> dict[str, tuple[str, str]]:
        """Return the state and health of each service."""
        lines = self.run("ps", "--all", "--format", "json").splitlines()
        containers = map(json.loads, lines)
        return {container["Service"]: (container["State"], container["Health"]) for container in containers}

    def containers(self, *services: str) -> list[str]:
        """Return the container ids of these services, or of all services."""
        return sorted(self.run("ps", "--quiet", "--no-trunc", *services).split())

    def inspect(self, *services: str) -> list[dict[str, Any]]:
        """Return the output of `docker inspect` for these services, or for all services."""
        containers: list[dict[str, Any]] = json.loads(_output(["docker", "inspect", *self.containers(*services)]))
        return containers

    def with_lake_copy(self) -> Pipeline:
        """Return the pipeline over a copy of the current warehouse."""
        target = self.scratch / f"copy-{time.monotonic_ns()}"
        target.mkdir()
        self.run("cp", "stream-processing:/data/warehouse", str(target))
        return Pipeline(self.pipeline.kafka, self.pipeline.es_url, self.pipeline.topic, target)

    def kill_9(self, service: str) -> None:
        """Kill the main process of a service from outside the container, as the OOM killer does."""
        os.kill(self.inspect(service)[0]["State"]["Pid"], signal.SIGKILL)

    def assert_removed(self, *kinds: str) -> None:
        """Assert that the project has no object of these kinds: container, network, volume."""
        for kind in kinds:
            command = ["docker", kind, "ls", "--quiet", "--filter", f"label={_LABEL}={self.project}"]
            assert _output([*command, "--all"] if kind == "container" else command) == "", kind


def _output(command: Sequence[str], cwd: Path | None = None) -> str:
    completed = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert completed.returncode == 0, f"{' '.join(command)}: {completed.stderr}"
    return completed.stdout


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository with permissions for its owner only, and build the images from the copy."""
    target = tmp_path_factory.mktemp("clone")
    for source in (path for pattern in _CLONED_PATHS for path in ROOT.glob(pattern)):
        if source.is_dir():
            shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    _output(["docker", "compose", "build"], target)
    return target


@contextmanager
def _compose_up(project: str, clone: Path, scratch: Path, *overlays: str, **settings: str) -> Iterator[Stack]:
    # Two runs of the suite can share a container engine.
    project += f"-{os.getpid()}"
    kafka_port, es_port, page_port, spark_port = (servers.free_port() for _ in range(4))
    environment = {
        "COMPOSE_PROJECT_NAME": project,
        "KAFKA_PORT": str(kafka_port),
        "ES_PORT": str(es_port),
        "PAGE_PORT": str(page_port),
        "SPARK_UI_PORT": str(spark_port),
        "PRODUCER_RATE": "0.01",
        "MATERIALISE_INTERVAL": "2",
        "LOOP_SLEEP": "0.2",
        **settings,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        compose = DockerCompose(clone, compose_file_name=["docker-compose.yml", *overlays], wait=True, services=STARTED)
        with compose:
            pipeline = Pipeline(f"localhost:{kafka_port}", f"http://localhost:{es_port}", "avroic", ROOT)
            stack = Stack(compose, project, clone, pipeline, f"http://localhost:{page_port}", scratch)
            try:
                yield stack
            finally:
                # The library removes the services that it started by name, and not those that these waited for.
                stack.run("down", "--volumes")
        stack.assert_removed("container", "network", "volume")


@pytest.fixture(scope="module")
def stack(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with _compose_up("streaming-analytics-test", clone, tmp_path_factory.mktemp("compose")) as stack:
        yield stack


@needs_container_engine
@pytest.mark.timeout(1800)
def test_all_services_are_healthy_after_the_first_up(stack: Stack) -> None:
    assert stack.state() == dict.fromkeys(STARTED, ("running", "healthy"))


@needs_container_engine
@pytest.mark.parametrize("service", STARTED)
def test_no_server_runs_as_root(stack: Stack, service: str) -> None:
    # An image may start its init process as root, and `docker exec` may run as root where the server does not.
    (container,) = stack.containers(service)
    _, *processes = _output(["docker", "top", container, "-eo", "pid,uid,comm"]).splitlines()
    users = {line.split()[2]: int(line.split()[1]) for line in processes if line.split()[2] != "tini"}
    assert users
    assert min(users.values()) > 0, users


@needs_container_engine
@pytest.mark.parametrize("service", STARTED)
def test_a_container_writes_only_its_data_and_has_no_capability(stack: Stack, service: str) -> None:
    (container,) = stack.inspect(service)
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["PidsLimit"] > 0
    # Root as well: `docker exec` may run as root where the server does not.
    command = ["docker", "exec", "--user", "root", container["Id"], "sh", "-c", "cat /proc/self/status; touch /written"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode != 0
    assert "Read-only file system" in completed.stderr
    status = dict(re.findall(r"^(CapBnd|CapEff|NoNewPrivs):\s+(\w+)$", completed.stdout, re.M))
    assert status == {"CapBnd": "0" * 16, "CapEff": "0" * 16, "NoNewPrivs": "1"}


@needs_container_engine
@pytest.mark.parametrize("service", [*SERVICES, PAGE])
def test_an_image_has_labels_and_no_code_that_its_user_can_change(stack: Stack, service: str) -> None:
    # Without the container's read-only root: the permissions in the image alone.
    image = stack.inspect(service)[0]["Config"]["Image"]
    search = ["find", "/app", "/opt", "/usr", "-writable", "-not", "-type", "l"]
    assert _output(["docker", "run", "--rm", "--entrypoint", search[0], image, *search[1:]]) == ""
    labels = json.loads(_output(["docker", "image", "inspect", image]))[0]["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"streaming-analytics/{service}"
    assert labels["org.opencontainers.image.licenses"] == "MIT"


@needs_container_engine
def test_a_second_up_or_build_changes_nothing(stack: Stack) -> None:
    images = ["docker", "images", "--all", "--quiet", "--no-trunc", "--filter", f"label={_LABEL}=streaming-analytics"]
    containers, built = stack.containers(), set(_output(images).split())
    assert built
    stack.run("up", "--detach", "--wait", *STARTED)
    assert stack.containers() == containers
    _output(["docker", "compose", "--project-name", "streaming-analytics", "build"], stack.clone)
    assert set(_output(images).split()) == built


@needs_container_engine
def test_volumes_are_named_after_the_project(stack: Stack) -> None:
    mounts = [mount for container in stack.inspect() for mount in container["Mounts"] if mount["Type"] == "volume"]
    expected = ("kafka", "elasticsearch", "elasticsearch-config", "lake", "producer", "scratch")
    assert {mount["Name"] for mount in mounts} == {f"{stack.project}_{name}" for name in expected}


@needs_container_engine
def test_documents_and_alerts_reach_elasticsearch(stack: Stack) -> None:
    def documents_and_alerts() -> None:
        assert len(stack.pipeline.documents("agg_interactions_user")) == 10
        assert len(stack.pipeline.documents("agg_interactions_item")) == 10
        assert len(stack.pipeline.documents("avg_interactions")) == 1
        assert any(alert["status"] == "firing" for alert in stack.pipeline.alerts())

    eventually(documents_and_alerts)


@needs_container_engine
def test_the_live_page_shows_services_rows_and_lake(stack: Stack) -> None:
    eventually(lambda: assert_more_than(stack.with_lake_copy().lake_count(), 100))
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


@needs_container_engine
def test_verify_compares_the_running_pipeline_in_a_container(stack: Stack) -> None:
    eventually(lambda: assert_more_than(stack.with_lake_copy().lake_count(), 100))
    output = stack.run("run", "--rm", "--no-deps", "verify")
    assert output.rstrip().endswith("nothing lost, nothing twice"), output


@needs_container_engine
def test_status_sees_the_whole_pipeline_from_a_container(stack: Stack) -> None:
    eventually(lambda: _assert_all_well(stack))


def _assert_all_well(stack: Stack) -> None:
    command = [*stack.compose.compose_command_property, "run", "--rm", "--no-deps", "status", "--json"]
    completed = subprocess.run(command, cwd=stack.clone, capture_output=True, text=True, check=False)
    report = json.loads(completed.stdout)
    assert report["problems"] == []
    assert completed.returncode == 0
    assert {part["name"] for part in report["parts"]} > {"Kafka", "Elasticsearch", "stream_processing"}
    # Where the broker's folder is, only the local stack knows.
    free = {disk["name"]: disk["free"] is not None for disk in report["disks"]}
    assert free == {"the lake": True, "Elasticsearch": True}


@needs_container_engine
@pytest.mark.parametrize("service", ["stream-processing", "elasticsearch-sink-alert"])
def test_a_killed_service_restarts_and_the_counts_stay_exact(stack: Stack, service: str) -> None:
    stack.kill_9(service)
    eventually(lambda: _assert_healthy(stack, service))
    stack.run("stop", "data-producer")
    sent = _sent(stack)
    eventually(lambda: _assert_tables(stack, sent))
    stack.run("start", "data-producer")


def _stop_within_12_seconds(stack: Stack, service: str) -> None:
    started = time.monotonic()
    stack.run("stop", "--timeout", "30", service)
    assert time.monotonic() - started < 12, service


@needs_container_engine
def test_services_stop_cleanly_within_ten_seconds_and_continue_with_their_data(stack: Stack) -> None:
    before = len(stack.pipeline.read("avroic"))
    for service in SERVICES:
        eventually(lambda service=service: _assert_healthy(stack, service))  # type: ignore[misc]
        _stop_within_12_seconds(stack, service)
    exit_codes = {line["Service"]: line["ExitCode"] for line in map(json.loads, _exited(stack))}
    assert exit_codes == dict.fromkeys(SERVICES, 0)
    for service in SERVICES:
        # Before the program handles signals.
        stack.run("start", service)
        _stop_within_12_seconds(stack, service)
    stack.run("down")
    stack.run("up", "--detach", "--wait", *STARTED)
    stack.run("stop", "data-producer")
    sent = _sent(stack)
    assert len(sent) > before
    eventually(lambda: _assert_tables(stack, sent))
    stack.run("start", "data-producer")


@needs_container_engine
def test_the_commands_of_the_sink_run_under_compose(stack: Stack) -> None:
    output = stack.run("run", "--rm", "-T", "elasticsearch-sink-alert", "check")
    assert "is valid: " in output
    assert "max_interactions > 12 [warning]: true of 10 rows" in output
    assert "no dead letters" in stack.run("run", "--rm", "-T", "elasticsearch-sink-alert", "dead-letters", "list")


@needs_container_engine
def test_unreadable_rules_fall_back_to_those_of_the_image_and_readable_ones_are_reloaded(stack: Stack) -> None:
    sink, rules = "elasticsearch-sink-alert", stack.clone / RULES
    assert "`chmod -R go+rX 03-ElasticsearchSink-Alert`" in stack.run("logs", sink)
    for path in (rules, rules.parent):
        path.chmod(0o755)
    stack.run("restart", sink)
    eventually(lambda: _assert_healthy(stack, sink))

    def is_firing(name: str) -> None:
        assert name in {alert["rule"] for alert in stack.pipeline.alerts() if alert["status"] == "firing"}

    # Most editors write a new file and rename it to the old name.
    for name in ("first edit", "second edit"):
        edited = rules.with_suffix(".new")
        rule = f"{{field: total_interactions, operator: '>', threshold: 1, name: {name}}}"
        edited.write_text(f"agg_interactions_user:\n  id: user_id\n  alerts:\n    - {rule}\n")
        edited.chmod(0o644)
        edited.replace(rules)
        eventually(lambda name=name: is_firing(name))  # type: ignore[misc]


@needs_container_engine
def test_losing_a_spark_worker_loses_no_data_and_down_stops_the_cluster(stack: Stack) -> None:
    settings = stack.clone / ".env"
    settings.write_text("DEPLOY_MODE=cluster\nCOMPOSE_PROFILES=${DEPLOY_MODE}\n")
    stack.run("up", "--detach", "--wait", "--scale", "spark-worker=2", *STARTED)
    assert set(CLUSTER) <= set(stack.state())
    before = len(stack.pipeline.alerts())
    lake = stack.with_lake_copy().lake_count()
    eventually(lambda: assert_more_than(stack.with_lake_copy().lake_count(), lake))
    stack.kill_9("spark-worker")
    stack.run("stop", "data-producer")
    sent = _sent(stack)
    eventually(lambda: _assert_tables(stack, sent))
    assert len(stack.pipeline.alerts()) >= before
    stack.run("down")
    stack.assert_removed("container", "network")
    settings.unlink()


@needs_container_engine
def test_with_a_recreated_kafka_the_stream_job_names_the_compose_command_that_lets_it_continue(stack: Stack) -> None:
    stack.run("down")
    _output(["docker", "volume", "rm", f"{stack.project}_kafka"])
    stack.run("up", "--detach", *STARTED)
    command: list[str] = []

    def log_names_the_command() -> None:
        command[:] = re.findall(r"`docker compose (run --rm [^`]+)`", stack.run("logs", "stream-processing"))[:1]
        assert command

    eventually(log_names_the_command)
    stack.run(*command[0].split())
    eventually(lambda: _assert_healthy(stack, "stream-processing"))
    before = stack.with_lake_copy().lake_count()
    eventually(lambda: assert_more_than(stack.with_lake_copy().lake_count(), before))
    stack.run("stop", "data-producer")
    eventually(lambda: _assert_tables_follow_from_lake(stack))
    _assert_healthy(stack, "stream-processing")


@needs_container_engine
@pytest.mark.timeout(900)
def test_with_the_secure_overlay_each_service_does_its_work_with_its_own_rights_over_tls(
    clone: Path, tmp_path: Path
) -> None:
    """Covers Kafka and the live page: the Elasticsearch image of the tests may lack the security features.

    Docker passes the user's proxy settings to every container; nothing listens at this proxy's address.
    """
    addresses = dict.fromkeys(("httpProxy", "httpsProxy", "allProxy"), "http://127.0.0.1:9")
    (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": addresses}}))
    shutil.copy(ROOT / "tests/compose" / _PLAIN, clone)
    overlays, proxies = ("compose.secure.yml", _PLAIN), {"DOCKER_CONFIG": str(tmp_path)}
    with _compose_up("streaming-analytics-secure", clone, tmp_path, *overlays, **proxies) as secure:
        assert all("http_proxy=http://127.0.0.1:9" in container["Config"]["Env"] for container in secure.inspect())
        eventually(lambda: _assert_ten_users(secure))
        passwords = {user: secure.run("exec", "-T", *of, "cat", *file) for user, (of, file) in _PASSWORD_FILES.items()}
        every = secure.run("ps", "--all", "--quiet", "--no-trunc").split()
        inspected = _output(["docker", "inspect", *every])
        assert not [user for user, password in passwords.items() if password in inspected]
        _assert_kafka_refuses_what_a_user_has_no_right_to(secure, passwords, tmp_path)
        # A second run finds the rights as they are.
        secure.run("start", "kafka-access")
        eventually(lambda: _assert_logged(secure, "kafka-access", ": 0 new, 0 removed"))
        assert "nothing lost, nothing twice" in secure.run("run", "--rm", "--no-deps", "verify")
        _assert_page_needs_its_password(secure.page, passwords["page"])
        for service in SERVICES:
            refused = re.findall(
                r"^.*(?:authori[sz]ation[ _]failed|not authori[sz]ed).*$", secure.run("logs", service), re.I | re.M
            )
            assert refused == []


def _assert_logged(stack: Stack, service: str, text: str) -> None:
    assert text in stack.run("logs", service)


_PLAIN = "elasticsearch_without_security.yml"
_PASSWORD_FILES = {
    "producer": (["data-producer"], ["/run/secrets/kafka_password"]),
    "sink": (["elasticsearch-sink-alert"], ["/run/secrets/kafka_password"]),
    "page": (["live-page"], ["/run/secrets/page_password"]),
}


def _assert_kafka_refuses_what_a_user_has_no_right_to(stack: Stack, passwords: dict[str, str], folder: Path) -> None:
    certificate = folder / "ca.pem"
    certificate.write_text(stack.run("exec", "-T", "data-producer", "cat", "/run/secrets/ca.pem"))
    broker: dict[str, str | int | float] = {"bootstrap.servers": stack.pipeline.kafka, "log_level": 0}
    tls: dict[str, str | int | float] = {"security.protocol": "SASL_SSL", "ssl.ca.location": str(certificate)}
    tls |= {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "producer"}
    producer = {**broker, **tls, "sasl.password": passwords["producer"]}
    plain = {"security.protocol": "SASL_PLAINTEXT"}
    # The producer sees its own topic alone.
    assert set(AdminClient(producer).list_topics(timeout=20).topics) == {"avroic"}
    for wrong in (
        broker,
        {**producer, "sasl.password": "guessed"},
        {**producer, **plain},
        {**producer, "sasl.username": "sink"},
    ):
        with pytest.raises(KafkaException):
            AdminClient(wrong).list_topics(timeout=3)
    # Whoever trusts other authorities does not send its password here.
    with pytest.raises(KafkaException):
        AdminClient({**producer, "ssl.ca.location": "/etc/ssl/certs/ca-certificates.crt"}).list_topics(timeout=3)
    assert [_send(producer, topic) for topic in ("avroic_aggregated", "another", "avroic")] == [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        None,
    ]


def _send(client: Mapping[str, str | int | float], topic: str) -> int | None:
    """Send a record that is no interaction, and return the code of Kafka's refusal."""
    errors: list[KafkaError | None] = []
    sender = Producer({**client, "message.timeout.ms": 10_000})
    sender.produce(topic, b"no interaction", on_delivery=lambda error, _: errors.append(error))
    assert sender.flush(15) == 0
    (error,) = errors
    return error.code() if error else None


def _assert_page_needs_its_password(page: str, password: str) -> None:
    assert requests.get(f"{page}/health", timeout=10).status_code == 200
    for path in ("/", "/lake", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"):
        assert requests.get(page + path, timeout=10).status_code == 401
        assert requests.get(page + path, auth=("page", "guessed"), timeout=10).status_code == 401
        assert requests.get(page + path, auth=("page", password), timeout=10).status_code == 200
    # The socket as well: without it nothing is drawn.
    with chromium() as browser:
        context = browser.new_context(base_url=page, http_credentials={"username": "page", "password": password})
        shown = context.new_page()
        shown.goto("/users")
        expect(shown.locator("tbody tr")).to_have_count(10, timeout=60_000)
        context.close()


_COUNT_USERS = "http://localhost:9200/agg_interactions_user/_count"


def _assert_ten_users(stack: Stack) -> None:
    curl = ["curl", "--noproxy", "*", "-s", _COUNT_USERS]
    assert json.loads(stack.run("exec", "-T", "elasticsearch", *curl))["count"] == 10


def _exited(stack: Stack) -> list[str]:
    return stack.run("ps", "--all", "--status", "exited", "--format", "json").splitlines()


def _assert_healthy(stack: Stack, service: str) -> None:
    assert stack.state().get(service) == ("running", "healthy")


def _sent(stack: Stack) -> list[Interaction]:
    """Read all interactions of the topic; the producer has to be stopped."""
    return [Interaction(**json.loads(message.value() or b"")) for message in stack.pipeline.read("avroic")]


def _assert_tables_follow_from_lake(stack: Stack) -> None:
    """Assert the tables against the interactions of the lake: a recreated Kafka no longer holds all of them."""
    lake = stack.with_lake_copy()
    rows = lake.lake_rows("SELECT * FROM interactions")
    expected = reference_tables(
        [Interaction(**{**row, "timestamp": int(row["timestamp"].timestamp())}) for row in rows]
    )
    assert lake.lake_tables() == expected
    assert stack.pipeline.topic_tables() == expected
    assert stack.pipeline.index_tables() == expected


def _assert_tables(stack: Stack, sent: list[Interaction]) -> None:
    expected = reference_tables(sent)
    assert stack.pipeline.topic_tables() == expected
    assert stack.pipeline.index_tables() == expected
    lake = stack.with_lake_copy()
    assert lake.lake_count() == len(sent)
    assert lake.lake_tables() == expected
