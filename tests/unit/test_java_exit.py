"""The stream job reports how its Java process ended."""

import queue
import signal
import subprocess

import pytest
from stream_processing import spark_internals
from stream_processing.failures import describe_java_exit, exit_after_java, is_transient, remedies
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
