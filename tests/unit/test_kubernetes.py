"""deploy/kubernetes: what the manifests say is valid, hardened, and agrees with Compose and with the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from elasticsearch_sink_alert.indexing.index_templates import mappings, write_alias
from ruamel.yaml import YAML

from access.elasticsearch_rights import reader, writer
from access.kafka_rights import rights
from contract.topics import aggregated_topic, dead_letter_topic, interactions_topic
from runtime.kafka_client import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

YAML_READER: Final = YAML(typ="safe")
ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "deploy/kubernetes"
KUSTOMIZATION: Final[dict[str, Any]] = YAML_READER.load((FOLDER / "kustomization.yaml").read_text())
COMPOSE: Final[dict[str, Any]] = YAML_READER.load((ROOT / "docker-compose.yml").read_text())["services"]
SETTINGS: Final = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
PORTS: Final = {
    "data-producer": 9101,
    "stream-processing": 9102,
    "elasticsearch-sink-alert": 9103,
    "live-page": 8090,
}
KUBERNETES: Final = "1.34"

Document = dict[str, Any]

RESOURCES: Final[list[Document]] = [
    document for name in KUSTOMIZATION["resources"] for document in YAML_READER.load_all((FOLDER / name).read_text())
]
CORE: Final = [each for each in RESOURCES if not re.search(r"strimzi\.io|elastic\.co", each["apiVersion"])]


def _name(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def _of_kind(*kinds: str) -> list[Document]:
    return [each for each in RESOURCES if each["kind"] in kinds]


WORKLOADS: Final = _of_kind("Deployment", "StatefulSet")


def _container(workload: Document) -> Document:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    found: Document = container
    return found


def _config(name: str) -> dict[str, str]:
    found: dict[str, str] = next(each["data"] for each in _of_kind("ConfigMap") if each["metadata"]["name"] == name)
    return found


def _environment(workload: Document) -> dict[str, str]:
    container = _container(workload)
    return {
        **{
            name: value
            for source in container["envFrom"]
            for name, value in _config(source["configMapRef"]["name"]).items()
        },
        **{each["name"]: each["value"] for each in container["env"]},
    }


def test_every_file_that_kustomize_reads_exists_and_none_is_left_out() -> None:
    listed = set(KUSTOMIZATION["resources"])
    assert listed == {each.name for each in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    for generator in KUSTOMIZATION["configMapGenerator"]:
        for file in generator["files"]:
            assert (FOLDER / file).is_file(), file
    assert len({_name(each) for each in RESOURCES if each["kind"] != "Service"}) == len(
        [each for each in RESOURCES if each["kind"] != "Service"]
    )


@pytest.mark.parametrize("document", CORE, ids=_name)
def test_a_resource_has_only_the_fields_of_its_schema(document: Document) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_an_unknown_field_is_an_error() -> None:
    wrong = {**WORKLOADS[0], "spec": {**WORKLOADS[0]["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_workloads_are_the_services_of_compose_with_its_images_and_memory() -> None:
    assert {each["metadata"]["name"] for each in WORKLOADS} == set(PORTS)
    for workload in WORKLOADS:
        name, container = workload["metadata"]["name"], _container(workload)
        assert container["image"] == COMPOSE[name]["image"]
        (megabytes,) = re.findall(r"(\d+)m\}?$", COMPOSE[name]["mem_limit"])
        assert container["resources"]["limits"]["memory"] == f"{megabytes}Mi"
        assert container["resources"]["requests"]["memory"] == f"{megabytes}Mi"
    assert {each["name"] for each in KUSTOMIZATION["images"]} == {COMPOSE[name]["image"] for name in PORTS}


@pytest.mark.parametrize("workload", WORKLOADS, ids=_name)
def test_a_container_can_do_no_more_than_under_compose(workload: Document) -> None:
    pod = workload["spec"]["template"]["spec"]
    (uid,) = set(re.findall(r"--uid (\d+)", (ROOT / "live_page/Dockerfile").read_text()))
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(uid),
        "runAsGroup": int(uid),
        "fsGroup": int(uid),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert _container(workload)["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("workload", WORKLOADS, ids=_name)
def test_a_service_is_probed_on_the_port_of_its_health(workload: Document) -> None:
    name, container = workload["metadata"]["name"], _container(workload)
    assert container["ports"] == [{"name": "http", "containerPort": PORTS[name]}]
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"] == {"port": "http"}
    annotations = workload["spec"]["template"]["metadata"].get("annotations", {})
    assert annotations.get("prometheus.io/port") == (None if name == "live-page" else str(PORTS[name]))
    (service,) = [each for each in _of_kind("Service") if each["metadata"]["name"] == name]
    assert service["spec"]["selector"] == {"app.kubernetes.io/name": name}
    assert service["spec"]["ports"] == [{"name": "http", "port": PORTS[name], "targetPort": "http"}]


@pytest.mark.parametrize("workload", WORKLOADS, ids=_name)
def test_every_variable_is_a_setting_of_this_service_under_compose_or_of_a_secured_one(workload: Document) -> None:
    environment = _environment(workload)
    # Spark's own, which Compose sets too.
    assert set(environment) - SETTINGS <= {"SPARK_LOCAL_DIRS"}
    secured = {name for name in environment if name.startswith(("KAFKA_", "ES_", "PAGE_"))}
    assert set(environment) - secured <= set(COMPOSE[workload["metadata"]["name"]]["environment"]) | {"PIPELINE"}


@pytest.mark.parametrize("workload", WORKLOADS, ids=_name)
def test_every_mounted_volume_exists_and_every_password_is_a_file_of_a_secret(workload: Document) -> None:
    pod = workload["spec"]["template"]["spec"]
    claims = [each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])]
    assert {each["name"] for each in _container(workload)["volumeMounts"]} == {
        *(each["name"] for each in pod["volumes"]),
        *claims,
    }
    (secrets,) = [each["projected"] for each in pod["volumes"] if each["name"] == "secrets"]
    user = _environment(workload)["KAFKA_USERNAME"]
    assert secrets["sources"][0]["secret"]["name"] == user
    assert user in {each["metadata"]["name"] for each in _of_kind("KafkaUser")}
    files = {item["path"] for source in secrets["sources"] for item in source["secret"]["items"]}
    assert {f"/run/secrets/{file}" for file in files} >= {
        value for name, value in _environment(workload).items() if name.endswith("CA_FILE")
    }
    assert not any("PASSWORD" in name for name in _environment(workload))


def test_the_stream_job_is_one_pod_with_a_volume_that_stays() -> None:
    (stream,) = _of_kind("StatefulSet")
    assert stream["spec"]["replicas"] == 1
    mounts = {each["mountPath"]: each["name"] for each in _container(stream)["volumeMounts"]}
    assert mounts["/data"] == stream["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    for location in ("WAREHOUSE", "CHECKPOINTS"):
        assert _environment(stream)[location].startswith("/data/")


def test_the_topics_are_those_that_the_services_would_create() -> None:
    settings = _config("settings")
    wanted = SimpleNamespace(
        kafka_topic=settings["KAFKA_TOPIC"],
        kafka_topic_partition=int(settings["KAFKA_TOPIC_PARTITION"]),
        kafka_topic_replication_factor=int(settings["KAFKA_TOPIC_REPLICATION_FACTOR"]),
    )
    declared = {
        each["spec"]["topicName"]: (
            each["spec"]["partitions"],
            each["spec"]["replicas"],
            {name: str(value) for name, value in each["spec"]["config"].items()},
        )
        for each in _of_kind("KafkaTopic")
    }
    topics = (interactions_topic(wanted), aggregated_topic(wanted), dead_letter_topic(wanted))
    assert declared == {each.name: (each.partitions, each.replication_factor, each.config) for each in topics}


def _granted() -> Iterator[AclBinding]:
    for user in _of_kind("KafkaUser"):
        for acl in user["spec"]["authorization"]["acls"]:
            resource = acl["resource"]
            pattern = {"literal": ResourcePatternType.LITERAL, "prefix": ResourcePatternType.PREFIXED}
            for operation in acl["operations"]:
                yield AclBinding(
                    ResourceType[resource["type"].upper()],
                    resource["name"],
                    pattern[resource["patternType"]],
                    f"User:{user['metadata']['name']}",
                    "*",
                    AclOperation[re.sub(r"(?<!^)(?=[A-Z])", "_", operation).upper()],
                    AclPermissionType.ALLOW,
                )


def test_the_users_of_kafka_have_the_rights_of_the_secure_overlay() -> None:
    wanted = rights("avroic", _config("search-settings")["KAFKA_GROUP_ID"])
    # Kafka UI is not deployed here.
    assert set(_granted()) == {each for each in wanted if each.principal != "User:kafka-ui"}


def test_the_roles_of_elasticsearch_are_those_of_the_secure_overlay() -> None:
    (secret,) = _of_kind("Secret")
    indices = [index for index, _ in mappings()]
    wanted = {"sink": writer(indices, [write_alias(index) for index in indices]), "page": reader(indices)}
    assert YAML_READER.load(secret["stringData"]["roles.yml"]) == {
        name: {"cluster": role["cluster"], "indices": role["index"]} for name, role in wanted.items()
    }


def test_the_servers_have_the_versions_and_memory_of_compose() -> None:
    (kafka,) = _of_kind("Kafka")
    assert COMPOSE["kafka"]["image"] == f"apache/kafka:{kafka['spec']['kafka']['version']}"
    (pool,) = _of_kind("KafkaNodePool")
    assert pool["spec"]["resources"]["limits"]["memory"] == COMPOSE["kafka"]["mem_limit"].replace("m", "Mi")
    for name, kind, limit in (("elasticsearch", "Elasticsearch", "1Gi"), ("kibana", "Kibana", "1200Mi")):
        (server,) = _of_kind(kind)
        assert COMPOSE[name]["image"] == f"{name}:{server['spec']['version']}"
        template = server["spec"]["nodeSets"][0] if kind == "Elasticsearch" else server["spec"]
        (container,) = template["podTemplate"]["spec"]["containers"]
        assert container["resources"]["limits"]["memory"] == limit
        assert limit == {"1g": "1Gi", "1200m": "1200Mi"}[COMPOSE[name]["mem_limit"]]


def test_only_the_live_page_and_prometheus_reach_the_health_of_a_service() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in _of_kind("NetworkPolicy")}
    for name in set(PORTS) - {"live-page"}:
        (rule,) = policies[name]["ingress"]
        assert policies[name]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": name}}
        assert rule["ports"] == [{"protocol": "TCP", "port": PORTS[name]}]
        assert rule["from"] == [
            {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "live-page"}}},
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
        ]
    assert "ingress" not in policies["services"]
    for workload in WORKLOADS:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "streaming-analytics"
