"""The three services as processes on this machine, each ready when its /health says so."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyspark
from mirakuru import HTTPExecutor

from local_stack.cache import SPARK
from local_stack.java import JAVA_HOME
from local_stack.servers import HOST, log_file

ROOT = Path(__file__).parents[1]


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


def environment(data: Path) -> dict[str, str]:
    """What every service needs to run here: the wheel's Java and Spark, whatever else this machine has."""
    return {
        "JAVA_HOME": str(JAVA_HOME),
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "SPARK_JARS": str(SPARK.folder),
        "SPARK_LOCAL_IP": HOST,
        "WAREHOUSE": str(data / "warehouse"),
        "CHECKPOINTS": str(data / "checkpoints"),
    }


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
