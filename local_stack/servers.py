"""Kafka and Elasticsearch as processes on localhost: real servers, no container, no root."""

import contextlib
import json
import os
import random
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil
from mirakuru import HTTPExecutor, TCPExecutor

from local_stack.cache import CACHE, ELASTICSEARCH, ELASTICSEARCH_NETTY, KAFKA
from local_stack.environment import inherited
from local_stack.java import JAVA
from local_stack.process_marks import marked

HOST = "127.0.0.1"
_TEMPLATES = Path(__file__).parent / "templates"
_CLUSTER_ID = "5L6g3nShT-eMCtK--X86sw"
_JAVA_EXIT_ON_SIGTERM = 143
_FIRST_FREE_PORT = 10_000
_SHARES = 16
_returned_ports: set[int] = set()
_OUTGOING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_BESIDE = '--free-ports --data FOLDER (make demo ARGS="--free-ports --data FOLDER")'
"""The options of a stack that needs no port and no data of another one."""
_START_TIMEOUT = 180
"""Seconds; long enough for a busy machine."""


class ServerError(Exception):
    """A server cannot start; the message has the reason and the remedy."""


class PortTakenError(Exception):
    """Ports that the stack needs are in use or invalid; the message has the remedy."""


def free_port() -> int:
    """Return a TCP port on localhost that nothing listens on now.

    Below the range of outgoing connections where possible: one of those could take the port before a server does.
    """
    for port in _random_ports():
        if port in _returned_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            _returned_ports.add(port)
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _random_ports() -> list[int]:
    try:
        end = int(_OUTGOING_PORTS.read_text().split()[0])
    except (OSError, ValueError):
        end = 49_152  # IANA's first dynamic port, which macOS uses.
    # Processes that look for ports at the same time find different ones.
    candidates = range(_FIRST_FREE_PORT, end)[os.getpid() % _SHARES :: _SHARES]
    return random.SystemRandom().sample(candidates, len(candidates))


def require_free(ports: Sequence[tuple[int, str, str]]) -> None:
    """Raise `PortTakenError`, with each owner and listening process, if ports of this machine are in use or invalid.

    `ports` are numbers, each with its owner and the option or setting that changes it.
    """
    for port, owner, option in ports:
        if not 1 <= port <= 65535:
            raise PortTakenError(f"{owner} cannot use port {port}: ports are 1 to 65535: set {option} to one")
    taken = [(listener, option) for port, owner, option in ports if (listener := _conflict(port, owner))]
    if not taken:
        return
    if len(taken) == 1:
        ((line, option),) = taken
        raise PortTakenError(f"{line}: stop it, choose another port with {option}, or run beside it with {_BESIDE}")
    lines = "".join(f"\n  {line} ({option})" for line, option in taken)
    raise PortTakenError(f"these ports are in use: stop what listens there, or run beside it with {_BESIDE}{lines}")


def _conflict(port: int, owner: str) -> str:
    """Return who listens on a port that `owner` needs; empty if nobody does.

    IPv6 counts too: "localhost" may resolve to either address.
    """
    for family, host in ((socket.AF_INET, HOST), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.settimeout(1)
                taken = probe.connect_ex((host, port)) == 0
        except OSError:  # No IPv6 on this machine.
            continue
        if taken:
            where = "" if host == HOST else f" at {host}"
            return f"{owner} needs port {port}, but {_listener(port)} listens there{where}"
    return ""


def _listener(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens_at = getattr(connection.laddr, "port", None) if connection.status == psutil.CONN_LISTEN else None
            if listens_at == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return "another program"


def kafka(
    data: Path,
    port: int,
    *,
    heap: str = "512m",
    properties: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> TCPExecutor:
    """Configure a single-node KRaft broker that keeps its data in `data`, without starting it.

    `properties` take precedence over its default ones; it inherits the file `descriptors`. Raises `ServerError`.
    """
    folder = data / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "server.properties"
    logs = _escape_property(str(folder / "logs"))
    defaults = _render("kafka-server.properties", port=port, controller_port=free_port(), logs=logs)
    config.write_text("\n".join([defaults, *(f"{name}={value}" for name, value in (properties or {}).items())]) + "\n")
    log4j = folder / "log4j.properties"
    log4j.write_text(_render("kafka-log4j.properties"))
    java = [str(JAVA), f"-Xmx{heap}", f"-Dlog4j.configuration={log4j.absolute().as_uri()}", "-cp", f"{KAFKA.folder}/*"]
    if not (folder / "logs" / "meta.properties").exists():
        _format(folder / "logs", java, config)
    executor = TCPExecutor(
        [*java, "-XX:+ExitOnOutOfMemoryError", "kafka.Kafka", str(config)],
        host=HOST,
        port=port,
        timeout=_START_TIMEOUT,
        expected_returncode=_JAVA_EXIT_ON_SIGTERM,
        stdin=subprocess.DEVNULL,
        stdout=log_file(data, "kafka"),
        stderr=subprocess.STDOUT,
        popen_kwargs={"pass_fds": tuple(descriptors)},
    )
    return marked(executor)


def _format(logs: Path, java: list[str], config: Path) -> None:
    command = [*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(config)]
    completed = subprocess.run(command, env=inherited(os.environ), capture_output=True, text=True, errors="replace")
    if completed.returncode:
        lines = [line for line in (completed.stdout + completed.stderr).splitlines() if line.strip()] or ["no output"]
        reason = next((line for line in lines if "rror" in line or "xception" in line), lines[-1])
        raise ServerError(
            f"Kafka could not format {logs}: {reason.strip()}: free its disk, or keep data elsewhere (--data)"
        )


def _escape_property(text: str) -> str:
    """Escape a value of a Java properties file, which Java reads as Latin-1."""
    units = text.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[n : n + 2]) for n in range(0, len(units), 2)]
    return "".join(chr(code) if code < 0x7F else f"\\u{code:04x}" for code in codes)


def elasticsearch(data: Path, port: int, *, heap: str = "768m") -> HTTPExecutor:
    """Configure a single-node Elasticsearch that keeps its data in `data`, without starting it."""
    folder = data / "elasticsearch"
    config, scratch = folder / "config", folder / "tmp"
    for path in (config, scratch, CACHE / "elasticsearch" / "plugins"):
        path.mkdir(parents=True, exist_ok=True)
    data_folder, logs = (json.dumps(str(folder / name), ensure_ascii=False) for name in ("data", "logs"))
    settings = _render("elasticsearch.yml", port=port, transport_port=free_port(), data=data_folder, logs=logs)
    (config / "elasticsearch.yml").write_text(settings, encoding="utf-8")
    (config / "log4j2.properties").write_text(_render("elasticsearch-log4j2.properties"))
    for name in ("plugin-descriptor.properties", "plugin-security.policy"):
        (ELASTICSEARCH_NETTY.folder / name).write_text(_render(f"elasticsearch-{name}"))
    java = [
        str(JAVA), f"-Xms{heap}", f"-Xmx{heap}", f"-Djava.io.tmpdir={scratch}", "-Djava.security.manager=allow",
        f"-Des.path.home={CACHE / 'elasticsearch'}", f"-Des.path.conf={config}", "-Des.distribution.flavor=default",
        "-Des.distribution.type=tar", "-Des.bundled_jdk=false", "-Dio.netty.noUnsafe=true", "-Dlog4j2.disable.jmx=true",
        "-Dlog4j.shutdownHookEnabled=false", "-Djava.locale.providers=SPI,COMPAT",
        "--add-opens=java.base/java.io=ALL-UNNAMED", *_jna_options(), "-cp", f"{ELASTICSEARCH.folder}/*",
    ]  # fmt: skip
    executor = HTTPExecutor(
        [*java, "org.elasticsearch.bootstrap.Elasticsearch"],
        url=f"http://{HOST}:{port}/",
        method="GET",
        timeout=_START_TIMEOUT,
        request_timeout=2,
        expected_returncode=_JAVA_EXIT_ON_SIGTERM,
        envvars={"ES_TMPDIR": str(scratch), "LIBFFI_TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=log_file(data, "elasticsearch"),
        stderr=subprocess.STDOUT,
    )
    return marked(executor)


def _jna_options() -> list[str]:
    # Elasticsearch detects through JNA that it runs as root, and refuses to. Another user could not read a clone in
    # root's home, and this is a demo on localhost: as root it runs without JNA's native library, which otherwise
    # locks memory and filters system calls.
    return ["-Djna.nosys=true", "-Djna.nounpack=true"] if os.geteuid() == 0 else []


def log_file(data: Path, name: str) -> IO[str]:
    """Open the log of a process below `data`, to append to it."""
    (data / "logs").mkdir(parents=True, exist_ok=True)
    return (data / "logs" / f"{name}.log").open("a")


def _render(template: str, **values: object) -> str:
    text = (_TEMPLATES / template).read_text()
    return text.format_map({name: str(value) for name, value in values.items()}) if values else text
