"""Everything listens on localhost only, and no server lets another site's page read its answers."""

import re
from typing import Any

import pytest
from elasticsearch_sink_alert.settings import SinkSettings
from ruamel.yaml import YAML

from live_page.settings import PageSettings
from local_stack import servers
from local_stack.services import ROOT

COMPOSE_FILES = sorted(file.name for file in ROOT.glob("*compose*.yml"))
LOCALHOST = "127.0.0.1"


def _services(file: str) -> dict[str, Any]:
    services: dict[str, Any] = YAML().load(ROOT / file)["services"]
    return services


def _published() -> list[str]:
    return [port for file in COMPOSE_FILES for service in _services(file).values() for port in service.get("ports", [])]


def test_compose_publishes_ports_on_localhost_only() -> None:
    ports = _published()
    assert len(ports) == 9
    assert [port for port in ports if not port.startswith(f"{LOCALHOST}:")] == []
    services = [service for file in COMPOSE_FILES for service in _services(file).values()]
    assert {service.get("network_mode", "default") for service in services} == {"default", "none"}


def test_the_threat_model_names_every_published_port() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text()
    inside = [port.rsplit(":", 1)[1] for port in _published()]
    settings = (SinkSettings(), PageSettings())
    own = [value for each in settings for name, value in each if name.endswith("_port")]
    assert own
    assert [port for port in (*inside, *map(str, own)) if not re.search(rf"\b{port}\b", text)] == []


def test_services_listen_on_localhost_by_default() -> None:
    assert SinkSettings().metrics_host == LOCALHOST
    assert PageSettings().page_host == LOCALHOST


def test_the_servers_of_the_local_stack_listen_on_localhost_only() -> None:
    elasticsearch = YAML(typ="safe").load(
        servers._render("elasticsearch.yml", port=9200, transport_port=9300, data='"data"', logs='"logs"')
    )
    hosts = {name: value for name, value in elasticsearch.items() if name.endswith("host")}
    assert hosts == {"network.host": LOCALHOST}
    kafka = servers._render("kafka-server.properties", port=9092, controller_port=9093, logs="logs")
    # Without a host, a listener has all addresses.
    assert re.findall(r"(?:://|@)([^:]*):", kafka) == [LOCALHOST] * 4


@pytest.mark.parametrize("file", ["local_stack/templates/elasticsearch.yml", *COMPOSE_FILES])
def test_elasticsearch_lets_no_other_site_read_its_answers(file: str) -> None:
    assert "http.cors" not in (ROOT / file).read_text()
