"""Each access to an internal of Spark or Delta Lake works with the installed versions."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery
from stream_processing import spark_internals, start_position, storage
from stream_processing.failures import describe_failure
from stream_processing.lease import StoredObject, StoreError, Timing, enforces_conditions
from stream_processing.session import start_session, trigger_interval
from stream_processing.settings import StreamProcessingSettings

from local_stack.cache import SPARK
from tests.object_store import KEYS, running_object_store


@pytest.fixture(scope="module")
def spark(cache: None) -> Iterator[SparkSession]:
    """A session, whose Java process is stopped in the end: the test of `stop_java`."""
    session = start_session(StreamProcessingSettings(spark_jars=SPARK.folder, spark_driver_memory="512m"))
    process = spark_internals.java_process()
    assert process is not None
    yield session
    spark_internals.stop_java(session)
    assert process.returncode == 0


def _run(rows: DataFrame, checkpoint: Path, process: object) -> StreamingQuery:
    writer = rows.writeStream.queryName("a-query").outputMode("update").option("checkpointLocation", str(checkpoint))
    return writer.trigger(availableNow=True).foreachBatch(process).start()  # type: ignore[arg-type]


def test_the_java_process_is_a_child_of_this_one(spark: SparkSession) -> None:
    process = spark_internals.java_process()
    assert process is not None
    assert process.poll() is None
    assert process.pid != os.getpid()
    assert process.pid == spark_internals.jvm(spark).java.lang.ProcessHandle.current().pid()


def test_a_local_session_listens_on_the_loopback_address_only(spark: SparkSession) -> None:
    process = spark_internals.java_process()
    assert process is not None
    java = psutil.Process(process.pid)
    listening = [each.laddr.ip for each in java.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_what_scala_prints_goes_where_java_prints_nothing(spark: SparkSession) -> None:
    jvm = spark_internals.jvm(spark)
    assert jvm.scala.Console.out().equals(jvm.java.lang.System.out)


def test_a_signal_to_the_process_group_does_not_reach_java(spark: SparkSession) -> None:
    process = spark_internals.java_process()
    assert process is not None
    assert os.getpgid(process.pid) != os.getpgrp()


def test_muted_loggers_log_again_afterwards(spark: SparkSession) -> None:
    names = ("muted.here", "org.apache.spark.executor.Executor")
    loggers = [spark_internals.jvm(spark).org.apache.logging.log4j.LogManager.getLogger(name) for name in names]
    levels = [str(logger.getLevel()) for logger in loggers]
    with spark_internals.muted(spark, *names):
        assert [str(logger.getLevel()) for logger in loggers] == ["OFF", "OFF"]
    assert [str(logger.getLevel()) for logger in loggers] == levels
    assert "OFF" not in levels


def test_the_heap_has_the_size_of_the_settings(spark: SparkSession) -> None:
    assert 400 << 20 < spark_internals.max_heap_bytes(spark) <= 512 << 20


def test_a_file_is_read_from_the_file_system_of_its_location(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("é\n😀")
    # Hadoop takes URIs as text, without percent-encoding.
    for location in (str(file), f"file://{file}"):
        file_system, path = spark_internals.hadoop_file(spark, location)
        stream = file_system.open(path)
        assert spark_internals.read_utf8(spark, stream) == "é\n😀"
        stream.close()


def test_no_checksum_file_is_written_beside_a_local_file(spark: SparkSession, tmp_path: Path) -> None:
    file_system, path = spark_internals.hadoop_file(spark, str(tmp_path / "file"))
    file_system.create(path, True).close()
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_lock_is_only_possible_on_a_local_file_system(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "not there yet"
    lock = spark_internals.local_lock(spark, str(folder), ".lock")
    assert lock is not None
    path, try_lock = lock
    assert path == f"{folder}/.lock"
    file_lock = try_lock()
    assert file_lock is not None
    file_lock.release()
    assert spark_internals.local_lock(spark, "webhdfs://127.0.0.1:9/folder", ".lock") is None


def test_objects_in_a_bucket_are_written_on_conditions_and_a_server_that_is_gone_is_reported_within_seconds(
    spark: SparkSession, tmp_path: Path
) -> None:
    configuration = spark._jsc.hadoopConfiguration()
    with running_object_store(tmp_path) as store:
        for name, value in {
            "endpoint": store.endpoint,
            "path.style.access": "true",
            "access.key": KEYS["AWS_ACCESS_KEY_ID"],
            "secret.key": KEYS["AWS_SECRET_ACCESS_KEY"],
        }.items():
            configuration.set(f"fs.s3a.{name}", value)
        objects = spark_internals.object_store(spark, store.location("a folder"))
        assert objects is not None
        assert enforces_conditions(objects)
        assert objects.get("x") is None
        assert objects.put_if_match("x", "0", "none") is None
        first = objects.put_if_absent("x", "1")
        assert first is not None
        assert objects.put_if_absent("x", "2") is None
        second = objects.put_if_match("x", "é", first)
        assert second is not None
        assert objects.put_if_match("x", "3", first) is None
        assert objects.get("x") == StoredObject("é", second)
        objects.delete("x")
        assert objects.get("x") is None
        at_root = spark_internals.object_store(spark, store.location(""))
        assert at_root is not None
        assert at_root.put_if_absent("y", "1") is not None
        assert store.read("y") == "1"
    started = time.monotonic()
    with pytest.raises(StoreError):
        objects.get("x")
    assert time.monotonic() - started < Timing().validity


@pytest.mark.parametrize("folder", ["/a/folder", "webhdfs://127.0.0.1:9/folder"])
def test_a_file_system_is_no_object_store(spark: SparkSession, folder: str) -> None:
    assert spark_internals.object_store(spark, folder) is None


@pytest.mark.parametrize("seconds", [1e-5, 1 / 3, 86_400.0])
def test_spark_takes_every_interval_of_the_settings(spark: SparkSession, seconds: float) -> None:
    trigger = spark_internals.jvm(spark).org.apache.spark.sql.streaming.Trigger
    assert trigger.ProcessingTime(trigger_interval(seconds)).intervalMs() == max(1, round(seconds * 1000))


def test_the_causes_of_a_failed_query_are_listed(spark: SparkSession, tmp_path: Path) -> None:
    spark.range(5).write.format("delta").save(str(tmp_path / "table"))
    rows = spark.readStream.format("delta").load(str(tmp_path / "table"))

    def fail(batch: DataFrame, _: int) -> None:
        batch.select(F.raise_error(F.lit("the root cause"))).collect()

    query = _run(rows, tmp_path / "checkpoint", fail)
    with pytest.raises(Exception, match="the root cause"):
        query.awaitTermination(60)
    causes = spark_internals.exception_causes(query)
    assert len(causes) > 1
    assert any("the root cause" in cause for cause in causes)
    assert "the root cause" in describe_failure(query)


def test_a_batch_has_its_observed_metrics_and_the_rows_of_its_state(spark: SparkSession, tmp_path: Path) -> None:
    table = str(tmp_path / "table")
    spark.range(10).select((F.col("id") % 3).alias("key"), "id").write.format("delta").save(table)
    counts = spark.readStream.format("delta").load(table).groupBy("key").agg(F.count("*").alias("count"))
    observed = counts.observe("totals", F.sum("count"), F.max(F.lit(None).cast("long")), F.count(F.lit(1)))
    found = []

    def process(batch: DataFrame, _: int) -> None:
        batch.write.format("noop").mode("overwrite").save()
        execution = spark_internals.last_execution(spark, "a-query")
        totals = spark_internals.observed_metrics(execution, "totals")
        found.append((totals, spark_internals.state_store_rows(execution)))

    assert _run(observed, tmp_path / "checkpoint", process).awaitTermination(60)
    assert found[0] == (["10", None, "3"], {("key",): 3})


def test_expired_entries_of_a_delta_log_are_removed_and_the_table_is_not_changed(
    spark: SparkSession, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    for _ in range(3):
        spark.range(2).write.format("delta").mode("append").save(str(table))
    for entry in (table / "_delta_log").glob("*.json"):
        os.utime(entry, (1_700_000_000, 1_700_000_000))
    spark_internals.remove_expired_log_entries(spark, str(table), retention_minutes=10)
    assert not (table / "_delta_log" / f"{0:020d}.json").exists()
    assert list((table / "_delta_log").glob("*.checkpoint.parquet"))
    assert spark.read.format("delta").load(str(table)).count() == 6


def test_a_file_that_could_not_be_written_to_its_end_is_the_one_before(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    storage.write_text(spark, str(file), "the first é")
    # Only when the file is open it turns out that half a surrogate pair cannot be written.
    with pytest.raises(UnicodeEncodeError):
        storage.write_text(spark, str(file), "\ud800")
    assert storage.read_text_if_exists(spark, str(file)) == "the first é"
    storage.write_text(spark, str(file), "the second")
    assert file.read_text() == "the second"
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_a_topic_id_that_a_kill_left_empty_is_unknown(spark: SparkSession, tmp_path: Path) -> None:
    settings = StreamProcessingSettings(checkpoints=str(tmp_path))
    (tmp_path / "ingest.topic").touch()
    assert start_position.known_topic_id(spark, settings, None) is None
    start_position.store_topic_id(spark, settings, "dGhlIGZpcnN0")
    assert start_position.known_topic_id(spark, settings, None) == "dGhlIGZpcnN0"
