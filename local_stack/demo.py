"""The whole pipeline on this machine: servers, services, a live view, and a summary at the end."""

import contextlib
import os
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from data_producer.settings import ProducerSettings
from elasticsearch import Elasticsearch
from elasticsearch_sink_alert.settings import SinkSettings
from mirakuru import HTTPExecutor, SimpleExecutor, TCPExecutor
from mirakuru.exceptions import ProcessFinishedWithError
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from stream_processing.settings import StreamProcessingSettings

from contract.tables import AGGREGATE_TABLES
from live_page.settings import PageSettings
from local_stack import cache, endings, places, servers, services
from local_stack.view import View
from observer.snapshot import ALERTS, Observer, Snapshot
from runtime import dotenv
from runtime.logs import escape_controls
from runtime.settings import Settings, SettingsError

_MEMORY_NEEDED = 3 << 30
_DRAIN_SECONDS = 45.0
_LIVELY = {"PRODUCER_RATE": "0.02", "PRODUCER_CONTROLS": "true"}
"""Where the user has not said otherwise: 50 interactions a second, and whatever the page's buttons ask for."""
_STARTED = (services.PAGE, services.STREAM, services.SINK, services.PRODUCER)
_SETTINGS: Mapping[services.Service, type[Settings]] = {
    services.PRODUCER: ProducerSettings,
    services.STREAM: StreamProcessingSettings,
    services.SINK: SinkSettings,
    services.PAGE: PageSettings,
}
_URL_SETTINGS = {"PRODUCER": services.PRODUCER, "STREAM": services.STREAM, "SINK": services.SINK}


def _setting(name: str) -> str:
    """What the user has set in the environment or in `.env`; empty where nothing. Raises `StackError`."""
    try:
        return os.environ.get(name) or dotenv.read_nearest().values.get(name) or ""
    except dotenv.DotenvError as error:
        raise StackError(str(error)) from None


def _port_of(service: services.Service) -> int:
    value = _setting(service.port_setting)
    if not value:
        return service.port
    try:
        port = int(value)
    except ValueError:
        raise StackError(f"{service.port_setting}={value!r} is no port: set it to one from 1 to 65535") from None
    return port or servers.free_port()


class StackError(Exception):
    """The stack cannot run; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """What to run, and where."""

    data: Path
    kafka_port: int = 9092
    es_port: int = 9200
    service_ports: Mapping[str, int] = field(default_factory=lambda: {s.package: _port_of(s) for s in _STARTED})
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
        told |= {name: value for name, value in _LIVELY.items() if not _setting(name)}
        return told | {f"{name}_URL": self.service_urls[service.package] for name, service in _URL_SETTINGS.items()}


class _Part:
    def __init__(self, name: str, executor: TCPExecutor, data: Path, address: str, log: str | None = None) -> None:
        self.name = name
        self._executor = executor
        self._address = address
        self._data = data
        self._log = data / "logs" / f"{log or name}.log"
        self._log_begins = self._log.stat().st_size
        self._began = 0.0

    def start(self) -> None:
        """Start the process, without waiting until it is ready."""
        self._began = time.monotonic()
        # TCPExecutor's own also waits.
        SimpleExecutor.start(self._executor)

    def is_ready(self, console: Console) -> bool:
        """Whether it answers, and if so say so; raises `StackError` where it has ended or takes too long."""
        self.require_running()
        if not self._executor.after_start_check():
            if time.monotonic() - self._began > self._executor._timeout:
                raise StackError(endings.describe(self.name, None, self._log, self._log_begins, self._data))
            return False
        line = f"{self.name:<26} {self._address:<28} {time.monotonic() - self._began:5.1f} s"
        # What it had to wait for until now is not what may end it later.
        self._log_begins = self._log.stat().st_size
        console.print(Text.assemble("  ", ("ready", "green"), f" {line}"), soft_wrap=True)
        return True

    def stop(self) -> None:
        with contextlib.suppress(ProcessFinishedWithError):
            self._executor.stop()

    def memory(self) -> int:
        """Resident bytes of the process and its children."""
        if self._executor.process is None:
            return 0
        try:
            process = psutil.Process(self._executor.process.pid)
            return int(sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]))
        except psutil.Error:
            return 0

    def require_running(self) -> None:
        if not self._executor.running():
            process = self._executor.process
            status = process.poll() if process is not None else None
            raise StackError(endings.describe(self.name, status, self._log, self._log_begins, self._data))


class _LivePage(_Part):
    """The live page: the pipeline runs without it, so its end is reported once and ends nothing else."""

    def __init__(self, executor: TCPExecutor, data: Path, address: str, console: Console) -> None:
        super().__init__(services.PAGE.package, executor, data, address)
        self._console = console
        self.has_ended = False

    def is_ready(self, console: Console) -> bool:
        """Whether the page answers or has ended: nothing waits for it then."""
        try:
            return super().is_ready(console) or self.has_ended
        except StackError as error:
            self._report(error)
            self.stop()
            return True

    def require_running(self) -> None:
        """Report the end of the page once; never raises."""
        try:
            super().require_running()
        except StackError as error:
            self._report(error)

    def _report(self, reason: StackError) -> None:
        if not self.has_ended:
            self.has_ended = True
            line = f" {escape_controls(str(reason))}; the pipeline goes on"
            self._console.print(Text.assemble(("the live page has ended:", "yellow"), line), soft_wrap=True)


def run(plan: Plan, console: Console, stop: threading.Event) -> None:
    """Run the demo until its time is over, `stop` is set, or it is interrupted; raises `StackError`."""
    owners = [(plan.service_ports[s.package], s.package, s.port_setting) for s in _STARTED]
    _prepare(plan, [*_server_ports(plan), *owners], console)
    with ExitStack() as stack:
        both = _servers(plan, stack.enter_context(places.claimed(plan.data)))
        page = _LivePage(_executor(services.PAGE, plan), plan.data, plan.page_url, console)
        stream, sink, producer = (_service(s, plan) for s in (services.STREAM, services.SINK, services.PRODUCER))
        parts = [*both, page, stream, sink, producer]
        for part in parts:
            stack.callback(part.stop)
        # Spark takes the longest, and waits for Kafka by itself; what the others need is there in a few seconds.
        _start_side_by_side([*both, stream], both, console)
        _start_side_by_side([sink, producer, page], [stream, sink, producer, page], console, both)
        settings = Settings(kafka_broker=f"{servers.HOST}:{plan.kafka_port}")
        client = Elasticsearch([plan.es_host], timeout=2, max_retries=0)
        observer = Observer(settings, client, str(plan.data / "warehouse"), plan.service_urls)
        stack.callback(observer.close)
        with contextlib.suppress(KeyboardInterrupt):
            if plan.view and console.is_terminal and _has_screen() and not page.has_ended:
                webbrowser.open(plan.page_url)
            with services.class_archive_in_background(plan.data):
                _watch(plan, parts, observer, console, stop)
        memory = {part.name: part.memory() for part in parts}
        console.print("stopping; a moment for what is under way")
        parts[-1].stop()
        _summarise(_drained(observer, parts[:-1]), observer, memory, console)


def run_servers(plan: Plan, console: Console, stop: threading.Event) -> None:
    """Run Kafka and Elasticsearch alone until `stop` is set or it is interrupted; raises `StackError`."""
    _prepare(plan, _server_ports(plan), console)
    with ExitStack() as stack:
        parts = _servers(plan, stack.enter_context(places.claimed(plan.data)))
        for part in parts:
            stack.callback(part.stop)
        _start_side_by_side(parts, parts, console)
        console.print("Ctrl-C stops")
        with contextlib.suppress(KeyboardInterrupt):
            _until(plan.seconds, parts, stop, lambda: None)


def _server_ports(plan: Plan) -> list[tuple[int, str, str]]:
    return [(plan.kafka_port, "Kafka", "--kafka-port"), (plan.es_port, "Elasticsearch", "--es-port")]


def _prepare(plan: Plan, owners: Sequence[tuple[int, str, str]], console: Console) -> None:
    """Check what can be checked before anything starts, and have the jars; raises what says why it cannot."""
    places.require_usable(plan.data)
    _require_right_settings(plan, console)
    available = psutil.virtual_memory().available
    if available < _MEMORY_NEEDED:
        needed, there = _MEMORY_NEEDED / (1 << 30), available / (1 << 30)
        raise StackError(f"about {needed:.0f} GB of free memory are needed, {there:.1f} GB are there: close something")
    ports: dict[int, str] = {}
    for port, owner, option in owners:
        servers.require_free(port, owner, option)
        if port in ports:
            raise StackError(f"{owner} and {ports[port]} have the same port {port}: choose another with {option}")
        ports[port] = owner
    cache.fill(*cache.ALL, console=console)


def _require_right_settings(plan: Plan, console: Console) -> None:
    """Show what `.env` has that has no effect. Raises `StackError` with all that is wrong, of all services at once."""
    try:
        file = dotenv.read_nearest()
    except dotenv.DotenvError as error:
        raise StackError(str(error)) from None
    for warning in file.warnings:
        console.print(escape_controls(warning), markup=False, soft_wrap=True)
    wrong: dict[str, None] = {}
    for service, settings in _SETTINGS.items():
        given = {**services.environment(plan.data), **plan.service_settings}
        given[service.port_setting] = str(plan.service_ports[service.package])
        try:
            settings.read(file.values, given)
        except SettingsError as error:
            wrong |= dict.fromkeys(str(error).splitlines())
    if wrong:
        raise StackError(f"{'; '.join(wrong)} (.env.example explains each setting)")


def _servers(plan: Plan, claim: int) -> list[_Part]:
    # Elasticsearch and the stream job find out by themselves that another one works on their folders; a second Kafka
    # damages the first one's metadata.
    kafka = servers.kafka(plan.data, plan.kafka_port, descriptors=(claim,))
    elasticsearch = servers.elasticsearch(plan.data, plan.es_port)
    return [
        _Part("Kafka", kafka, plan.data, f"{servers.HOST}:{plan.kafka_port}", "kafka"),
        _Part("Elasticsearch", elasticsearch, plan.data, plan.es_host, "elasticsearch"),
    ]


def _executor(service: services.Service, plan: Plan) -> HTTPExecutor:
    return services.run(service, plan.data, plan.service_settings, port=plan.service_ports[service.package])


def _service(service: services.Service, plan: Plan) -> _Part:
    executor = _executor(service, plan)
    return _Part(service.package, executor, plan.data, executor.url.geturl())


def _start_side_by_side(
    parts: list[_Part], awaited: list[_Part], console: Console, needed: Sequence[_Part] = ()
) -> None:
    """Start `parts` at once and wait until all of `awaited` are ready, while `needed` run. Raises `StackError`."""
    for part in parts:
        part.start()
    waiting = list(awaited)
    while waiting:
        # A server that ends is the reason why others do not become ready, so it is reported first.
        for part in [*needed, *parts]:
            part.require_running()
        waiting = [part for part in waiting if not part.is_ready(console)]
        time.sleep(0.1)


def _watch(plan: Plan, parts: list[_Part], observer: Observer, console: Console, stop: threading.Event) -> None:
    console.print(f"running: look at [bold]{plan.page_url}[/] (Ctrl-C stops)")
    if not (plan.view and console.is_terminal):
        _until(plan.seconds, parts, stop, lambda: None)
        return
    view = View(f"look at {plan.page_url}   Elasticsearch {plan.es_host}   Kafka {servers.HOST}:{plan.kafka_port}")
    with Live(console=console, auto_refresh=False, screen=False) as live:

        def show() -> None:
            live.update(view.render(observer.snapshot(), time.monotonic()), refresh=True)

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
        snapshot = observer.snapshot()
        if snapshot.is_drained or time.monotonic() > end:
            return snapshot
        time.sleep(0.5)


def _summarise(snapshot: Snapshot, observer: Observer, memory: dict[str, int], console: Console) -> None:
    table = Table(title="what is where", title_justify="left", box=None, show_header=False)
    for name, value in _rows(snapshot, observer):
        table.add_row(name, "unknown" if value is None else f"{value:,}")
    console.print(table)
    used = ", ".join(f"{name} {bytes_ / (1 << 20):,.0f} MB" for name, bytes_ in memory.items())
    console.print(f"memory: {used}", soft_wrap=True)


def _rows(snapshot: Snapshot, observer: Observer) -> Iterator[tuple[str, int | None]]:
    yield "sent", snapshot.sent
    yield "in the lake", observer.lake_rows("interactions")
    for table in AGGREGATE_TABLES:
        yield f"index {table.name}", snapshot.documents.get(table.name)
    yield "alerts", snapshot.documents.get(ALERTS)
    yield "alerts firing", snapshot.firing
    yield "dead letters", snapshot.dead_letters
