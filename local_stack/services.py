"""The three services as processes on this machine, each ready when its /health says so."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyspark
from mirakuru import HTTPExecutor
from rich.console import Console

from local_stack.cache import SPARK
from local_stack.java import JAVA, JAVA_HOME
from local_stack.servers import HOST, log_file

ROOT = Path(__file__).parents[1]
_CLASS_ARCHIVE = Path(sys.prefix) / "stream_processing.jsa"
"""It is true of this environment's Java and jars alone."""


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
    # Java takes it with the very jars only that it was made from.
    made_from = (JAVA, Path(pyspark.__file__), SPARK.folder)
    if _CLASS_ARCHIVE.exists() and _CLASS_ARCHIVE.stat().st_mtime > max(each.stat().st_mtime for each in made_from):
        return
    with console.status("preparing a faster start of the stream job (once)"):
        # The wheel's Java comes without an archive of its own classes, which this one builds upon.
        base = [str(JAVA), "-Xshare:dump"]
        command = [sys.executable, "-m", "stream_processing.class_archive", str(_CLASS_ARCHIVE)]
        try:
            with tempfile.TemporaryDirectory() as folder:
                told = {**os.environ, **environment(Path(folder))}
                for each in (base, command):
                    subprocess.run(each, cwd=ROOT, env=told, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            reason = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
            console.print(f"the stream job will start slower: its class archive could not be made ({reason})")


def run(service: Service, data: Path, settings: Mapping[str, str], *, port: int | None = None) -> HTTPExecutor:
    """The service, keeping its data and log below `data`; not started yet.

    `settings` go before the environment and `.env`.
    """
    at = port or service.port
    return HTTPExecutor(
        [sys.executable, "-m", service.package],
        url=f"http://{HOST}:{at}/health",
        method="GET",
        timeout=120,
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
            env={**os.environ, **environment(data), service.port_setting: "0", **settings},
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
