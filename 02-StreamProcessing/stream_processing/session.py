"""The Spark session, set up for small, frequent batches on few cores."""

import os
import socket
from pathlib import Path

from pyspark.sql import SparkSession

from stream_processing.settings import StreamProcessingSettings

CORES = max(2, os.cpu_count() or 2)
"""The shuffle's partitions, and so those of the state: fixed for good by the first checkpoint."""

_LOG4J = Path(__file__).with_name("log4j2.properties")
_FILE_MANAGER = "org.apache.spark.sql.execution.streaming.FileSystemBasedCheckpointFileManager"
_ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"


def start_session(settings: StreamProcessingSettings) -> SparkSession:
    """Start Spark, or raise whatever it says."""
    config = {
        "spark.master": settings.master,
        # The driver is always this process. Unsaid, Spark would take DEPLOY_MODE for its own variable.
        "spark.submit.deployMode": "client",
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile=file:{_LOG4J}",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # A batch is small: a task per core, and no second planning of a plan that never changes.
        "spark.sql.shuffle.partitions": str(CORES),
        "spark.sql.adaptive.enabled": "false",
        # Delta replays its log into 50 partitions by default: 50 tasks for each look at a small table.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.streaming.stateStore.providerClass": _ROCKSDB,
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "true",
        "spark.sql.streaming.minBatchesToRetain": "20",
        # The default file manager starts a process to look for a link at every commit to a checkpoint.
        "spark.sql.streaming.checkpointFileManagerClass": _FILE_MANAGER,
    }
    if settings.deploy_mode == "cluster":
        config |= {
            "spark.driver.host": socket.gethostname(),
            "spark.driver.bindAddress": "0.0.0.0",
            "spark.executor.memory": settings.spark_executor_memory,
            "spark.executor.extraJavaOptions": f"-Dlog4j2.configurationFile=file:{_LOG4J}",
            # A lost worker's tasks are tried elsewhere, for as long as there is an elsewhere.
            "spark.task.maxFailures": "16",
        }
    if settings.spark_jars is not None:
        config["spark.driver.extraClassPath"] = f"{settings.spark_jars.resolve()}/*"
    builder = SparkSession.Builder().appName("stream-processing")
    for name, value in config.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
