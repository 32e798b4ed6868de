"""The stream job reports how its Java process ended."""

import queue
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from stream_processing import job, spark_internals
from stream_processing.failures import describe_java_exit, exit_after_java, is_transient, remedies, summary
from stream_processing.session import start_session
from stream_processing.settings import StreamProcessingSettings
from stream_processing.spark_internals import JavaStartError, start_java


@pytest.mark.parametrize(
    ("command", "reason", "is_about_memory"),
    [
        ("kill -9 $$", "it was killed by SIGKILL", False),
        ("kill -15 $$", "it was ended by SIGTERM", False),
        ("exit 3", "it exited with status 3", True),
    ],
)
def test_the_reason_names_signal_or_status_and_the_remedy_is_about_the_heap_only_if_it_can_be_the_cause(
    command: str, reason: str, is_about_memory: bool
) -> None:
    with subprocess.Popen(["sh", "-c", command]) as java:
        description = describe_java_exit(java, ConnectionError())
    assert description.startswith(reason)
    assert bool(remedies(description)) == is_about_memory
    assert not is_transient(description)


def test_a_java_process_that_does_not_end_is_reported_with_the_error() -> None:
    assert describe_java_exit(None, ConnectionError()).startswith("it does not answer (ConnectionError)")


def test_a_java_that_cannot_start_is_reported_with_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(JavaStartError, match=r"SPARK_DRIVER_MEMORY=1g, and that JAVA_HOME=/nowhere is Java 17$"):
        start_java({"spark.driver.memory": "1g"})


def _fake_java(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a Java of `folder` the one to use, which cannot start; return the file with its arguments, a line a call."""
    java, calls = folder / "bin" / "java", folder / "calls"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho \"$@\" >> '{calls}'\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(folder))
    for jar in ("delta-spark_1.jar", "spark-sql-kafka-0-10_1.jar"):
        (folder / jar).touch()
    return calls


def test_no_key_of_an_object_store_is_in_the_command_line_of_java(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = _fake_java(tmp_path, monkeypatch)
    settings = {
        "spark_jars": tmp_path,
        "aws_endpoint_url": "http://localhost:9000",
        "aws_access_key_id": "key-of-the-user",
        "aws_secret_access_key": "word-of-the-user",
    }
    with pytest.raises(JavaStartError):
        start_session(StreamProcessingSettings.model_validate(settings))
    arguments = calls.read_text()
    assert "spark.hadoop.fs.s3a.endpoint=http://localhost:9000" in arguments
    assert "-of-the-user" not in arguments


@pytest.mark.parametrize("has_archive", [True, False])
def test_a_java_that_cannot_start_with_a_class_archive_is_started_without_it(
    has_archive: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = _fake_java(tmp_path, monkeypatch)
    archive = tmp_path / "classes.jsa"
    if has_archive:
        archive.touch()
    with pytest.raises(JavaStartError):
        start_session(StreamProcessingSettings(spark_jars=tmp_path, class_archive=archive))
    warnings = [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]
    assert len(warnings) == has_archive
    assert len(calls.read_text().splitlines()) == (2 if has_archive else 1)
    assert all(f"without CLASS_ARCHIVE={archive}, which may be damaged: delete it" in line for line in warnings)


def test_the_job_ends_when_java_has_ended_although_a_call_to_it_does_not_return(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exited: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr("os._exit", exited.put)
    with subprocess.Popen(["sh", "-c", "kill -9 $$"]) as java, exit_after_java(java, timeout=0.1):
        assert exited.get(timeout=20) == 1
    assert "Java, in which Spark runs, has failed: it was killed by SIGKILL" in caplog.text


def test_java_may_end_after_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    exited: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr("os._exit", exited.put)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as java:
        with exit_after_java(java, timeout=0.3):
            pass
        java.kill()
    with pytest.raises(queue.Empty):
        exited.get(timeout=1)


@pytest.mark.parametrize(("command", "status"), [("cat", 0), ("sleep 600", -signal.SIGKILL)])
def test_java_ends_with_its_input_or_is_killed_after_a_while(
    monkeypatch: pytest.MonkeyPatch, command: str, status: int
) -> None:
    with subprocess.Popen(["sh", "-c", f"exec {command}"], stdin=subprocess.PIPE) as java:
        monkeypatch.setattr(spark_internals, "java_process", lambda: java)
        spark_internals.end_java(0.3 if status else 10)
        assert java.returncode == status


_PROXY = (
    "An exception was raised by the Python Proxy. Return Message: Traceback (most recent call last):\n"
    '  File "clientserver.py", line 617, in _call_proxy\n    getattr(self.pool[obj_id], method)(*params)\n'
)
_QUERY = "\n\n=== Streaming Query ===\nIdentifier: ingest [id = d135a4e1]\ncaused by: py4j.Py4JException: " + _PROXY


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (
            f"{_PROXY}_internal.DeltaError: Invalid table version: 2{_QUERY}",
            "_internal.DeltaError: Invalid table version: 2",
        ),
        (
            f"{_PROXY}py4j.protocol.Py4JJavaError: An error occurred while calling o280.collectToPython.\n"
            ": org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 1.0 failed 1 times,"
            " most recent failure: Lost task 1.0 in stage 1.0 (TID 3) (localhost executor driver):"
            " java.lang.IllegalStateException: Cannot fetch offset 2 (TopicPartition: avroic-0). \nSome data may"
            f"\n\tat org.apache.spark.X(X.scala:7)\nDriver stacktrace:\n\tat Y(Y.scala:8){_QUERY}",
            "java.lang.IllegalStateException: Cannot fetch offset 2 (TopicPartition: avroic-0)",
        ),
        (f"/data/offsets/2: Not a directory{_QUERY}", "/data/offsets/2: Not a directory"),
        ("it exited with status 3", "it exited with status 3"),
        (_PROXY.splitlines()[0], _PROXY.splitlines()[0]),
        ("", ""),
    ],
    ids=["Python", "task", "Java", "one line", "cut", "nothing"],
)
def test_a_failure_is_summarised_in_one_line(failure: str, reason: str) -> None:
    assert summary(failure) == reason


def test_a_failure_is_logged_with_reason_and_remedy_on_its_first_line(caplog: pytest.LogCaptureFixture) -> None:
    failure = f"{_PROXY}ValueError: the reason; set failOnDataLoss to false{_QUERY}"
    job._report_failures({"ingest": failure, "aggregate": "DeltaError: gone"}, threading.Event())
    first, second = caplog.messages
    assert first.splitlines()[0].startswith(
        "ingest has failed: ValueError: the reason; set failOnDataLoss to false: records"
    )
    assert "accept-gap" in first.splitlines()[0]
    assert first.endswith(failure)
    assert second == "aggregate has failed: DeltaError: gone"


@pytest.mark.parametrize(
    "failure",
    [
        'cimpl.KafkaException: KafkaError{code=UNKNOWN_TOPIC_OR_PART,val=3,str="Broker: Unknown topic or partition"}',
        'KafkaException: KafkaError{code=_UNKNOWN_TOPIC,val=-188,str="Unable to produce: Local: Unknown topic"}',
        "UndeliveredError: avroic_aggregated: 28 records were not delivered: Local: Unknown partition",
        "org.apache.kafka.common.errors.UnknownTopicOrPartitionException: This server does not host this"
        " topic-partition\ncaused by: UnknownTopicOrPartitionException",
    ],
)
def test_a_deleted_topic_has_one_remedy_whichever_client_finds_out(failure: str) -> None:
    (remedy,) = remedies(failure)
    assert remedy.startswith("a topic was deleted: the next start creates it again")
