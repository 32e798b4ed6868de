"""The stream job's settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from pydantic import PositiveFloat, PositiveInt, SecretStr

from runtime.settings import NonEmptyStr, Port, Settings, missing

_HADOOP_NAMES: Final = {
    "AWS_REGION": "fs.s3a.endpoint.region",
    "AWS_ENDPOINT_URL": "fs.s3a.endpoint",
    "AWS_ACCESS_KEY_ID": "fs.s3a.access.key",
    "AWS_SECRET_ACCESS_KEY": "fs.s3a.secret.key",
}
"""What Hadoop calls the options that delta-rs knows by the names of Amazon's own tools."""


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
    aws_endpoint_url: str | None = None
    """The S3-compatible server for s3a:// locations; unset for Amazon's."""
    aws_region: str = "us-east-1"
    aws_access_key_id: str | None = None
    """Unset, this and the next: whatever the machine has, as its role or an environment of its own."""
    aws_secret_access_key: SecretStr | None = None
    state_store: Literal["memory", "rocksdb"] = "memory"
    """Where the counts per key are while the job runs: in the driver's or executors' heap, about 350 bytes a key,
    twice while a batch changes it, or in RocksDB, slower and outside of the heap. Checkpoints hold them in either case,
    each in its own form."""
    max_offsets_per_batch: PositiveInt = 1_500_000
    """The most records that one ingest batch takes from Kafka."""
    materialise_interval: PositiveFloat = 20.0
    """Seconds between updates of the aggregate tables in the warehouse."""
    upkeep_interval: PositiveFloat = 300.0
    """Seconds between rounds of upkeep: small files put together, old versions and logs removed."""
    lake_history: PositiveFloat = 10.0
    """Minutes for which old versions of a table can be read."""
    stream_metrics_port: Port = 9102

    def conflicts(self) -> Iterator[str]:
        """Yield an error for each setting that the others contradict."""
        yield from super().conflicts()
        remedy = "set both, or neither to use the machine's own role"
        if self.aws_access_key_id and not self.aws_secret_access_key:
            yield missing("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", remedy)
        if self.aws_secret_access_key and not self.aws_access_key_id:
            yield missing("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", remedy)

    @property
    def storage_options(self) -> dict[str, str]:
        """How delta-rs reaches s3a:// locations."""
        options = {"AWS_REGION": self.aws_region}
        if self.aws_endpoint_url is not None:
            options |= {"AWS_ENDPOINT_URL": self.aws_endpoint_url}
            options |= {"AWS_ALLOW_HTTP": str(self.aws_endpoint_url.startswith("http:")).lower()}
        if self.aws_access_key_id is not None and self.aws_secret_access_key is not None:
            secret = self.aws_secret_access_key.get_secret_value()
            options |= {"AWS_ACCESS_KEY_ID": self.aws_access_key_id, "AWS_SECRET_ACCESS_KEY": secret}
        return options

    @property
    def hadoop_options(self) -> dict[str, str]:
        """How Spark reaches them."""
        options = {_HADOOP_NAMES[name]: value for name, value in self.storage_options.items() if name in _HADOOP_NAMES}
        # Nobody needs the markers of folders to be removed again, and it is a request for each level of each file.
        options["fs.s3a.directory.marker.retention"] = "keep"
        if self.aws_endpoint_url is not None:
            # Other servers than Amazon's rarely have a host name per bucket.
            options["fs.s3a.path.style.access"] = "true"
        return options

    @property
    def master(self) -> str:
        """The master that Spark is given."""
        return self.spark_master_url if self.deploy_mode == "cluster" else "local[*]"
