import contextlib
import hashlib
import io
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from mirakuru import TCPExecutor
from rich.console import Console

from build_tools.jars import Jar, JarError, read_pins
from build_tools.truststore import java_options
from contract import declared
from local_stack import __main__ as stack
from local_stack import cache, demo, servers, services
from local_stack.java import JAVA_HOME
from local_stack.managed_process import ManagedProcess
from local_stack.plan import DEFAULT_DATA, NotEverythingError, Plan, StackError
from local_stack.preflight import prepare
from local_stack.servers import PortTakenError, require_free
from local_stack.services import ROOT
from observer.lake_cuts import Cut
from observer.snapshot import Observer, Snapshot
from verify.settings import VerifySettings


@pytest.mark.parametrize("download", cache.ALL, ids=lambda download: download.title)
def test_every_pinned_jar_has_a_checksum_and_a_file_of_its_own(download: cache.Download) -> None:
    pins = read_pins(download.pins)
    assert len({jar.file_name for jar in pins}) == len(pins) > 5
    assert all(len(jar.sha256) == 64 for jar in pins)


def test_a_secondary_jar_of_an_artifact_has_a_classifier(tmp_path: Path) -> None:
    pins = tmp_path / "jars.txt"
    pins.write_text("org:name:1.0:all sha256:00\norg:name:1.0 sha256:11\n")
    assert [jar.file_name for jar in read_pins(pins)] == ["name-1.0-all.jar", "name-1.0.jar"]


def test_a_malformed_line_of_a_list_of_jars_is_named(tmp_path: Path) -> None:
    pins = tmp_path / "jars.txt"
    pins.write_text("# comment\norg:name:1.0\n")
    with pytest.raises(JarError, match=r"jars\.txt:2"):
        read_pins(pins)


def test_a_jar_with_another_checksum_is_not_intact(tmp_path: Path) -> None:
    jar = Jar("org", "name", "1.0", hashlib.sha256(b"content").hexdigest())
    assert not jar.is_intact(tmp_path)
    (tmp_path / "name-1.0.jar").write_bytes(b"changed")
    assert not jar.is_intact(tmp_path)
    (tmp_path / "name-1.0.jar").write_bytes(b"content")
    assert jar.is_intact(tmp_path)


def test_a_port_in_use_is_reported_with_its_number_and_owner() -> None:
    with socket.socket() as listener:
        listener.bind((servers.HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"Kafka needs port {port}, but .* listens there") as error:
            require_free([(port, "Kafka", "--kafka-port")])
    assert str(error.value).endswith(
        "stop it, choose another port with --kafka-port, or run beside it with --free-ports --data FOLDER"
        ' (make demo ARGS="--free-ports --data FOLDER")'
    )
    require_free([(servers.free_port(), "Kafka", "--kafka-port")])


def test_all_ports_in_use_are_reported_at_once() -> None:
    with socket.create_server((servers.HOST, 0)) as kafka, socket.create_server((servers.HOST, 0)) as page:
        taken = [(kafka.getsockname()[1], "Kafka", "--kafka-port"), (page.getsockname()[1], "live_page", "PAGE_PORT")]
        free = (servers.free_port(), "Elasticsearch", "--es-port")
        with pytest.raises(PortTakenError) as error:
            require_free([taken[0], free, taken[1]])
    first, *lines = str(error.value).splitlines()
    assert first.startswith("these ports are in use: stop what listens there, or run beside it with --free-ports")
    assert [line.split(", but ")[0] for line in lines] == [f"  {owner} needs port {port}" for port, owner, _ in taken]
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["(--kafka-port)", "(PAGE_PORT)"]


@pytest.mark.skipif(sys.platform != "linux", reason="the range of outgoing ports is read from Linux")
def test_a_free_port_is_none_that_an_outgoing_connection_could_take(monkeypatch: pytest.MonkeyPatch) -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = [servers.free_port() for _ in range(50)]
    assert all(10_000 <= port < first_outgoing for port in ports)
    assert len(set(ports)) == 50
    with socket.socket() as listener:
        listener.bind((servers.HOST, ports[0]))
        listener.listen()
        monkeypatch.setattr(servers, "_returned_ports", set())
        monkeypatch.setattr(servers, "_random_ports", lambda: [ports[0], ports[1]])
        assert servers.free_port() == ports[1]
        monkeypatch.setattr(servers, "_random_ports", list)
        assert servers.free_port() >= 1024


def test_too_little_memory_is_reported_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_stack.preflight._MEMORY_NEEDED", 1 << 60)
    with pytest.raises(StackError, match="free memory are needed"):
        prepare(Plan(tmp_path), [], Console(file=io.StringIO()))


def _ended_process(
    data: Path, *, optional: bool = False, may_end: bool = False, command: str = "exit 3"
) -> ManagedProcess:
    servers.log_file(data, "it").close()
    (data / "logs" / "it.log").write_text("INFO of an earlier start\n")
    executor = TCPExecutor(["sh", "-c", command], servers.HOST, servers.free_port())
    process = ManagedProcess("it", executor, data, "here", optional=optional, may_end=may_end)
    process.start()
    assert executor.process is not None
    executor.process.wait()
    return process


def test_a_process_that_has_ended_ends_the_stack(tmp_path: Path) -> None:
    process = _ended_process(tmp_path, optional=False)
    with pytest.raises(StackError, match=r"^it has ended with status 3: no output"):
        process.require_running(Console(file=io.StringIO()))


def test_a_process_that_dies_after_it_was_ready_is_started_again_until_it_dies_too_often(tmp_path: Path) -> None:
    port = servers.free_port()
    servers.log_file(tmp_path, "it").close()
    listen = f"import socket, time; s = socket.create_server(('{servers.HOST}', {port})); time.sleep(60)"
    executor = TCPExecutor([sys.executable, "-c", listen], servers.HOST, port)
    process = ManagedProcess("it", executor, tmp_path, "here")
    terminal = io.StringIO()
    console = Console(file=terminal, width=100)

    def kill() -> None:
        assert executor.process is not None
        executor.process.kill()
        executor.process.wait()

    try:
        process.start()
        while not process.is_ready(console):
            time.sleep(0.02)
        for deaths in (1, 2):
            kill()
            while terminal.getvalue().count("ready again it after") < deaths:
                process.require_running(console)
                time.sleep(0.02)
        kill()
        with pytest.raises(StackError, match=r"^3 times within a minute: it was killed by SIGKILL \(kill -9"):
            process.require_running(console)
    finally:
        process.stop()
    assert terminal.getvalue().count("starting again: it was killed by SIGKILL (kill -9") == 2


def test_deaths_that_are_long_ago_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = _ended_process(tmp_path)
    monkeypatch.setattr("local_stack.managed_process.DEATHS_WITHIN", 0.0)
    assert [process._may_start_again() for _ in range(5)] == [True] * 5


class _Observer:
    """Returns the same snapshot at any time."""

    def snapshot(self) -> Snapshot:
        return Snapshot(sent=7)

    def lake_rows(self, _: str) -> int | None:
        return None

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("snapshot", "lake", "malformed", "expected"),
    [
        (
            Snapshot(sent=7, indexed=5),
            5,
            2,
            "in the lake and indexed 5 + malformed 2",
        ),
        (Snapshot(sent=7, indexed=7), 7, 0, "in the lake and indexed 7"),
        (Snapshot(sent=7, indexed=7), 6, 0, None),
        (Snapshot(sent=7, indexed=8), 7, 0, None),
        (Snapshot(sent=7, indexed=7), 7, 1, None),
        (Snapshot(sent=7), 7, 0, None),
        (Snapshot(indexed=7), 7, 0, None),
        (Snapshot(sent=7, indexed=7), 7, None, None),
    ],
)
def test_the_demo_ends_with_what_was_lost_or_doubled(
    snapshot: Snapshot, lake: int, malformed: int | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = _Observer()
    monkeypatch.setattr(observer, "lake_rows", lambda _: lake)
    snapshot = replace(snapshot, cuts=(Cut(lake, {}, malformed=malformed),))
    terminal = io.StringIO()
    console = Console(file=terminal, width=200)
    if expected is not None:
        demo._require_everything(snapshot, cast(Observer, observer), console)
        assert terminal.getvalue().strip() == f"sent 7 = {expected}: nothing lost, nothing twice"
    else:
        with pytest.raises(NotEverythingError, match=r"^sent .*, in the lake .*, malformed .*, indexed .*: the next"):
            demo._require_everything(snapshot, cast(Observer, observer), console)


def test_a_process_that_may_end_and_has_sent_everything_does_not_end_the_stack(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "it.log"
    process = _ended_process(tmp_path, may_end=True, command=f"echo 'INFO sent 7 interactions' >> {log}")
    terminal = io.StringIO()
    console = Console(file=terminal, width=100)
    assert process.is_ready(console)
    process.require_running(console)
    assert process.has_ended
    assert terminal.getvalue() == "it has sent everything: INFO sent 7 interactions\n"
    process.stop()


@pytest.mark.parametrize("command", ["exit 1", "kill -9 $$"])
def test_a_process_that_may_end_and_has_failed_ends_the_stack(command: str, tmp_path: Path) -> None:
    process = _ended_process(tmp_path, may_end=True, command=command)
    with pytest.raises(StackError, match=r"^it (has ended with status 1|was killed by SIGKILL)"):
        process.require_running(Console(file=io.StringIO()))
    assert not process.has_ended


def test_a_demo_whose_process_ends_early_prints_the_summary_and_then_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> ManagedProcess:
        return _ended_process(tmp_path, optional=False)

    for name in ("prepare", "start_in_parallel"):
        monkeypatch.setattr(demo, name, lambda *_: None)
    monkeypatch.setattr(demo, "_servers", lambda *_: [])
    monkeypatch.setattr(demo, "_service", ended)
    monkeypatch.setattr(demo, "_observer", lambda _: _Observer())
    monkeypatch.setattr("local_stack.services.cds_archive_in_background", lambda *_: contextlib.nullcontext())
    terminal = io.StringIO()
    monkeypatch.setattr(stack, "Console", lambda: Console(file=terminal, width=100))
    monkeypatch.setattr("sys.argv", ["local_stack", "demo", "--no-view", "--data", str(tmp_path)])
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        assert stack.main() == 1
    finally:
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    lines = terminal.getvalue().splitlines()
    assert lines[-1].startswith("stopped early: it has ended with status 3: no output (log: ")
    summary = [line.split() for line in lines]
    assert ["sent", "7"] in summary
    assert ["in", "the", "lake", "unknown"] in summary


def test_an_optional_process_that_has_ended_is_reported_once_and_the_stack_goes_on(tmp_path: Path) -> None:
    process = _ended_process(tmp_path, optional=True)
    terminal = io.StringIO()
    console = Console(file=terminal)
    assert process.is_ready(console)
    process.require_running(console)
    assert terminal.getvalue().count("it has ended with status 3") == 1
    assert process.memory() == 0
    process.stop()


_DEMO_DATA = {
    "PRODUCER_RATE": "0.005",
    "PRODUCER_WAVE": "180",
    "PRODUCER_CONTROLS": "true",
    "RANDOM_DATA_MAX_USERS": "1000",
    "RANDOM_DATA_MAX_ITEMS": "200",
    "RANDOM_DATA_SKEW": "1",
    "DATA_MAPPER": str(ROOT / "03-ElasticsearchSink-Alert/demo_data_mapper.yml"),
}


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment nor `.env` has a setting of the demo."""
    monkeypatch.chdir(tmp_path)
    for name in (*_DEMO_DATA, "PRODUCER_SOURCE"):
        monkeypatch.delenv(name, raising=False)


def _chosen(plan: Plan) -> dict[str, str]:
    """Return the settings that the demo chooses, of those that a user may set."""
    return {name: value for name, value in plan.service_settings.items() if name in _DEMO_DATA}


@pytest.mark.usefixtures("no_settings")
def test_the_demo_has_defaults_of_its_own_which_the_user_overrides_one_by_one(tmp_path: Path) -> None:
    assert _chosen(Plan(tmp_path)) == _DEMO_DATA
    for name in _DEMO_DATA:
        (tmp_path / ".env").write_text(f"{name}=3\n")
        assert _chosen(Plan(tmp_path)) == {other: value for other, value in _DEMO_DATA.items() if other != name}


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("other", ["another declaration", "rules beside the declaration", "a recorded file"])
def test_the_demo_of_other_data_sends_50_events_a_second_and_keeps_their_rules(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if other == "another declaration":
        monkeypatch.setattr(declared, "FILE", ROOT / "examples/sensors/pipeline.py")
    elif other == "rules beside the declaration":
        monkeypatch.setattr(declared, "FILE", tmp_path / "pipeline.py")
        monkeypatch.setattr("local_stack.services.ROOT", tmp_path)
        (tmp_path / "data_mapper.yml").touch()
    else:
        monkeypatch.setenv("PRODUCER_SOURCE", "events.csv")
    assert _chosen(Plan(tmp_path)) == {"PRODUCER_RATE": "0.02", "PRODUCER_CONTROLS": "true"}


@pytest.mark.usefixtures("no_settings")
def test_verify_compares_with_the_rules_of_the_demo_whose_warehouse_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"WAREHOUSE": str(tmp_path / "warehouse")}
    default = VerifySettings().data_mapper
    demo.link_data_mapper(Plan(tmp_path))
    assert VerifySettings.read({}, values).rules.samefile(_DEMO_DATA["DATA_MAPPER"])
    assert VerifySettings.read({}, {}).rules == default
    mine = str(tmp_path / "mine.yml")
    assert VerifySettings.read({}, {**values, "DATA_MAPPER": mine}).rules == Path(mine)
    # The next demo has other rules.
    monkeypatch.setenv("DATA_MAPPER", mine)
    demo.link_data_mapper(Plan(tmp_path))
    monkeypatch.delenv("DATA_MAPPER")
    assert VerifySettings.read({}, values).rules == default


@pytest.mark.parametrize("other", ["a file", "a link to a file", "a loop", "a link to nothing", "a copy of the demo's"])
def test_verify_takes_no_rules_but_the_demos_own_from_the_folder_of_a_warehouse(tmp_path: Path, other: str) -> None:
    beside, elsewhere = tmp_path / "data_mapper.yml", tmp_path / "other.yml"
    elsewhere.write_text("{}")
    if other == "a file":
        beside.write_text("{}")
    elif other == "a copy of the demo's":
        beside.write_bytes(Path(_DEMO_DATA["DATA_MAPPER"]).read_bytes())
    else:
        beside.symlink_to({"a loop": beside, "a link to a file": elsewhere}.get(other, tmp_path / "missing.yml"))
    settings = VerifySettings.read({}, {"WAREHOUSE": str(tmp_path / "warehouse")})
    assert settings.rules == VerifySettings().data_mapper


def test_the_demo_prints_the_command_that_compares_what_it_has_stored(tmp_path: Path) -> None:
    assert Plan(DEFAULT_DATA).verify_command == "make verify"
    folder = tmp_path / "my data"
    command = Plan(folder, kafka_port=19092).verify_command
    assert shlex.split(command) == [
        "KAFKA_BROKER=127.0.0.1:19092", "ES_HOST=http://127.0.0.1:9200", f"WAREHOUSE={folder}/warehouse",
        "make", "verify",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "shown"),
    [
        ("/home/someone/clone/my data", "my data/warehouse"),
        ("/home/someone/data", "../data/warehouse"),
        ("/tmp/data", "/tmp/data/warehouse"),
    ],
    ids=["in the clone", "beside it", "far from it"],
)
def test_the_commands_that_the_demo_prints_have_the_shorter_path_of_its_data(
    monkeypatch: pytest.MonkeyPatch, folder: str, shown: str
) -> None:
    # They run in the clone, wherever the demo was started.
    monkeypatch.setattr(services, "ROOT", Path("/home/someone/clone"))
    for command in (Plan(Path(folder)).verify_command, Plan(Path(folder)).status_command):
        assert f"WAREHOUSE={shown}" in shlex.split(command)
    assert os.path.normpath(services.ROOT / shown) == f"{folder}/warehouse"


def test_the_demo_prints_the_command_that_shows_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PRODUCER_METRICS_PORT", "STREAM_METRICS_PORT", "SINK_METRICS_PORT", "METRICS_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert Plan(DEFAULT_DATA).status_command == "make status"
    monkeypatch.setenv("SINK_METRICS_PORT", "19103")
    assert shlex.split(Plan(DEFAULT_DATA).status_command) == [
        "PRODUCER_URL=http://127.0.0.1:9101", "STREAM_URL=http://127.0.0.1:9102", "SINK_URL=http://127.0.0.1:19103",
        "make", "status",
    ]  # fmt: skip
    assert shlex.split(Plan(tmp_path).status_command)[:3] == [
        "KAFKA_BROKER=127.0.0.1:9092", "ES_HOST=http://127.0.0.1:9200", f"WAREHOUSE={tmp_path}/warehouse",
    ]  # fmt: skip


def test_the_pipeline_is_drained_only_when_every_stage_has_caught_up() -> None:
    drained = Snapshot(sent=10, in_the_lake=8, dead_letters=2, aggregated=8, sink_lag=0, uncommitted=0)
    assert drained.is_drained
    assert not Snapshot(sent=11, in_the_lake=8, dead_letters=2, aggregated=8, sink_lag=0, uncommitted=0).is_drained
    assert not Snapshot(sent=10, in_the_lake=8, dead_letters=2, aggregated=7, sink_lag=0, uncommitted=0).is_drained
    assert not Snapshot(sent=10, in_the_lake=8, dead_letters=2, aggregated=8, sink_lag=1, uncommitted=0).is_drained
    # The sink does not know yet of the latest rows.
    assert not Snapshot(sent=10, in_the_lake=8, dead_letters=2, aggregated=8, sink_lag=0, uncommitted=3).is_drained
    assert not Snapshot(sent=10, in_the_lake=8, dead_letters=2, aggregated=None, sink_lag=0, uncommitted=0).is_drained
    assert not Snapshot().is_drained


def test_java_reads_the_truststore_of_the_authorities_that_python_trusts(tmp_path: Path) -> None:
    authorities = ssl.create_default_context().get_ca_certs(binary_form=True)
    assert authorities
    (store, kind) = java_options(tmp_path)
    assert kind.endswith("=JKS")
    keytool = JAVA_HOME / "bin" / "keytool"
    listing = subprocess.run(
        [str(keytool), "-list", "-keystore", store.split("=", 1)[1], "-storepass", "changeit"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert f"contains {len(authorities)} entries" in listing
    assert listing.count("trustedCertEntry") == len(authorities)


def test_the_summary_is_of_a_snapshot_that_was_started_after_the_pipeline_had_drained() -> None:
    cut = Cut(8, {0: 8}, malformed=0)
    drained = Snapshot(sent=8, cuts=(cut,), in_the_lake=8, dead_letters=0, aggregated=8, sink_lag=0, uncommitted=0)
    # Not all dead letters were read yet.
    earlier = replace(drained, cuts=(replace(cut, malformed=None),))
    later = replace(drained, documents={"agg_interactions_user": 8})
    observer = SimpleNamespace(snapshot=iter([earlier, drained, later]).__next__)
    assert demo._drain(observer, [], Console()) is later  # type: ignore[arg-type]
