"""The three services as processes on this machine, each ready when its /health says so."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyspark
from mirakuru import HTTPExecutor
from rich.console import Console

from local_stack.cache import SPARK
from local_stack.environment import inherited
from local_stack.java import JAVA, JAVA_HOME
from local_stack.servers import HOST, log_file

ROOT = Path(__file__).parents[1]
_CLASS_ARCHIVE = Path(sys.prefix) / "stream_processing.jsa"
"""It is true of this environment's Java and jars alone."""
_START_TIMEOUT = 240
"""Seconds, for a machine that is busy with other things as well."""


@dataclass(frozen=True)
class Service:
    """A service's package, and the setting that holds its port for /health and /metrics."""

    package: str
    port_setting: str
    port: int


PRODUCER = Service("data_producer", "PRODUCER_METRICS_PORT", 9101)
STREAM = Service("stream_processing", "STREAM_METRICS_PORT", 9102)
SINK = Service("elasticsearch_sink_alert", "SINK_METRICS_PORT", 9103)

ALL = (PRODUCER, STREAM, SINK)

PAGE = Service("live_page", "PAGE_PORT", 8090)


def environment(data: Path) -> dict[str, str]:
    """What every service needs to run here: the wheel's Java and Spark, whatever else this machine has."""
    return {
        "JAVA_HOME": str(JAVA_HOME),
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "SPARK_JARS": str(SPARK.folder),
        "SPARK_LOCAL_IP": HOST,
        # What a killed job leaves goes with all other data.
        "SPARK_LOCAL_DIRS": str(data / "scratch"),
        "WAREHOUSE": str(data / "warehouse"),
        "CHECKPOINTS": str(data / "checkpoints"),
        "CLASS_ARCHIVE": str(_CLASS_ARCHIVE),
    }


def make_class_archive(console: Console) -> None:
    """Make the archive of classes from which the stream job starts faster, unless there is one; half a minute."""
    if _has_class_archive():
        return
    with console.status("preparing a faster start of the stream job (once)"), tempfile.TemporaryDirectory() as folder:
        process = _archiving(Path(folder))
        _, said = process.communicate()
        if process.returncode:
            reason = (said.strip().splitlines() or ["it said nothing"])[-1]
            console.print(
                f"the stream job will start slower: its class archive could not be made ({reason})", markup=False
            )


@contextmanager
def class_archive_in_background(data: Path) -> Iterator[None]:
    """While this is entered, make that archive at the lowest priority; given up where it is not done at the end."""
    if _has_class_archive():
        yield
        return
    scratch = data / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    process = _archiving(scratch, niceness=19)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _has_class_archive() -> bool:
    # Java takes it with the very jars only that it was made from.
    made_from = (JAVA, Path(pyspark.__file__), SPARK.folder)
    return _CLASS_ARCHIVE.exists() and _CLASS_ARCHIVE.stat().st_mtime > max(each.stat().st_mtime for each in made_from)


def _archiving(scratch: Path, niceness: int = 0) -> "subprocess.Popen[str]":
    """The process that makes the archive, in a group of its own, with its temporary files in `scratch`."""
    settings = {**inherited(os.environ), **environment(scratch), "TMPDIR": str(scratch)}
    if not (JAVA_HOME / "lib" / "server" / "classes.jsa").exists():
        # The wheel's Java comes without an archive of its own classes, which this one builds upon.
        subprocess.run([str(JAVA), "-Xshare:dump"], env=settings, check=False, capture_output=True)
    return subprocess.Popen(
        ["nice", "-n", str(niceness), sys.executable, "-m", "build_tools.cds_archive", str(_CLASS_ARCHIVE)],
        cwd=ROOT,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(service: Service, data: Path, settings: Mapping[str, str], *, port: int | None = None) -> HTTPExecutor:
    """The service, keeping its data and log below `data`; not started yet.

    `settings` go before the environment and `.env`.
    """
    at = service.port if port is None else port
    return HTTPExecutor(
        [sys.executable, "-m", service.package],
        url=f"http://{HOST}:{at}/health",
        method="GET",
        timeout=_START_TIMEOUT,
        request_timeout=2,
        cwd=str(ROOT),
        expected_returncode=0,
        envvars={**environment(data), service.port_setting: str(at), **settings},
        stdin=subprocess.DEVNULL,
        stdout=log_file(data, service.package),
        stderr=subprocess.STDOUT,
    )


def run_to_end(service: Service, data: Path, settings: Mapping[str, str]) -> None:
    """The service, which ends by itself; it may do so before anyone could have asked for its health.

    Raises `subprocess.CalledProcessError` where its exit status is not 0.
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
