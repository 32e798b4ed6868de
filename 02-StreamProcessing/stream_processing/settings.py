"""The stream job's settings."""

from pathlib import Path
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from contract.settings import NonEmptyStr, Port, Settings


class StreamProcessingSettings(Settings):
    """What the stream job needs to know beyond what all services do."""

    deploy_mode: Literal["client", "cluster"] = "client"
    """client: Spark runs inside this process. cluster: on the cluster at `spark_master_url`."""
    spark_master_url: NonEmptyStr = "spark://spark-master:7077"
    spark_driver_memory: NonEmptyStr = "1g"
    spark_executor_memory: NonEmptyStr = "768m"
    """Of each executor, on a cluster."""
    spark_jars: Path | None = None
    """Folder of the connectors' jars; unset where they are among Spark's own, as in the image."""
    class_archive: Path | None = None
    """Java's archive of the classes that the job loads (see the module of that name); it may be missing."""
    warehouse: NonEmptyStr = ".data/warehouse"
    """Where the Delta tables are: a path or any URI that Hadoop knows."""
    checkpoints: NonEmptyStr = ".data/checkpoints"
    """Where the queries keep their progress and state: a path or any URI that Hadoop knows."""
    state_store: Literal["memory", "rocksdb"] = "memory"
    """Where the counts per key are while the job runs: in the driver's or executors' heap, about 350 bytes a key,
    or in RocksDB, slower and outside of the heap. Checkpoints hold them in either case, each in its own form."""
    max_offsets_per_batch: PositiveInt = 1_500_000
    """The most records that one ingest batch takes from Kafka."""
    materialise_interval: PositiveFloat = 20.0
    """Seconds between updates of the aggregate tables in the warehouse."""
    upkeep_interval: PositiveFloat = 300.0
    """Seconds between rounds of upkeep: small files put together, old versions and logs removed."""
    lake_history: PositiveFloat = 10.0
    """Minutes for which old versions of a table can be read."""
    stream_metrics_port: Port = 9102

    @property
    def master(self) -> str:
        """The master that Spark is given."""
        return self.spark_master_url if self.deploy_mode == "cluster" else "local[*]"
