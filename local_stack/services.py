"""The services as processes on this machine, each ready when its /health says so."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pyspark
from mirakuru import HTTPExecutor
from rich.console import Console

from local_stack import cache, exit_reason
from local_stack.environment import inherited
from local_stack.java import JAVA, JAVA_HOME
from local_stack.process_marks import marked
from local_stack.servers import HOST, log_file
from runtime import listening

ROOT = Path(__file__).parents[1]
_CDS_ARCHIVE = Path(sys.prefix) / "stream_processing.jsa"
"""Valid for this environment's Java and jars only."""
_CDS_LOG = "class_archive"
_START_TIMEOUT = 240
"""Seconds; long enough for a busy machine."""
_CANCEL_TIMEOUT = 10.0
"""Seconds after which a process that was interrupted is killed, such as one in which SIGINT is ignored."""


@dataclass(frozen=True)
class Service:
    """A service's package, its port for /health and /metrics, and the settings that change port and address."""

    package: str
    port_setting: str
    port: int
    host_setting: str = "METRICS_HOST"


PRODUCER = Service("data_producer", "PRODUCER_METRICS_PORT", 9101)
STREAM = Service("stream_processing", "STREAM_METRICS_PORT", 9102)
SINK = Service("elasticsearch_sink_alert", "SINK_METRICS_PORT", 9103)

ALL = (PRODUCER, STREAM, SINK)

PAGE = Service("live_page", "PAGE_PORT", 8090, "PAGE_HOST")


def environment(data: Path) -> dict[str, str]:
    """Return the variables that every service needs: this environment's Java and Spark, and folders below `data`."""
    return {
        "JAVA_HOME": str(JAVA_HOME),
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "SPARK_JARS": str(cache.SPARK.folder),
        "SPARK_LOCAL_IP": HOST,
        # Below `data`, so that the leftovers of a killed job are deleted with it.
        "SPARK_LOCAL_DIRS": str(data / "scratch"),
        "WAREHOUSE": str(data / "warehouse"),
        "CHECKPOINTS": str(data / "checkpoints"),
        "PRODUCER_POSITION": str(data / "replay_position.json"),
        "CLASS_ARCHIVE": str(_CDS_ARCHIVE),
    }


def fill_caches(console: Console) -> None:
    """Download the missing jars, and create the class-data archive with which the stream job starts faster.

    The archive takes half a minute, unless it exists. Raises `build_tools.jars.JarError`.
    """
    cache.fill(*cache.ALL, console=console)
    if _has_cds_archive():
        return
    with console.status("preparing a faster start of the stream job (once)"), tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("w") as output:
            status = _start_archiving(Path(folder), output).wait()
        if status:
            reason = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
            console.print(
                f"the stream job will start slower: its class archive could not be created ({reason})", markup=False
            )


@contextmanager
def cds_archive_in_background(data: Path, console: Console) -> Iterator[None]:
    """Create the same archive at the lowest priority during the `with` block; its end cancels it.

    If it has failed by then, a line says so and names the log of it.
    """
    if _has_cds_archive():
        yield
        return
    scratch = data / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with log_file(data, _CDS_LOG) as log:
        begin = log.tell()
        process = _start_archiving(scratch, log, niceness=19)
    try:
        yield
    finally:
        if status := process.poll():
            log_path = Path(log.name)
            reason = exit_reason.describe("the creation of its class archive", status, log_path, begin, data)
            console.print(f"the stream job will start slower: {reason}", markup=False, soft_wrap=True)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(_CANCEL_TIMEOUT)
        except subprocess.TimeoutExpired:
            _kill_session(process.pid)
            process.wait()


def _kill_session(leader: int) -> None:
    """Kill the leader of a session and all processes in it: its Java has a process group of its own."""
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)


def _has_cds_archive() -> bool:
    # Java rejects the archive with other jars than it was created from.
    sources = (JAVA, Path(pyspark.__file__), cache.SPARK.folder)
    return _CDS_ARCHIVE.exists() and _CDS_ARCHIVE.stat().st_mtime > max(each.stat().st_mtime for each in sources)


def _start_archiving(scratch: Path, log: IO[str], niceness: int = 0) -> "subprocess.Popen[bytes]":
    """Start the process that creates the archive, in a process group of its own, with temporary files in `scratch`."""
    settings = {**inherited(os.environ), **environment(scratch), "TMPDIR": str(scratch)}
    if not (JAVA_HOME / "lib" / "server" / "classes.jsa").exists():
        # The wheel's Java comes without the archive of its own classes that this one extends.
        subprocess.run([str(JAVA), "-Xshare:dump"], env=settings, check=False, stdout=log, stderr=subprocess.STDOUT)
    return subprocess.Popen(
        ["nice", "-n", str(niceness), sys.executable, "-m", "build_tools.cds_archive", str(_CDS_ARCHIVE)],
        cwd=ROOT,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run(service: Service, data: Path, settings: Mapping[str, str], *, port: int | None = None) -> HTTPExecutor:
    """Configure the service with data and log below `data`, without starting it.

    `settings` take precedence over the environment and `.env`. Without the setting of its address there, the service
    listens on 127.0.0.1.
    """
    actual_port = service.port if port is None else port
    host = settings.get(service.host_setting) or HOST
    executor = HTTPExecutor(
        [sys.executable, "-m", service.package],
        url=f"{listening.url(listening.local_host(host), actual_port)}/health",
        method="GET",
        timeout=_START_TIMEOUT,
        request_timeout=2,
        cwd=str(ROOT),
        expected_returncode=0,
        envvars={**environment(data), service.port_setting: str(actual_port), **settings, service.host_setting: host},
        stdin=subprocess.DEVNULL,
        stdout=log_file(data, service.package),
        stderr=subprocess.STDOUT,
    )
    return marked(executor)


def run_to_end(service: Service, data: Path, settings: Mapping[str, str]) -> None:
    """Run a service that ends by itself, without waiting for its /health.

    Raises `subprocess.CalledProcessError` if its exit status is not 0.
    """
    with log_file(data, service.package) as log:
        subprocess.run(
            [sys.executable, "-m", service.package],
            cwd=ROOT,
            env={**inherited(os.environ), **environment(data), service.port_setting: "0", **settings},
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
