"""The plan of one run: its data folder, its ports, and the settings that follow for the services."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from contract import declared
from local_stack import servers, services
from observer.demo_rules import DEMO_RULES
from observer.settings import default_data
from runtime import dotenv, listening
from runtime.addresses import quoted

DEMO_SERVICES = (services.PAGE, services.STREAM, services.SINK, services.PRODUCER)
"""The services that the demo starts."""
DEFAULT_DATA = services.ROOT / default_data()
"""The default folder of all data."""
_DEFAULTS = {"PRODUCER_RATE": "0.02", "PRODUCER_CONTROLS": "true"}
"""Used unless the user sets them: 50 interactions a second, and the page's controls are on."""
_DEMO_DATA = {
    "PRODUCER_RATE": "0.005",
    "PRODUCER_WAVE": "180",
    "RANDOM_DATA_MAX_USERS": "1000",
    "RANDOM_DATA_MAX_ITEMS": "200",
    "RANDOM_DATA_SKEW": "1",
    "DATA_MAPPER": str(DEMO_RULES),
}
"""The same for random data of the default declaration: a shop in which something happens, and rules that notice it."""
_KAFKA_PORT = 9092
_ES_PORT = 9200
_URL_SETTINGS = {"PRODUCER": services.PRODUCER, "STREAM": services.STREAM, "SINK": services.SINK}


class StackError(Exception):
    """The stack cannot run; the message has the reason and the remedy, with a line for each if there are several."""


class NotEverythingError(Exception):
    """Not every record that was sent is in the lake and in the indices, after the time to drain."""


class StoppedEarlyError(Exception):
    """A part of the stack has ended after everything was ready; the message has the reason and the remedy."""


@dataclass(frozen=True)
class Plan:
    """The data folder, addresses, ports and duration of a run.

    Raises `StackError` if a port of the settings is not a number, or an address is none.
    """

    data: Path
    kafka_port: int = _KAFKA_PORT
    es_port: int = _ES_PORT
    service_ports: Mapping[str, int] = field(default_factory=lambda: {s.package: _port_of(s) for s in DEMO_SERVICES})
    """Ports of the page and of each service's /health and /metrics, by package."""
    hosts: Mapping[str, str] = field(default_factory=lambda: {s.host_setting: _host_of(s) for s in DEMO_SERVICES})
    """Addresses that the services listen on, by setting."""
    seconds: float | None = None
    """How long to run; until it is stopped if None."""
    view: bool = True
    """Whether to show the live view in the terminal and open the page in a browser."""

    def with_free_ports(self) -> "Plan":
        """Return the same plan with ports that nothing listens on."""
        ports = {package: servers.free_port() for package in self.service_ports}
        return replace(self, kafka_port=servers.free_port(), es_port=servers.free_port(), service_ports=ports)

    @property
    def kafka_broker(self) -> str:
        """Kafka's address, host:port."""
        return f"{servers.HOST}:{self.kafka_port}"

    @property
    def es_host(self) -> str:
        """Elasticsearch's URL."""
        return f"http://{servers.HOST}:{self.es_port}"

    @property
    def verify_command(self) -> str:
        """The command that compares everything that this run has stored."""
        return self._make("verify", {})

    @property
    def status_command(self) -> str:
        """The command that shows what needs attention in this run."""
        usual = {name: listening.url(servers.HOST, service.port) for name, service in _URL_SETTINGS.items()}
        urls = {name: self.service_urls[service.package] for name, service in _URL_SETTINGS.items()}
        return self._make("status", {} if urls == usual else {f"{name}_URL": url for name, url in urls.items()})

    def _make(self, target: str, settings: Mapping[str, str]) -> str:
        """Return the command line with these settings, those of the servers unless they are the default ones."""
        is_default = (self.kafka_port, self.es_port, self.data) == (_KAFKA_PORT, _ES_PORT, DEFAULT_DATA)
        warehouse = _from_the_clone(self.data / "warehouse")
        stores = {"KAFKA_BROKER": self.kafka_broker, "ES_HOST": self.es_host, "WAREHOUSE": warehouse}
        shown = {**({} if is_default else stores), **settings}
        if not _is_default_declaration():
            shown["PIPELINE"] = _from_the_clone(declared.FILE)
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in shown.items()), f"make {target}"])

    @property
    def processes_file(self) -> Path:
        """The file in which the page finds the processes."""
        return self.data / "processes.json"

    @property
    def service_urls(self) -> dict[str, str]:
        """Each service's base URL of /health and /metrics, by package."""
        return {service.package: self._url(service) for service in services.ALL}

    @property
    def page_url(self) -> str:
        """The live page's URL."""
        url = self._url(services.PAGE)
        return url.replace(servers.HOST, "localhost") if urlsplit(url).hostname == servers.HOST else url

    def _url(self, service: services.Service) -> str:
        host = listening.local_host(self.hosts[service.host_setting])
        return listening.url(host, self.service_ports[service.package])

    @property
    def server_ports(self) -> list[tuple[int, str, str]]:
        """Port, owner, and the option that changes the port, of each server."""
        return [(self.kafka_port, "Kafka", "--kafka-port"), (self.es_port, "Elasticsearch", "--es-port")]

    @property
    def all_ports(self) -> list[tuple[int, str, str]]:
        """The same of the servers and the services that the demo starts."""
        return [
            *self.server_ports,
            *((self.service_ports[s.package], s.package, s.port_setting) for s in DEMO_SERVICES),
        ]

    @property
    def _uses_demo_data(self) -> bool:
        has_own_rules = declared.FILE.with_name("data_mapper.yml").exists()
        return _is_default_declaration() and not has_own_rules and not _user_setting("PRODUCER_SOURCE")

    @property
    def service_settings(self) -> dict[str, str]:
        """The settings of the services as variables. Raises `StackError` if `.env` cannot be read."""
        settings = {"KAFKA_BROKER": self.kafka_broker, "ES_HOST": self.es_host, **self.hosts}
        defaults = _DEFAULTS | (_DEMO_DATA if self._uses_demo_data else {})
        settings |= {name: value for name, value in defaults.items() if not _user_setting(name)}
        return settings | {f"{name}_URL": self.service_urls[service.package] for name, service in _URL_SETTINGS.items()}


def _from_the_clone(path: Path) -> str:
    """Return a path as make can take it, which runs in the clone: from there, if that is shorter."""
    return min(str(path), os.path.relpath(path, services.ROOT), key=len)


def _is_default_declaration() -> bool:
    return declared.FILE == services.ROOT / "pipeline.py"


def _user_setting(name: str) -> str:
    """Return the value from the environment or else from `.env`; empty if neither sets it. Raises `StackError`."""
    try:
        return os.environ.get(name) or dotenv.read_nearest().values.get(name) or ""
    except dotenv.DotenvError as error:
        raise StackError(str(error)) from None


def _host_of(service: services.Service) -> str:
    host = _user_setting(service.host_setting) or servers.HOST
    try:
        is_host = urlsplit(listening.url(host, 1)).hostname == host.lower()
    except ValueError:
        is_host = False
    if not is_host:
        raise StackError(
            f"{service.host_setting}={quoted(host)} is no address: set it to one of this machine, such as"
            f" {servers.HOST}"
        )
    return host


def _port_of(service: services.Service) -> int:
    value = _user_setting(service.port_setting)
    if not value:
        return service.port
    try:
        port = int(value)
    except ValueError:
        raise StackError(f"{service.port_setting}={quoted(value)} is no port: set it to one from 1 to 65535") from None
    return port or servers.free_port()
