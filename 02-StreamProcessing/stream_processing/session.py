"""Starts and stops the Spark session; its tuning is in `spark_config`."""

import logging
import os
import re
from pathlib import Path
from typing import Final

import pyspark
from pyspark.sql import SparkSession

from runtime import logs
from stream_processing import spark_internals
from stream_processing.settings import StreamProcessingSettings
from stream_processing.spark_config import spark_config
from stream_processing.spark_master import require_master

logger = logging.getLogger(__name__)

_CONNECTORS: Final = ("delta-spark_*.jar", "spark-sql-kafka-0-10_*.jar")
_SECRET: Final = re.compile(r"(?i)secret|password|token|access[.]?key")
"""The names of the options whose values Spark masks in its own logs and pages: its `spark.redaction.regex`."""


class NoJarsError(Exception):
    """The connectors of Kafka and Delta Lake are missing; the message says how to get them."""


def start_session(settings: StreamProcessingSettings, *, java_options: str = "") -> SparkSession:
    """Start Spark; `java_options` are appended to the driver's.

    Raises `NoJarsError`, `JavaStartError`, `NoMasterError` on a cluster, or Spark's own errors.
    """
    _require_jars(settings.spark_jars)
    if settings.deploy_mode == "cluster":
        require_master(settings.spark_master_url)
    else:
        # No other machine connects to it. Spark would choose an address of the network, with two warnings if the host's
        # own name is one of the loopback address.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.Builder()
    config = _start_java(settings, java_options)
    for name, value in config.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    spark_internals.disable_checksum_files(session)
    return session


def _start_java(settings: StreamProcessingSettings, java_options: str) -> dict[str, str]:
    """Start Java, without the class archive if it cannot with it; return the whole configuration of the session."""
    config = {"spark.app.name": "stream-processing", **spark_config(settings, java_options)}
    try:
        # Any user of the machine sees a command line: the session that is built in this Java gets the secret options.
        spark_internals.start_java(
            {name: value for name, value in config.items() if _SECRET.search(name) is None},
            relayed=settings.log_format == logs.JSON,
        )
    except spark_internals.JavaStartError:
        archive = settings.class_archive
        if archive is None or not archive.exists():
            raise
        logger.warning(
            "Java has ended as it started: trying again without CLASS_ARCHIVE=%s, which may be damaged: delete it, or"
            " create it again (`python -m build_tools.cds_archive FILE`; `make` does so when it is missing)",
            archive,
        )
        return _start_java(settings.model_copy(update={"class_archive": None}), java_options)
    return config


def stop_session(session: SparkSession) -> None:
    """Stop Spark and wait until its Java process has ended."""
    spark_internals.stop_java(session)


def set_polling_interval(session: SparkSession, seconds: float) -> None:
    """Set how often a query that is started from now on polls its source while there is no new data."""
    session.conf.set("spark.sql.streaming.pollingDelay", f"{max(10, round(seconds * 1000))}ms")


def trigger_interval(seconds: float) -> str:
    """Return an interval between two batches as Spark takes it, which rejects exponents and more than 9 decimals.

    >>> trigger_interval(0.4), trigger_interval(1e-6)
    ('400 milliseconds', '1 milliseconds')
    """
    return f"{max(1, round(seconds * 1000))} milliseconds"


def _require_jars(folder: Path | None) -> None:
    spark_jars = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent) / "jars"
    folders = [spark_jars] if folder is None else [folder, spark_jars]
    for jar in _CONNECTORS:
        if not any(any(each.glob(jar)) for each in folders):
            raise NoJarsError(
                f"{jar} is not in {' or '.join(map(str, folders))}: `python -m build_tools.jars FOLDER`"
                " downloads all required jars to a folder, and SPARK_JARS=FOLDER makes the job use them"
                " (`make` keeps them in ~/.cache/streaming-analytics-stack/spark)"
            )
