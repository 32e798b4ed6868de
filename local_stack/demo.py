"""Runs the whole pipeline on this machine: servers, services, the live view, and a summary at the end."""

import contextlib
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from elasticsearch import Elasticsearch
from elasticsearch_sink_alert.settings import SharedSinkSettings
from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

from contract.alerts import ALERTS
from contract.declared import EVENT, TABLES
from live_page.sources.producer import ProducerControls
from local_stack import data_folder, servers, services
from local_stack.actions import actions_by_key, has_display
from local_stack.keys import Keys
from local_stack.managed_process import ManagedProcess, require_running, start_in_parallel
from local_stack.plan import DEMO_SERVICES, NotEverythingError, Plan, StackError, StoppedEarlyError
from local_stack.preflight import prepare
from local_stack.process_file import ProcessFile
from local_stack.process_states import ProcessStates
from local_stack.suspension import suspended_within
from local_stack.terminal import ForegroundLive, drawn_at_once, is_in_foreground, visible_cursor
from local_stack.view import View
from observer.demo_rules import demo_rules_link
from observer.snapshot import Observer, Snapshot
from runtime.signals import set_in_handler, stop_signals

_DRAIN_SECONDS = 45.0


def run(plan: Plan, console: Console, stop: threading.Event) -> None:
    """Run the demo until its time is over, `stop` is set, or it is interrupted; then print a summary.

    Raises `StackError` if it cannot start, and after the summary `StoppedEarlyError` if a part of it cannot be kept
    running, and `NotEverythingError`.
    """
    prepare(plan, plan.all_ports, console)
    with ExitStack() as stack:
        server_processes = _servers(plan, stack.enter_context(data_folder.locked(plan.data)))
        link_data_mapper(plan)
        service_processes = {service: _service(service, plan) for service in DEMO_SERVICES}
        stream, sink = service_processes[services.STREAM], service_processes[services.SINK]
        producer, page = service_processes[services.PRODUCER], service_processes[services.PAGE]
        processes = [*server_processes, *service_processes.values()]
        for process in processes:
            stack.callback(process.stop)
        # Spark takes the longest and waits for Kafka by itself; the servers that the others need are ready in seconds.
        start_in_parallel([*server_processes, stream], server_processes, console)
        start_in_parallel([sink, producer, page], [stream, sink, producer, page], console, server_processes)
        observer = _observer(plan)
        stack.callback(observer.close)
        memory: dict[str, int] = {}
        try:
            with contextlib.suppress(KeyboardInterrupt):
                if plan.view and console.is_terminal and has_display():
                    webbrowser.open(plan.page_url)
                with (
                    services.cds_archive_in_background(plan.data, console),
                    ProcessFile(plan.processes_file, processes) as process_file,
                ):
                    _watch(plan, processes, process_file, observer, console, stop)
            memory = {process.name: process.memory() for process in processes}
            console.print("stopping: the records in flight are processed first")
            producer.stop()
            snapshot = _drain(observer, [process for process in processes if process is not producer], console)
        except StoppedEarlyError:
            _print_summary(observer.snapshot(), observer, memory, console)
            raise
        _print_summary(snapshot, observer, memory, console)
        _require_everything(snapshot, observer, console)


def run_servers(plan: Plan, console: Console, stop: threading.Event) -> None:
    """Run Kafka and Elasticsearch alone until `stop` is set or it is interrupted.

    Raises `StackError` if they cannot start, and `StoppedEarlyError` if one of them ends later.
    """
    prepare(plan, plan.server_ports, console)
    with ExitStack() as stack:
        server_processes = _servers(plan, stack.enter_context(data_folder.locked(plan.data)))
        # Services that are run by hand have another one.
        demo_rules_link(plan.data).unlink(missing_ok=True)
        for process in server_processes:
            stack.callback(process.stop)
        start_in_parallel(server_processes, server_processes, console)
        console.print("Ctrl-C stops")
        with contextlib.suppress(KeyboardInterrupt):
            _run_until(plan.seconds, server_processes, console, stop, lambda: None)


def _servers(plan: Plan, lock: int) -> list[ManagedProcess]:
    # Elasticsearch and the stream job detect another one on their folders; a second Kafka would damage the first one's
    # metadata, so it inherits the lock.
    kafka = servers.kafka(plan.data, plan.kafka_port, descriptors=(lock,))
    elasticsearch = servers.elasticsearch(plan.data, plan.es_port)
    return [
        ManagedProcess("Kafka", kafka, plan.data, plan.kafka_broker, log="kafka"),
        ManagedProcess("Elasticsearch", elasticsearch, plan.data, plan.es_host, log="elasticsearch"),
    ]


def link_data_mapper(plan: Plan) -> None:
    """Leave a link to the demo's own data mapper in the data folder, for `verify`; none if another one is used."""
    link = demo_rules_link(plan.data)
    link.unlink(missing_ok=True)
    if data_mapper := plan.service_settings.get("DATA_MAPPER"):
        link.symlink_to(data_mapper)


def _service(service: services.Service, plan: Plan) -> ManagedProcess:
    is_page = service is services.PAGE
    settings = plan.service_settings | ({"PROCESSES_FILE": str(plan.processes_file)} if is_page else {})
    executor = services.run(service, plan.data, settings, port=plan.service_ports[service.package])
    address = plan.page_url if is_page else executor.url.geturl()
    # The producer ends after PRODUCER_LIMIT interactions, and at the end of a recording.
    may_end = service is services.PRODUCER
    return ManagedProcess(service.package, executor, plan.data, address, optional=is_page, may_end=may_end)


def _settings(plan: Plan) -> SharedSinkSettings:
    return SharedSinkSettings(kafka_broker=plan.kafka_broker)


def _addresses(plan: Plan) -> dict[str, str]:
    return {
        "Kafka": plan.kafka_broker,
        "topic": _settings(plan).kafka_topic,
        "Elasticsearch": plan.es_host,
        "logs": str(plan.data / "logs"),
    }


def _observer(plan: Plan) -> Observer:
    settings = _settings(plan)
    client = Elasticsearch([plan.es_host], timeout=2, max_retries=0)
    return Observer(settings, client, str(plan.data / "warehouse"), plan.service_urls, settings.kafka_group_id)


def _watch(
    plan: Plan,
    processes: Sequence[ManagedProcess],
    process_file: ProcessFile,
    observer: Observer,
    console: Console,
    stop: threading.Event,
) -> None:
    console.print(Text(f"beside it, to compare all that is stored: {plan.verify_command}"), soft_wrap=True)
    console.print(Text(f"beside it, to see what needs attention: {plan.status_command}"), soft_wrap=True)
    console.print(f"running: open [bold]{plan.page_url}[/] (Ctrl-C stops)")
    if not (plan.view and console.is_terminal):
        _run_until(plan.seconds, processes, console, stop, process_file.update)
        return
    has_keys = sys.stdin is not None and sys.stdin.isatty()
    producer = ProducerControls(plan.service_urls[services.PRODUCER.package])
    actions = actions_by_key(plan.page_url, producer, stop) if has_keys else {}
    view = View(plan.page_url, _addresses(plan), {key: action.label for key, action in actions.items()})
    states = ProcessStates(processes)
    keys = Keys(sys.stdin.fileno(), lambda key: press(key)) if has_keys else None
    size: ConsoleDimensions | None = console.size

    def show() -> None:
        nonlocal size
        process_file.update()
        snapshot, at = observer.snapshot(), time.monotonic()
        view.add(snapshot, at, states.read(snapshot.health, at))
        if not is_in_foreground(console):
            # The shell prints over what was drawn.
            size = None
            return
        with drawn_at_once(console):
            if console.size != size:
                # What was drawn for another width takes other lines now.
                size = console.size
                console.clear()
                console.show_cursor(False)
            live.refresh()

    def press(key: str) -> None:
        if action := actions.get(key.lower()):
            view.note(action.perform())
            with drawn_at_once(console):
                live.refresh()

    @contextlib.contextmanager
    def released() -> Iterator[None]:
        nonlocal size
        with keys.released() if keys else contextlib.nullcontext(), visible_cursor(console):
            yield
        # The shell has printed below what was drawn.
        size = None

    with (
        ForegroundLive(view, console=console, auto_refresh=False) as live,
        # Before the keys, which change the modes of the terminal.
        suspended_within(released),
        keys or contextlib.nullcontext(),
    ):
        _run_until(plan.seconds, processes, console, stop, show)


def _run_until(
    seconds: float | None,
    processes: Sequence[ManagedProcess],
    console: Console,
    stop: threading.Event,
    every_second: Callable[[], None],
) -> None:
    end = None if seconds is None else time.monotonic() + seconds
    with _signals_only_set(stop):
        while not stop.is_set() and (end is None or time.monotonic() < end):
            _require_still_running(processes, console)
            every_second()
            stop.wait(1.0)


def _require_still_running(processes: Sequence[ManagedProcess], console: Console) -> None:
    try:
        require_running(processes, console)
    except StackError as error:
        raise StoppedEarlyError(str(error)) from None


@contextlib.contextmanager
def _signals_only_set(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on a stop signal: a KeyboardInterrupt within `subprocess` can leave a process's lock held."""
    previous = {number: signal.signal(number, lambda *_: set_in_handler(stop)) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _drain(observer: Observer, processes: Sequence[ManagedProcess], console: Console) -> Snapshot:
    """Return a snapshot of the drained pipeline, or the latest one after `_DRAIN_SECONDS`."""
    end = time.monotonic() + _DRAIN_SECONDS
    is_drained = False
    while True:
        _require_still_running(processes, console)
        snapshot = observer.snapshot()
        # The parts of a snapshot are read at the same time: only those of the next one are all drained.
        if is_drained or time.monotonic() > end:
            return snapshot
        # Many dead letters take more than one snapshot to read.
        is_drained = snapshot.is_drained and snapshot.malformed is not None
        if not is_drained:
            time.sleep(0.5)


def _print_summary(snapshot: Snapshot, observer: Observer, memory: dict[str, int], console: Console) -> None:
    table = Table(title="where everything is", title_justify="left", box=None, show_header=False)
    for name, value in _summary_rows(snapshot, observer):
        table.add_row(name, "unknown" if value is None else f"{value:,}")
    console.print(table)
    if memory:
        used = ", ".join(f"{name} {bytes_ / (1 << 20):,.0f} MB" for name, bytes_ in memory.items())
        console.print(f"memory: {used}", soft_wrap=True)


def _require_everything(snapshot: Snapshot, observer: Observer, console: Console) -> None:
    """Print that every record sent is in the lake or malformed, and indexed; raises `NotEverythingError` otherwise."""
    sent, lake, indexed = snapshot.sent, observer.lake_rows(EVENT.name), snapshot.indexed
    malformed = snapshot.malformed
    counts = (
        f"sent {_number(sent)}, in the lake {_number(lake)}, malformed {_number(malformed)}, indexed {_number(indexed)}"
    )
    if sent is None or lake is None or malformed is None or not sent == lake + malformed == (indexed or 0) + malformed:
        raise NotEverythingError(f"{counts}: the next start continues, and `make verify` beside it names each row")
    of_malformed = f" + malformed {malformed:,}" if malformed else ""
    console.print(
        Text.assemble(
            f"sent {sent:,} = in the lake and indexed {lake:,}{of_malformed}: ",
            ("nothing lost, nothing twice", "green"),
        ),
        soft_wrap=True,
    )


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _summary_rows(snapshot: Snapshot, observer: Observer) -> Iterator[tuple[str, int | None]]:
    yield "sent", snapshot.sent
    yield "in the lake", observer.lake_rows(EVENT.name)
    for table in TABLES:
        yield f"index {table.name}", snapshot.documents.get(table.name)
    yield "alerts", snapshot.documents.get(ALERTS)
    yield "alerts firing", snapshot.firing
    yield "dead letters", snapshot.dead_letters
