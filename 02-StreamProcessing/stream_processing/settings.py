"""The stream job's settings."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr

from runtime.settings import HttpUrl, NonEmptyStr, Port, Seconds, Settings, missing

_HADOOP_NAMES: Final = {
    "AWS_REGION": "fs.s3a.endpoint.region",
    "AWS_ENDPOINT_URL": "fs.s3a.endpoint",
    "AWS_ACCESS_KEY_ID": "fs.s3a.access.key",
    "AWS_SECRET_ACCESS_KEY": "fs.s3a.secret.key",
}
"""Hadoop's names of the options that delta-rs calls by the names of Amazon's own tools."""

_MEGABYTES: Final = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024**2}
_MIN_HEAP: Final = 512
"""MB. Spark requires 450 MB of usable heap, which is some percent less than the configured one."""


_NOT_IN_LOCATIONS: Final = "%\\#?[]|^"
"""delta-rs takes a location as a URI, and makes part of another one of it."""


def _is_heap(size: str) -> str:
    match = re.fullmatch(r"(\d{1,9})([kmgt])", size, re.ASCII | re.IGNORECASE)
    if match is None or int(match[1]) * _MEGABYTES[match[2].lower()] < _MIN_HEAP:
        raise ValueError("not the size of a heap")
    return size


HeapSize = Annotated[
    NonEmptyStr,
    AfterValidator(_is_heap),
    Field(description=f"a whole number with a unit, such as 768m or 2g, and at least {_MIN_HEAP}m"),
]
"""The size of a Java heap, as Java's own option -Xmx takes it."""


def _is_location(location: str) -> str:
    if set(location) & set(_NOT_IN_LOCATIONS):
        raise ValueError("not a location that delta-rs accepts")
    return location


Location = Annotated[
    NonEmptyStr,
    AfterValidator(_is_location),
    Field(description=f"a path or a URI without any of the characters {' '.join(_NOT_IN_LOCATIONS)}"),
]
"""Of Delta tables."""


class StreamProcessingSettings(Settings):
    """The settings of the stream job beside those that all services share."""

    deploy_mode: Literal["client", "cluster"] = "client"
    """client: Spark runs inside this process. cluster: on the cluster at `spark_master_url`."""
    spark_master_url: NonEmptyStr = "spark://spark-master:7077"
    spark_driver_memory: HeapSize = "1g"
    spark_executor_memory: HeapSize = "768m"
    """Memory of each executor on a cluster."""
    spark_jars: Path | None = None
    """Folder of the connectors' jars; unset if they are among Spark's own, as in the image."""
    class_archive: Path | None = None
    """Java's archive of the classes that the job loads (`build_tools.cds_archive`); the file may be missing."""
    warehouse: Location = ".data/warehouse"
    """Location of the Delta tables: a path or any URI that Hadoop supports."""
    checkpoints: Location = ".data/checkpoints"
    """Location of the job's progress and of the counts: a path or any URI that Hadoop supports."""
    aws_endpoint_url: HttpUrl | None = None
    """The S3-compatible server for s3a:// locations; unset for Amazon's."""
    aws_region: str = "us-east-1"
    aws_access_key_id: str | None = None
    """If this and the next are unset: the machine's own credentials, from its role or environment."""
    aws_secret_access_key: SecretStr | None = None
    state_store: Literal["memory", "rocksdb"] = "memory"
    """Location of the counts per key: the memory of this process, or Spark's state store in RocksDB, slower and for
    more keys. After a change they are computed again from the lake."""
    max_offsets_per_batch: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1_500_000
    """The maximum number of records that one ingest batch reads from Kafka."""
    batch_interval: Seconds = 0.4
    """Seconds between the starts of two batches, twice as many after a batch of a few records; a backlog is read
    without a pause."""
    materialise_interval: Seconds = 20.0
    """Seconds between updates of the aggregate tables in the warehouse."""
    upkeep_interval: Seconds = 300.0
    """Seconds between maintenance rounds: compaction of small files, removal of old versions and log entries."""
    lake_history: Annotated[float, Field(gt=0, le=1_000_000)] = 10.0
    """Minutes for which old versions of a table stay readable."""
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
        """The options with which delta-rs accesses s3a:// locations."""
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
        """The options with which Hadoop, and so Spark, accesses s3a:// locations."""
        options = {_HADOOP_NAMES[name]: value for name, value in self.storage_options.items() if name in _HADOOP_NAMES}
        # Directory markers do no harm, and removing them costs a request for each level of each file.
        options["fs.s3a.directory.marker.retention"] = "keep"
        if self.aws_endpoint_url is not None:
            # S3-compatible servers rarely have a host name per bucket.
            options["fs.s3a.path.style.access"] = "true"
        return options

    @property
    def master(self) -> str:
        """The value of `spark.master`."""
        return self.spark_master_url if self.deploy_mode == "cluster" else "local[*]"
