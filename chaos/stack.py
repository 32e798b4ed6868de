"""The pipeline of one run: servers and services on free ports in a folder of its own, and what faults may touch."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from mirakuru import TCPExecutor

from chaos.disk import Disk
from chaos.links import Link, links
from chaos.processes import Process
from local_stack import servers, services
from local_stack.environment import inherited
from local_stack.servers import HOST, free_port
from local_stack.services import Service
from runtime.settings import Settings

ProcessName = Literal["Kafka", "Elasticsearch", "stream job", "sink", "producer"]
KAFKA: Final = "Kafka"
ELASTICSEARCH: Final = "Elasticsearch"
STREAM_JOB: Final = "stream job"
SINK: Final = "sink"
PRODUCER: Final = "producer"
PROCESSES: Final[tuple[ProcessName, ...]] = get_args(ProcessName)

LinkName = Literal[
    "stream job to Kafka", "sink to Kafka", "producer to Kafka", "load to Kafka", "sink to Elasticsearch"
]
STREAM_TO_KAFKA: Final = "stream job to Kafka"
SINK_TO_KAFKA: Final = "sink to Kafka"
SINK_TO_ELASTICSEARCH: Final = "sink to Elasticsearch"
PRODUCER_TO_KAFKA: Final = "producer to Kafka"
LOAD_TO_KAFKA: Final = "load to Kafka"
_TO_KAFKA: Final[tuple[str, ...]] = (STREAM_TO_KAFKA, SINK_TO_KAFKA, PRODUCER_TO_KAFKA, LOAD_TO_KAFKA)
LINKS: Final[tuple[LinkName, ...]] = get_args(LinkName)

_TOPIC: Final = "chaos"
_COMMON: Final[Mapping[str, str]] = {
    "KAFKA_TOPIC": _TOPIC,
    "KAFKA_GROUP_ID": _TOPIC,
    "KAFKA_TOPIC_PARTITION": "4",
    "STATE_STORE": "memory",
    "DEPLOY_MODE": "client",
    "LOOP_SLEEP": "0.5",
}
_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    STREAM_JOB: {"UPKEEP_INTERVAL": "10", "MATERIALISE_INTERVAL": "5"},
    SINK: {},
    # 50 interactions a second.
    PRODUCER: {"PRODUCER_RATE": "0.02", "RANDOM_DATA_MAX_USERS": "50", "RANDOM_DATA_MAX_ITEMS": "50"},
}
"""Shorter intervals than the usual ones, so that more happens within a run."""
_LINK_OF: Final = {STREAM_JOB: STREAM_TO_KAFKA, SINK: SINK_TO_KAFKA, PRODUCER: PRODUCER_TO_KAFKA}
_SERVICES: Final = {STREAM_JOB: services.STREAM, SINK: services.SINK, PRODUCER: services.PRODUCER}


@dataclass
class Stack:
    """The processes of a run and the connections between them."""

    data: Path
    kafka: str
    """Kafka's address, without a proxy."""
    es_host: str
    """Elasticsearch's URL, without a proxy."""
    processes: Mapping[str, Process]
    links: Mapping[str, Link]
    disk: Disk
    """With the lake and the checkpoints."""
    say: Callable[[str, str], None]
    """Prints a line about a process or a fault."""
    seconds: dict[str, Process] = field(default_factory=dict)
    """Second copies of services that run now, by the name of the service."""
    violations: list[str] = field(default_factory=list)
    """Promises that were broken, beside the data."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when the run is over or has failed: nothing waits any longer."""

    @property
    def settings(self) -> Settings:
        """The settings that all services share."""
        return Settings(kafka_broker=self.kafka, kafka_topic=_TOPIC)

    @property
    def warehouse(self) -> Path:
        """The folder of the Delta tables."""
        return self.disk.folder / "warehouse"

    @property
    def checkpoints(self) -> Path:
        """The folder with the stream job's progress and counts."""
        return self.disk.folder / "checkpoints"

    @property
    def class_archive(self) -> Path:
        """This run's copy of Java's class archive; the file may be missing."""
        return class_archive(self.data)

    def failure(self) -> str | None:
        """Return why a process cannot be kept running."""
        failures = (process.failure for process in self.processes.values())
        return next((failure for failure in failures if failure is not None), None)

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a service, or of a command beside it."""
        return {
            **services.environment(self.data),
            "KAFKA_BROKER": f"{HOST}:{self.links[_LINK_OF[name]].port}",
            "ES_HOST": f"http://{HOST}:{self.links[SINK_TO_ELASTICSEARCH].port}",
            "WAREHOUSE": str(self.warehouse),
            "CHECKPOINTS": str(self.checkpoints),
            "CLASS_ARCHIVE": str(self.class_archive),
            **_COMMON,
            **_SETTINGS[name],
        }

    def second(self, name: str) -> Process:
        """Return another copy of a service, which is not started, and keep it in `seconds`."""
        title, folder = f"second {name}", self.data / "second"
        log = _log(folder, _SERVICES[name])
        self.seconds[name] = Process(title, _service(self, name, folder), log, _line(self.say, title))
        return self.seconds[name]

    def command(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of a service to its end."""
        return run_module(_SERVICES[name].package, *arguments, environment=self.environment(name))


def run_module(module: str, *arguments: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a program of the project with these variables beside those of this process, and return its output."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=services.ROOT,
        env={**inherited(os.environ), **environment},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def class_archive(data: Path) -> Path:
    """Return where a run's copy of the class archive is."""
    return data / "class_archive.jsa"


def copy_class_archive(data: Path) -> None:
    """Give a run its own copy of the installation's class archive, if there is one."""
    original = Path(services.environment(data)["CLASS_ARCHIVE"])
    if original.exists():
        shutil.copyfile(original, class_archive(data))


@contextmanager
def running(data: Path, disk: Disk, say: Callable[[str, str], None]) -> Iterator[Stack]:
    """Start servers and services, and end them after the `with` block; they may not be ready when it begins."""
    kafka_port, es_port = free_port(), free_port()
    upstreams = {name: free_port() for name in _TO_KAFKA}
    with ExitStack() as resources:
        proxies = resources.enter_context(links({**upstreams, SINK_TO_ELASTICSEARCH: es_port}))
        listeners = {name: (port, proxies[name].port) for name, port in upstreams.items()}
        kafka = servers.kafka(data, kafka_port, properties=_listeners(kafka_port, free_port(), listeners))
        elasticsearch = servers.elasticsearch(data, es_port)
        processes: dict[str, Process] = {}
        stack = Stack(data, f"{HOST}:{kafka_port}", f"http://{HOST}:{es_port}", processes, proxies, disk, say)
        resources.callback(_close, stack)
        for name, executor, log in ((KAFKA, kafka, "kafka"), (ELASTICSEARCH, elasticsearch, "elasticsearch")):
            processes[name] = Process(name, _always(executor), data / "logs" / f"{log}.log", _line(say, name))
        for name, service in _SERVICES.items():
            processes[name] = Process(name, _service(stack, name, data), _log(data, service), _line(say, name))
        for process in processes.values():
            process.start()
        yield stack


def _close(stack: Stack) -> None:
    stack.stopped.set()
    for process in [*stack.seconds.values(), *stack.processes.values()]:
        process.close()


def _line(say: Callable[[str, str], None], name: str) -> Callable[[str], None]:
    return lambda line: say(name, line)


def _always(executor: TCPExecutor) -> Callable[[Mapping[str, str]], TCPExecutor]:
    return lambda _: executor


def _service(stack: Stack, name: str, folder: Path) -> Callable[[Mapping[str, str]], TCPExecutor]:
    """Return how an executor of the service is made: a new one for each start, beside what a killed one has left."""
    port = free_port()
    return lambda settings: services.run(_SERVICES[name], folder, {**stack.environment(name), **settings}, port=port)


def _log(folder: Path, service: Service) -> Path:
    return folder / "logs" / f"{service.package}.log"


def _listeners(port: int, controller: int, proxied: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Return Kafka's properties for a listener of its own for each proxy, whose clients it sends back to the proxy."""
    names = {name: f"PROXY{n}" for n, name in enumerate(proxied)}
    listeners = [f"PLAINTEXT://{HOST}:{port}", *(f"{names[name]}://{HOST}:{own}" for name, (own, _) in proxied.items())]
    advertised = [f"PLAINTEXT://{HOST}:{port}", *(f"{names[name]}://{HOST}:{at}" for name, (_, at) in proxied.items())]
    protocols = [f"{name}:PLAINTEXT" for name in ("CONTROLLER", "PLAINTEXT", *names.values())]
    return {
        "listeners": ",".join([*listeners, f"CONTROLLER://{HOST}:{controller}"]),
        "advertised.listeners": ",".join(advertised),
        "listener.security.protocol.map": ",".join(protocols),
        "controller.quorum.voters": f"1@{HOST}:{controller}",
    }
