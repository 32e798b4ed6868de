"""Spark's configuration, tuned for small, frequent batches on few cores."""

import os
import socket
from pathlib import Path
from typing import Final

from stream_processing.quoting import double_quoted
from stream_processing.settings import StreamProcessingSettings

_SHUFFLE_PARTITIONS: Final = max(2, os.cpu_count() or 2)
"""Also the number of partitions of the state in RocksDB: the first checkpoint fixes it."""
_OPTIMISED_FROM: Final = {
    "InvocationThreshold": 5_000,
    "MinInvocationThreshold": 600,
    "CompileThreshold": 15_000,
    "BackEdgeThreshold": 40_000,
}
"""Java's defaults: the calls and iterations from which it optimises code."""
_LOG_FORMAT: Final = "-Dlog.format="
"""The property of Java that selects the pattern in `log4j2.properties`."""
_JAVA_OPTIONS: Final = " ".join(
    [
        double_quoted(
            f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').absolute().as_uri()}"
        ),
        # Batches need throughput; pauses of milliseconds do not matter.
        "-XX:+UseParallelGC",
        # The code that Spark generates for parsing is longer than Java compiles by default.
        "-XX:-DontCompileHugeMethods",
        # The optimising compiler only for code that runs 20 times as often as by default: it would take a fifth of the
        # processor while a job processes its first millions, most of it for code that is seldom used.
        *(f"-XX:Tier4{name}={20 * default}" for name, default in _OPTIMISED_FROM.items()),
        # Room for all classes: Java would run several full collections before it grows the metaspace.
        "-XX:MetaspaceSize=256m",
        # In any other time zone Delta recomputes a table's state at every commit, to verify its timestamps.
        "-Duser.timezone=UTC",
    ]
)
_FILE_MANAGER: Final = "org.apache.spark.sql.execution.streaming.FileSystemBasedCheckpointFileManager"
_OBJECT_STORE_FILE_MANAGER: Final = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"
_STATE_STORE_PROVIDER: Final = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
"""For `STATE_STORE=rocksdb`; otherwise no query has state."""


def spark_config(settings: StreamProcessingSettings, java_options: str = "") -> dict[str, str]:
    """Return Spark's configuration; `java_options` are appended to the driver's."""
    if settings.class_archive is not None and settings.class_archive.exists():
        java_options += " " + double_quoted(f"-XX:SharedArchiveFile={settings.class_archive.resolve()}")
    return {
        **_driver(settings, java_options),
        **_SQL,
        **_DELTA,
        **_streaming(settings),
        **_file_systems(settings),
        **(_cluster(settings) if settings.deploy_mode == "cluster" else {}),
    }


def _driver(settings: StreamProcessingSettings, java_options: str) -> dict[str, str]:
    config = {
        "spark.master": settings.master,
        # The driver is always this process. Without this, Spark would take DEPLOY_MODE for its own variable.
        "spark.submit.deployMode": "client",
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.driver.extraJavaOptions": f"{_JAVA_OPTIONS} {_LOG_FORMAT}{settings.log_format} {java_options}",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if settings.spark_jars is not None:
        config["spark.driver.extraClassPath"] = f"{settings.spark_jars.resolve()}/*"
    return config


_SQL: Final = {
    "spark.sql.session.timeZone": "UTC",
    # Parquet's own timestamp type: the old default has no statistics, so that no file could be skipped.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    # A batch is small: a task per core, and no second planning of a plan that never changes.
    "spark.sql.shuffle.partitions": str(_SHUFFLE_PARTITIONS),
    "spark.sql.adaptive.enabled": "false",
    # All queries share the cache of generated code: with fewer entries it would be compiled again and again.
    "spark.sql.codegen.cache.maxEntries": "1000",
    # Every execution formats its plan for the UI, which is disabled: keep that cheap.
    "spark.sql.ui.explainMode": "simple",
    "spark.sql.maxPlanStringLength": "200",
}

_DELTA: Final = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # Delta replays its log into 50 partitions by default: 50 tasks for each read of a small table.
    "spark.databricks.delta.snapshotPartitions": "2",
    # A batch without valid records too leaves its offsets in the table's history.
    "spark.databricks.delta.skipRecordingEmptyCommits": "false",
    # The default for local files uses Hadoop's other interface, which runs `chmod` for each file too.
    "spark.delta.logStore.file.impl": "io.delta.storage.LocalLogStore",
}


def _streaming(settings: StreamProcessingSettings) -> dict[str, str]:
    return {
        "spark.sql.streaming.stateStore.providerClass": _STATE_STORE_PROVIDER,
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "true",
        "spark.sql.streaming.minBatchesToRetain": "20",
        # The default file manager starts a process to check for a link at every commit to a checkpoint; and on a
        # store without renames, a file has to appear at once and complete.
        "spark.sql.streaming.checkpointFileManagerClass": (
            _OBJECT_STORE_FILE_MANAGER if settings.checkpoints.startswith("s3a:") else _FILE_MANAGER
        ),
    }


def _file_systems(settings: StreamProcessingSettings) -> dict[str, str]:
    return {
        # Hadoop's own local file system starts a process, `chmod`, for each file that it creates.
        "spark.hadoop.fs.file.impl": "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem",
        # Hadoop's checksum files would double the listing of every folder; `disable_checksum_files` is the other half.
        "spark.hadoop.fs.AbstractFileSystem.file.impl": "org.apache.hadoop.fs.local.RawLocalFs",
        **{f"spark.hadoop.{name}": value for name, value in settings.hadoop_options.items()},
    }


def _cluster(settings: StreamProcessingSettings) -> dict[str, str]:
    return {
        "spark.driver.host": socket.gethostname(),
        "spark.driver.bindAddress": "0.0.0.0",
        "spark.executor.memory": settings.spark_executor_memory,
        "spark.executor.extraJavaOptions": f"{_JAVA_OPTIONS} {_LOG_FORMAT}{settings.log_format}",
        # Tasks of a lost worker are retried on the remaining ones.
        "spark.task.maxFailures": "16",
    }
