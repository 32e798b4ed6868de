"""Tests the Compose files as `docker compose config` resolves them; no container runs."""

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from data_producer.settings import ProducerSettings
from elasticsearch_sink_alert.settings import SinkSettings
from stream_processing.settings import StreamProcessingSettings

from live_page.settings import PageSettings
from local_stack.services import ROOT
from observer.settings import StatusSettings
from runtime import dotenv
from runtime.settings import Settings
from tests.servers import has_container_engine
from verify.settings import VerifySettings

pytestmark = pytest.mark.skipif(not has_container_engine(), reason="no container engine answers")

BASE, CLUSTER, SECURE = ("docker-compose.yml",), ("compose.cluster.yml",), ("compose.secure.yml",)
SERVICES: dict[str, type[Settings]] = {
    "data-producer": ProducerSettings,
    "stream-processing": StreamProcessingSettings,
    "elasticsearch-sink-alert": SinkSettings,
    "live-page": PageSettings,
}
FIXED = {
    # Addresses and ports in the network of the containers.
    "KAFKA_BROKER", "ES_HOST", "METRICS_HOST", "PRODUCER_METRICS_PORT", "STREAM_METRICS_PORT", "SINK_METRICS_PORT",
    "PAGE_HOST", "PAGE_PORT", "PRODUCER_URL", "STREAM_URL", "SINK_URL",
    # The secure overlay decides which servers require a login, and sets these or leaves them to its files.
    "KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM", "KAFKA_USERNAME", "KAFKA_PASSWORD", "KAFKA_CA_FILE",
    "ES_USERNAME", "ES_PASSWORD", "ES_API_KEY", "ES_CA_FILE", "PAGE_USER", "PAGE_PASSWORD",
    # Files of the images or mounted ones.
    "SPARK_JARS", "CLASS_ARCHIVE", "DATA_MAPPER", "PIPELINE", "PRODUCER_SOURCE", "PRODUCER_POSITION",
    # A local stack's.
    "PROCESSES_FILE",
}  # fmt: skip
"""Settings that the Compose files set themselves, or leave out."""


def config(*overlays: str, env_file: Path | None = None, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the services as Compose would start them."""
    files = [argument for file in (*BASE, *overlays) for argument in ("-f", str(ROOT / file))]
    command = ["docker", "compose", "--env-file", str(env_file or os.devnull), *files, "config", "--format", "json"]
    names = set(dotenv.known_names())
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    completed = subprocess.run(
        command, cwd=ROOT, env={**inherited, **(environment or {})}, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    assert not completed.stderr
    services: dict[str, Any] = json.loads(completed.stdout)["services"]
    return services


def memory_limit(services: dict[str, Any]) -> int:
    return sum(int(service["mem_limit"]) for service in services.values())


@pytest.mark.parametrize(
    "overlays",
    [(), CLUSTER, SECURE, (*CLUSTER, *SECURE)],
    ids=["no overlay", "cluster", "secure", "cluster and secure"],
)
def test_every_overlay_is_valid(overlays: tuple[str, ...]) -> None:
    for name, service in config(*overlays).items():
        assert "healthcheck" in service or name in SERVICES, name  # The services' images declare theirs.
        assert int(service["mem_limit"]) > 0
        assert service["logging"]["options"]["max-size"]
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
        assert ":" in service["image"] or service["image"].startswith("streaming-analytics/")


def test_every_container_gives_up_what_it_does_not_need() -> None:
    services = config(*SECURE, environment={"COMPOSE_PROFILES": "cluster,status,verify,observability"})
    assert {"spark-master", "status", "verify", "kibana", "kafka-ui", "grafana"} < set(services)
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        # These two give files to the users of other containers.
        assert service.get("cap_add", []) == (["CHOWN"] if name in ("secrets", "elasticsearch-access") else []), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert 0 < service["pids_limit"] <= 2048, name
        # The images of these two start with an init process of their own.
        assert service["init"] is (name not in ("elasticsearch", "kibana")), name
        assert any(folder.partition(":")[0] == "/tmp" for folder in service["tmpfs"]), name


def test_memory_limits_fit_into_eight_gigabytes_and_the_cluster_is_opt_in() -> None:
    services = config()
    assert memory_limit(services) < 7 * 2**30
    assert {"kibana", "kafka-ui", "live-page"} < set(services)
    assert not {"spark-master", "spark-worker"} & set(services)


def test_prometheus_and_grafana_are_opt_in_and_scrape_the_services_by_their_names() -> None:
    plain, services = config(), config(environment={"COMPOSE_PROFILES": "observability"})
    added = services.keys() - plain.keys()
    assert added == {"prometheus", "alertmanager", "grafana"}
    assert memory_limit({name: services[name] for name in added}) < 0.9 * 2**30
    assert all(services[name]["healthcheck"] and services[name]["logging"] for name in added)
    targets = re.findall(r"targets: \[([\w-]+):\d+\]", (ROOT / "observability/prometheus.yml").read_text())
    assert set(targets) == set(SERVICES) | {"alertmanager"}


@pytest.mark.parametrize("option", [".env", "profile", "overlay"])
def test_the_cluster_is_enabled_by_each_option(option: str, tmp_path: Path) -> None:
    if option == "overlay":
        services = config(*CLUSTER)
    elif option == "profile":
        services = config(environment={"DEPLOY_MODE": "cluster", "COMPOSE_PROFILES": "cluster"})
    else:
        file = tmp_path / ".env"
        file.write_text((ROOT / ".env.example").read_text().replace("DEPLOY_MODE=client", "DEPLOY_MODE=cluster"))
        services = config(env_file=file)
    assert {"spark-master", "spark-worker"} < set(services)
    assert services["stream-processing"]["environment"]["DEPLOY_MODE"] == "cluster"


def test_each_image_is_built_by_exactly_one_service() -> None:
    services = config(*CLUSTER).values()
    built = [service["image"] for service in services if "build" in service]
    assert sorted(built) == sorted(set(built))
    assert {service["image"] for service in services if service["image"].startswith("streaming-")} == set(built)


def test_the_bake_file_builds_the_images_of_compose_from_the_same_files() -> None:
    baked = dict(re.findall(r'^ +([\w-]+) += "(\S+/Dockerfile)"$', (ROOT / "docker-bake.hcl").read_text(), re.M))
    services = [service for service in config().values() if "build" in service]
    assert {service["image"].partition("/")[2]: service["build"]["dockerfile"] for service in services} == baked


def test_verify_runs_on_demand_with_the_servers_and_passwords_of_the_others() -> None:
    assert "verify" not in config(*SECURE)
    services = config(*SECURE, environment={"COMPOSE_PROFILES": "verify"})
    verify, page = services["verify"]["environment"], services["live-page"]["environment"]
    assert {name: value for name, value in verify.items() if name in page} == {
        name: value for name, value in verify.items() if name != "TMPDIR"
    }
    assert {name.upper() for name in VerifySettings.model_fields} - {
        "ES_USERNAME",
        "ES_PASSWORD",
        "ES_API_KEY",
    } <= verify.keys() | {name.upper() for name in Settings.model_fields} | {"KAFKA_GROUP_ID", "ES_CA_FILE"}
    writable = [volume["target"] for volume in services["verify"]["volumes"] if not volume.get("read_only")]
    assert writable == [verify["TMPDIR"]]


def test_status_runs_on_demand_with_the_servers_and_passwords_of_the_others() -> None:
    assert "status" not in config(*SECURE)
    environment = {"COMPOSE_PROFILES": "status", "PRODUCER_LIMIT": "7", "PRODUCER_SOURCE": "a.csv"}
    services = config(*SECURE, environment=environment)
    status, page = services["status"]["environment"], services["live-page"]["environment"]
    shared = {name: value for name, value in status.items() if name not in ("PRODUCER_LIMIT", "PRODUCER_SOURCE")}
    assert {name: value for name, value in page.items() if name in shared} == shared
    assert (status["PRODUCER_LIMIT"], status["PRODUCER_SOURCE"]) == ("7", "a.csv")
    own = {name.upper() for name in StatusSettings.model_fields} - {name.upper() for name in Settings.model_fields}
    assert own - {"ES_USERNAME", "ES_PASSWORD", "ES_API_KEY", "DATA_MAPPER"} <= status.keys()
    assert all(volume["read_only"] for volume in services["status"]["volumes"])


def test_a_copy_of_the_example_env_file_changes_nothing() -> None:
    assert config(env_file=ROOT / ".env.example") == config()


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_reaches_the_service_that_reads_it(service: str) -> None:
    names = {name.upper() for name in SERVICES[service].model_fields}
    values = {name: f"the {name}" for name in names} | {"PAGE_PORT": "20000"}
    received = config(*SECURE, environment=values)[service]["environment"]
    assert {name for name in names if received.get(name) != values[name]} == names & FIXED


@pytest.mark.parametrize("source", ["examples/replay/shop_events.csv.gz", "./a b/events.csv", "/recorded/events.csv"])
def test_a_recorded_file_is_mounted_read_only_where_the_producer_reads_it(source: str) -> None:
    producer = config(environment={"PRODUCER_SOURCE": source})["data-producer"]
    (mount,) = (volume for volume in producer["volumes"] if volume["target"].startswith("/recording/"))
    assert mount["source"] == str((ROOT / source).resolve())
    assert mount["read_only"] is True
    assert os.path.normpath(mount["target"]) == os.path.normpath(producer["environment"]["PRODUCER_SOURCE"])
    assert not config()["data-producer"]["environment"]["PRODUCER_SOURCE"]


def test_published_ports_are_settings_and_kafka_advertises_its_own() -> None:
    names = {
        "kafka": "KAFKA_PORT", "kafka-ui": "KAFKA_UI_PORT", "elasticsearch": "ES_PORT", "kibana": "KIBANA_PORT",
        "live-page": "PAGE_PORT", "spark-master": "SPARK_UI_PORT", "prometheus": "PROMETHEUS_PORT",
        "alertmanager": "ALERTMANAGER_PORT", "grafana": "GRAFANA_PORT",
    }  # fmt: skip
    ports = {name: str(20_000 + n) for n, name in enumerate(names.values())}
    services = config(*CLUSTER, environment={**ports, "COMPOSE_PROFILES": "observability"})
    published = {name: service["ports"][0]["published"] for name, service in services.items() if "ports" in service}
    assert published == {service: ports[name] for service, name in names.items()}
    assert f"OUTSIDE://localhost:{ports['KAFKA_PORT']}" in str(services["kafka"]["environment"])
    sink = services["elasticsearch-sink-alert"]["environment"]
    assert sink["KIBANA_URL"] == f"http://localhost:{ports['KIBANA_PORT']}"


@pytest.mark.parametrize("value", ["pa${x}ss", "$", "$$HOME", "a #b", "#", ' "quoted" ', "50%", "{{x}}", "a=b", "ü"])
def test_a_single_quoted_value_is_the_same_with_and_without_compose(value: str, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"AWS_SECRET_ACCESS_KEY='{value}'\n")
    environment = config(env_file=file)["stream-processing"]["environment"]
    # `docker compose config` prints a $ as $$, so that Compose can read its output.
    assert environment["AWS_SECRET_ACCESS_KEY"].replace("$$", "$") == value
    assert dotenv.read(file, ()).values["AWS_SECRET_ACCESS_KEY"] == value


def test_in_the_secure_overlay_each_service_has_a_user_and_secrets_of_its_own_and_none_in_its_variables() -> None:
    services = config(*SECURE, environment={"COMPOSE_PROFILES": "cluster,status,verify"})
    users, mounts = {}, {}
    for name, service in services.items():
        environment = service.get("environment", {})
        assert not [each for each in environment if each.endswith(("PASSWORD", "API_KEY")) and environment[each]], name
        if "KAFKA_SASL_MECHANISM" in environment:
            assert environment["KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
            users[name] = environment["KAFKA_USERNAME"]
        mounts[name] = [each["source"] for each in service.get("volumes", []) if each["target"] == "/run/secrets"]
    assert users == {
        "data-producer": "producer", "stream-processing": "stream", "elasticsearch-sink-alert": "sink",
        "live-page": "page", "status": "page", "verify": "page",
    }  # fmt: skip
    assert {name: [f"secrets-{user}"] for name, user in users.items()}.items() <= mounts.items()
    # Only the services of one user share secrets.
    shared = Counter(source for sources in mounts.values() for source in sources)
    assert {source for source, count in shared.items() if count > 1} == {"secrets-page", "secrets-stream"}
    assert mounts["spark-worker"] == ["secrets-stream"]
