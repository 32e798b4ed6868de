"""The whole pipeline on this machine: servers, services, a live view, and a summary at the end."""

import contextlib
import os
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from elasticsearch import Elasticsearch
from mirakuru import SimpleExecutor
from mirakuru.exceptions import ExecutorError, ProcessFinishedWithError
from rich.console import Console
from rich.live import Live
from rich.table import Table

from contract import dotenv
from contract.settings import Settings
from contract.tables import AGGREGATE_TABLES
from live_page.snapshot import ALERTS, Observer, Snapshot
from local_stack import cache, servers, services
from local_stack.view import View

_MEMORY_NEEDED = 3 << 30
_DRAIN_SECONDS = 45.0
_LIVELY = {"PRODUCER_RATE": "0.02", "PRODUCER_CONTROLS": "true"}
"""Where the user has not said otherwise: 50 interactions a second, and whatever the page's buttons ask for."""
_STARTED = (services.PAGE, services.STREAM, services.SINK, services.PRODUCER)

_URL_SETTINGS = {"PRODUCER": services.PRODUCER, "STREAM": services.STREAM, "SINK": services.SINK}


class StackError(Exception):
    """The stack cannot run; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """What to run, and where."""

    data: Path
    kafka_port: int = 9092
    es_port: int = 9200
    service_ports: Mapping[str, int] = field(default_factory=lambda: {s.package: s.port for s in _STARTED})
    """Of the page, and of the others' /health and /metrics, by package."""
    seconds: float | None = None
    view: bool = True

    def with_free_ports(self) -> "Plan":
        """The same with ports that nothing listens on."""
        ports = {package: servers.free_port() for package in self.service_ports}
        return replace(self, kafka_port=servers.free_port(), es_port=servers.free_port(), service_ports=ports)

    @property
    def es_host(self) -> str:
        """Elasticsearch's address."""
        return f"http://{servers.HOST}:{self.es_port}"

    @property
    def service_urls(self) -> dict[str, str]:
        """Where each service has its /health and /metrics, by package."""
        return {s.package: f"http://{servers.HOST}:{self.service_ports[s.package]}" for s in services.ALL}

    @property
    def page_url(self) -> str:
        """The live page's address."""
        return f"http://localhost:{self.service_ports[services.PAGE.package]}"

    @property
    def service_settings(self) -> dict[str, str]:
        """What the services are told; raises `StackError` where `.env` cannot be read."""
        told = {"KAFKA_BROKER": f"{servers.HOST}:{self.kafka_port}", "ES_HOST": self.es_host}
        try:
            wanted = {**dotenv.read_nearest().values, **os.environ}
        except dotenv.DotenvError as error:
            raise StackError(str(error)) from None
        told |= {name: value for name, value in _LIVELY.items() if not wanted.get(name)}
        return told | {f"{name}_URL": self.service_urls[service.package] for name, service in _URL_SETTINGS.items()}


class _Part:
    def __init__(self, name: str, executor: SimpleExecutor, log: Path) -> None:
        self.name = name
        self.executor = executor
        self.log = log

    def start(self, console: Console, address: str) -> None:
        began = time.monotonic()
        try:
            self.executor.start()
        except ExecutorError as error:
            raise StackError(f"{self.name} did not start ({type(error).__name__}): {self.last_words()}") from None
        console.print(f"  [green]ready[/] {self.name:<26} {address:<28} {time.monotonic() - began:5.1f} s")

    def stop(self) -> None:
        with contextlib.suppress(ProcessFinishedWithError):
            self.executor.stop()

    def memory(self) -> int:
        """Resident bytes of the process and its children."""
        if self.executor.process is None:
            return 0
        try:
            process = psutil.Process(self.executor.process.pid)
            return int(sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]))
        except psutil.Error:
            return 0

    def require_running(self) -> None:
        if not self.executor.running():
            raise StackError(f"{self.name} has died: {self.last_words()}")

    def last_words(self) -> str:
        try:
            lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            lines = []
        telling = [line for line in lines[-200:] if not line.startswith(("\t", " ")) and "WARN" not in line]
        return f"{telling[-1] if telling else 'it said nothing'} (all of it: {self.log})"


def run(plan: Plan, console: Console, stop: threading.Event) -> None:
    """Run the demo until its time is over, `stop` is set, or it is interrupted; raises `StackError`."""
    owners = {port: package for package, port in plan.service_ports.items()}
    _prepare({plan.kafka_port: "Kafka", plan.es_port: "Elasticsearch", **owners}, console)
    services.make_class_archive(console)
    with ExitStack() as stack:
        parts = _start_servers(plan, console, stack)
        settings = Settings(kafka_broker=f"{servers.HOST}:{plan.kafka_port}")
        for service in _STARTED:
            port = plan.service_ports[service.package]
            executor = services.run(service, plan.data, plan.service_settings, port=port)
            part = _Part(service.package, executor, plan.data / "logs" / f"{service.package}.log")
            stack.callback(part.stop)
            part.start(console, plan.page_url if service is services.PAGE else executor.url.geturl())
            parts.append(part)
        client = Elasticsearch([plan.es_host], timeout=2, max_retries=0)
        observer = Observer(settings, client, str(plan.data / "warehouse"), plan.service_urls)
        stack.callback(observer.close)
        with contextlib.suppress(KeyboardInterrupt):
            if plan.view and console.is_terminal and _has_screen():
                webbrowser.open(plan.page_url)
            _watch(plan, parts, observer, console, stop)
        memory = {part.name: part.memory() for part in parts}
        console.print("stopping; a moment for what is under way")
        parts[-1].stop()
        _summarise(_drained(observer, parts[:-1]), observer, memory, console)


def run_servers(plan: Plan, console: Console, stop: threading.Event) -> None:
    """Run Kafka and Elasticsearch alone until `stop` is set or it is interrupted; raises `StackError`."""
    _prepare({plan.kafka_port: "Kafka", plan.es_port: "Elasticsearch"}, console)
    with ExitStack() as stack:
        parts = _start_servers(plan, console, stack)
        console.print("Ctrl-C stops")
        with contextlib.suppress(KeyboardInterrupt):
            _until(plan.seconds, parts, stop, lambda: None)


def _prepare(ports: dict[int, str], console: Console) -> None:
    available = psutil.virtual_memory().available
    if available < _MEMORY_NEEDED:
        needed, there = _MEMORY_NEEDED / (1 << 30), available / (1 << 30)
        raise StackError(f"about {needed:.0f} GB of free memory are needed, {there:.1f} GB are there: close something")
    for port, owner in ports.items():
        servers.require_free(port, owner)
    cache.fill(cache.SPARK, cache.KAFKA, cache.ELASTICSEARCH, cache.ELASTICSEARCH_NETTY, console=console)


def _start_servers(plan: Plan, console: Console, stack: ExitStack) -> list[_Part]:
    logs = plan.data / "logs"
    parts = [
        _Part("Kafka", servers.kafka(plan.data, plan.kafka_port), logs / "kafka.log"),
        _Part("Elasticsearch", servers.elasticsearch(plan.data, plan.es_port), logs / "elasticsearch.log"),
    ]
    for part, address in zip(parts, (f"{servers.HOST}:{plan.kafka_port}", plan.es_host), strict=True):
        stack.callback(part.stop)
        part.start(console, address)
    return parts


def _watch(plan: Plan, parts: list[_Part], observer: Observer, console: Console, stop: threading.Event) -> None:
    console.print(f"running: look at [bold]{plan.page_url}[/] (Ctrl-C stops)")
    if not (plan.view and console.is_terminal):
        _until(plan.seconds, parts, stop, lambda: None)
        return
    view = View(f"look at {plan.page_url}   Elasticsearch {plan.es_host}   Kafka {servers.HOST}:{plan.kafka_port}")
    with Live(console=console, auto_refresh=False, screen=False) as live:

        def show() -> None:
            live.update(view.render(observer.look(), time.monotonic()), refresh=True)

        _until(plan.seconds, parts, stop, show)


def _has_screen() -> bool:
    """Whether a browser would have a window: one in the terminal would be in the way."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _until(seconds: float | None, parts: list[_Part], stop: threading.Event, every_second: Callable[[], None]) -> None:
    end = None if seconds is None else time.monotonic() + seconds
    with _interrupts_only_set(stop):
        while not stop.is_set() and (end is None or time.monotonic() < end):
            for part in parts:
                part.require_running()
            every_second()
            stop.wait(1.0)


@contextlib.contextmanager
def _interrupts_only_set(stop: threading.Event) -> Iterator[None]:
    """Raised within `subprocess`, a KeyboardInterrupt can leave a process's lock taken for good."""
    usual = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _drained(observer: Observer, parts: list[_Part]) -> Snapshot:
    """The snapshot once nothing is under way any more, or the last one after some patience."""
    end = time.monotonic() + _DRAIN_SECONDS
    while True:
        for part in parts:
            part.require_running()
        snapshot = observer.look()
        if snapshot.is_drained or time.monotonic() > end:
            return snapshot
        time.sleep(0.5)


def _summarise(snapshot: Snapshot, observer: Observer, memory: dict[str, int], console: Console) -> None:
    table = Table(title="what is where", title_justify="left", box=None, show_header=False)
    for name, value in _rows(snapshot, observer):
        table.add_row(name, "unknown" if value is None else f"{value:,}")
    console.print(table)
    used = ", ".join(f"{name} {bytes_ / (1 << 20):,.0f} MB" for name, bytes_ in memory.items())
    console.print(f"memory: {used}")


def _rows(snapshot: Snapshot, observer: Observer) -> Iterator[tuple[str, int | None]]:
    yield "sent", snapshot.sent
    yield "in the lake", observer.lake_rows("interactions")
    for table in AGGREGATE_TABLES:
        yield f"index {table.name}", snapshot.documents.get(table.name)
    yield "alerts", snapshot.documents.get(ALERTS)
    yield "alerts firing", snapshot.firing
    yield "dead letters", snapshot.dead_letters
