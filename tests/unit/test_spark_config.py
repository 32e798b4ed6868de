"""Spark's configuration follows from the settings, without Spark."""

from pathlib import Path

import pytest
from stream_processing.settings import StreamProcessingSettings
from stream_processing.spark_config import spark_config


def _settings(**values: object) -> StreamProcessingSettings:
    return StreamProcessingSettings.model_validate(values)


def test_a_local_session_has_no_executors_and_a_cluster_has() -> None:
    assert "spark.executor.memory" not in spark_config(_settings())
    config = spark_config(_settings(deploy_mode="cluster", spark_executor_memory="5g"))
    assert config["spark.executor.memory"] == "5g"
    assert config["spark.master"] == "spark://spark-master:7077"


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_spark_keeps_its_state_in_files(store: str) -> None:
    config = spark_config(_settings(state_store=store))
    assert config["spark.sql.streaming.stateStore.providerClass"].endswith(".RocksDBStateStoreProvider")


def test_checkpoints_in_an_object_store_are_not_renamed() -> None:
    name = "spark.sql.streaming.checkpointFileManagerClass"
    assert "Abortable" in spark_config(_settings(checkpoints="s3a://lake/checkpoints"))[name]
    assert "FileSystemBased" in spark_config(_settings(checkpoints="/checkpoints"))[name]


def test_a_class_archive_is_used_if_it_exists(tmp_path: Path) -> None:
    archive = tmp_path / "classes of the job.jsa"
    options = spark_config(_settings(class_archive=archive), "-Da=b")["spark.driver.extraJavaOptions"]
    assert "SharedArchiveFile" not in options
    assert "-Da=b" in options
    archive.touch()
    options = spark_config(_settings(class_archive=archive))["spark.driver.extraJavaOptions"]
    assert f'"-XX:SharedArchiveFile={archive}"' in options
