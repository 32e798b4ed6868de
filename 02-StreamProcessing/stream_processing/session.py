"""The Spark session, set up for small, frequent batches on few cores."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

from stream_processing.settings import StreamProcessingSettings
from stream_processing.spark_master import require_master

CORES = max(2, os.cpu_count() or 2)
"""The shuffle's partitions, and so those of the state: fixed for good by the first checkpoint."""


def quoted(option: str) -> str:
    """An option as Spark splits them: whatever a path has in it, it stays one."""
    escaped = option.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_JAVA_OPTIONS = " ".join(
    [
        quoted(f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').absolute().as_uri()}"),
        # Batches want throughput, and nobody waits for a pause of milliseconds.
        "-XX:+UseParallelGC",
        # The code that Spark generates for parsing is longer than what Java compiles by default.
        "-XX:-DontCompileHugeMethods",
        # Room for all classes: Java would collect everything, several times, before it makes more.
        "-XX:MetaspaceSize=256m",
        # Anywhere else Delta recomputes a table's state at every commit, to be sure of its time stamps.
        "-Duser.timezone=UTC",
    ]
)
_CONNECTORS = ("delta-spark_*.jar", "spark-sql-kafka-0-10_*.jar")
_BACKGROUND = 10
"""A niceness: a tenth of the processor while others want it, all that is free otherwise."""
_FILE_MANAGER = "org.apache.spark.sql.execution.streaming.FileSystemBasedCheckpointFileManager"
_OBJECT_STORE_FILE_MANAGER = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"
_STATE = "org.apache.spark.sql.execution.streaming.state"
_STATE_STORES = {"memory": "HDFSBackedStateStoreProvider", "rocksdb": "RocksDBStateStoreProvider"}


class NoJarsError(Exception):
    """The connectors of Kafka and Delta Lake are not there; the message says how to get them."""


def start_session(settings: StreamProcessingSettings, *, java_options: str = "") -> SparkSession:
    """Start Spark, with more options for Java where given.

    Raises `NoJarsError`, `NoMasterError` on a cluster, or whatever Spark says.
    """
    _require_jars(settings.spark_jars)
    if settings.deploy_mode == "cluster":
        require_master(settings.spark_master_url)
    if settings.class_archive is not None and settings.class_archive.exists():
        java_options += " " + quoted(f"-XX:SharedArchiveFile={settings.class_archive.resolve()}")
    config = {
        "spark.master": settings.master,
        # The driver is always this process. Unsaid, Spark would take DEPLOY_MODE for its own variable.
        "spark.submit.deployMode": "client",
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.driver.extraJavaOptions": f"{_JAVA_OPTIONS} {java_options}",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # Timestamps as Parquet's own type: the old default has no statistics, so that no file could be skipped.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.compression.codec": "zstd",
        # A batch is small: a task per core, and no second planning of a plan that never changes.
        "spark.sql.shuffle.partitions": str(CORES),
        "spark.sql.adaptive.enabled": "false",
        # Delta replays its log into 50 partitions by default: 50 tasks for each look at a small table.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.streaming.stateStore.providerClass": f"{_STATE}.{_STATE_STORES[settings.state_store]}",
        # The version before the last would only serve a task that is repeated: it is read from the checkpoint then.
        "spark.sql.streaming.maxBatchesToRetainInMemory": "1",
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "true",
        # Hadoop's own starts a process, `chmod`, for each file that it makes.
        "spark.hadoop.fs.file.impl": "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem",
        # Delta's usual one for local files goes by Hadoop's other interface, and by its `chmod`, too.
        "spark.delta.logStore.file.impl": "io.delta.storage.LocalLogStore",
        # Hadoop's checksum files would double the listing of every folder; see below for the other half.
        "spark.hadoop.fs.AbstractFileSystem.file.impl": "org.apache.hadoop.fs.local.RawLocalFs",
        # All queries share what is generated: with fewer places it would be compiled again and again.
        "spark.sql.codegen.cache.maxEntries": "1000",
        # Every execution writes its plan down for a page that nobody serves: briefly, then.
        "spark.sql.ui.explainMode": "simple",
        "spark.sql.maxPlanStringLength": "200",
        "spark.sql.streaming.minBatchesToRetain": "20",
        # The default file manager starts a process to look for a link at every commit to a checkpoint; and where
        # a file cannot be renamed, it has to appear at once and whole.
        "spark.sql.streaming.checkpointFileManagerClass": (
            _OBJECT_STORE_FILE_MANAGER if settings.checkpoints.startswith("s3a:") else _FILE_MANAGER
        ),
    }
    config |= {f"spark.hadoop.{name}": value for name, value in settings.hadoop_options.items()}
    if settings.deploy_mode == "cluster":
        config |= {
            "spark.driver.host": socket.gethostname(),
            "spark.driver.bindAddress": "0.0.0.0",
            "spark.executor.memory": settings.spark_executor_memory,
            "spark.executor.extraJavaOptions": _JAVA_OPTIONS,
            # A lost worker's tasks are tried elsewhere, for as long as there is an elsewhere.
            "spark.task.maxFailures": "16",
        }
    if settings.spark_jars is not None:
        config["spark.driver.extraClassPath"] = f"{settings.spark_jars.resolve()}/*"
    builder = SparkSession.Builder().appName("stream-processing")
    for name, value in config.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    _write_no_checksum_files(session)
    _compile_in_the_background(session)
    return session


def _require_jars(folder: Path | None) -> None:
    own = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent) / "jars"
    folders = [own] if folder is None else [folder, own]
    for jar in _CONNECTORS:
        if not any(any(each.glob(jar)) for each in folders):
            raise NoJarsError(
                f"{jar} is not in {' or '.join(map(str, folders))}: `python -m build_tools.jars FOLDER`"
                " brings all that are needed into a folder, and SPARK_JARS=FOLDER has the job take them from there"
            )


def stop_session(session: SparkSession) -> None:
    """Stop Spark, and wait until its Java process has ended."""
    gateway = session.sparkContext._gateway
    assert gateway is not None
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()


def look_every(session: SparkSession, seconds: float) -> None:
    """How often a query that is started from now on looks for new data while there is none."""
    session.conf.set("spark.sql.streaming.pollingDelay", f"{max(10, round(seconds * 1000))}ms")


def _write_no_checksum_files(session: SparkSession) -> None:
    """Keep Hadoop from writing a checksum file beside each local file: they double every folder's listing."""
    jvm = session._jvm
    assert jvm is not None
    jvm.org.apache.hadoop.fs.FileSystem.getLocal(session._jsc.hadoopConfiguration()).setWriteChecksum(False)


def _compile_in_the_background(session: SparkSession) -> None:
    """Lower the priority of Java's optimising compiler, which takes a third of the processor in a job's first minute.

    What it has not come to yet runs less optimised. Linux alone has a priority per thread; elsewhere nothing happens.
    """
    jvm = session._jvm
    assert jvm is not None
    for thread in Path(f"/proc/{jvm.java.lang.ProcessHandle.current().pid()}/task").glob("*"):
        with suppress(OSError):  # The thread has ended, or may not be touched.
            if (thread / "comm").read_text().startswith("C2 Compiler"):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), _BACKGROUND)
