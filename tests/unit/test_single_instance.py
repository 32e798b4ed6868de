"""A command notices a running job by its lock, before it starts Java."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from pyspark.sql import SparkSession
from stream_processing import single_instance
from stream_processing.lease import LEASE, Holder, Lease, StoreError, Timing
from stream_processing.single_instance import AnotherInstanceError, CheckpointsError, claim, require_unclaimed

from runtime.signals import StoppedError
from tests.memory_store import MemoryStore

_HOLDER = (
    "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX);"
    " print(flush=True); sys.stdin.read()"
)


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield
        holder.communicate()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_command_beside_a_running_job_fails_at_once(tmp_path: Path, scheme: str) -> None:
    with _held(tmp_path / ".lock"):
        started = time.monotonic()
        with pytest.raises(AnotherInstanceError, match=rf"another stream job holds {tmp_path}/\.lock: stop it"):
            require_unclaimed(f"{scheme}{tmp_path}", timeout=0.1)
        assert time.monotonic() - started < 5
    require_unclaimed(f"{scheme}{tmp_path}", timeout=0.1)


@pytest.mark.parametrize("checkpoints", ["missing", "s3a://lake/checkpoints"])
def test_checkpoints_without_a_lock_are_not_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: str
) -> None:
    monkeypatch.chdir(tmp_path)
    require_unclaimed(checkpoints)
    assert list(tmp_path.iterdir()) == []


S3 = "s3a://lake/checkpoints"
NO_SESSION = cast(SparkSession, None)


@pytest.fixture
def in_store(monkeypatch: pytest.MonkeyPatch) -> Callable[[MemoryStore | None], None]:
    """Return a function that has all checkpoints in a store, or where there is none, with quick leases."""

    def use(store: MemoryStore | None) -> None:
        monkeypatch.setattr(single_instance, "local_lock", lambda *_: None)
        monkeypatch.setattr(single_instance, "object_store", lambda *_: store)
        timing = Timing(duration=2, validity=1.5, renewal=0.1, retry=0.05, settling=0.01)
        monkeypatch.setattr(single_instance, "Lease", partial(Lease, timing=timing))

    return use


@pytest.mark.parametrize("store", [None, MemoryStore(ignores=("absent", "match"))], ids=["HDFS", "no conditions"])
def test_a_job_without_lock_and_lease_says_so_and_what_to_do(
    in_store: Callable[[MemoryStore | None], None], caplog: pytest.LogCaptureFixture, store: MemoryStore | None
) -> None:
    in_store(store)
    claimed = claim(NO_SESSION, S3, threading.Event())
    claimed.require_held()
    claimed.release()
    (warning,) = caplog.messages
    assert warning.startswith(f"nothing keeps a second stream job or command off CHECKPOINTS={S3}: ")
    assert "Start one only when the other has certainly ended" in warning


def test_a_second_job_ends_while_the_first_renews_its_lease_and_starts_when_that_has_released_it(
    in_store: Callable[[MemoryStore | None], None], caplog: pytest.LogCaptureFixture
) -> None:
    in_store(MemoryStore())
    first = claim(NO_SESSION, S3, threading.Event())
    holder = rf"process {os.getpid()} on '.+'"
    with pytest.raises(
        AnotherInstanceError, match=rf"^another stream job holds {S3}/\.lease \({holder}\): stop it, or"
    ):
        claim(NO_SESSION, S3, threading.Event(), timeout=0.1)
    first.require_held()
    first.release()
    caplog.clear()
    claim(NO_SESSION, S3, threading.Event(), timeout=0.1).release()
    assert caplog.messages == []


def test_a_job_after_one_that_was_killed_waits_for_the_lease_to_expire(
    in_store: Callable[[MemoryStore | None], None], caplog: pytest.LogCaptureFixture
) -> None:
    killed = Holder("another", 7, "another", number=3)
    store = MemoryStore(objects={LEASE: killed.to_json()})
    in_store(store)
    started = time.monotonic()
    # Longer than the timeout of a command: only then is it known that nobody renews it.
    claim(NO_SESSION, S3, threading.Event(), timeout=0.1).release()
    assert time.monotonic() - started >= 2
    (warning,) = caplog.messages
    assert warning.startswith(f"another stream job holds {S3}/.lease (process 7 on 'another'): waiting up to 2 s")
    assert Holder.from_json(store.objects[LEASE]).number == 4


def test_a_job_that_waits_for_a_lease_can_be_stopped(in_store: Callable[[MemoryStore | None], None]) -> None:
    in_store(MemoryStore(objects={LEASE: Holder("another", 7, "another", number=3).to_json()}))
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        claim(NO_SESSION, S3, stop)


def test_an_object_store_that_fails_is_reported_with_the_setting(
    in_store: Callable[[MemoryStore | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore(error=StoreError("Access Denied"))
    in_store(store)
    monkeypatch.setattr(single_instance, "_STORE_TIMEOUT", 0.1)
    with pytest.raises(CheckpointsError, match=f"^CHECKPOINTS='{S3}' cannot be used: Access Denied$"):
        claim(NO_SESSION, S3, threading.Event())
    monkeypatch.setattr(single_instance, "enforces_conditions", lambda _: True)
    with pytest.raises(CheckpointsError, match="Access Denied"):
        claim(NO_SESSION, S3, threading.Event(), timeout=0.1)


def test_a_job_whose_lease_was_taken_kills_java_and_ends_with_one_line(
    in_store: Callable[[MemoryStore | None], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    java = subprocess.Popen(["sleep", "600"])
    ended: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(single_instance, "java_process", lambda: java)
    monkeypatch.setattr(single_instance, "exit_at_once", ended.put)
    store = MemoryStore()
    in_store(store)
    claim(NO_SESSION, S3, threading.Event())
    store.objects[LEASE] = Holder("another", 7, "another", number=3).to_json()
    assert ended.get(timeout=60) == 1
    assert java.wait(60) == -signal.SIGKILL
    (error,) = caplog.messages
    assert error.startswith(f"the lease {S3}/.lease is lost: process 7 on 'another' has taken it. This job has ended")


def test_a_folder_that_cannot_be_used_is_reported_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    for checkpoints, reason in (
        (str(tmp_path), "Is a directory"), ("x" * 300, "File name too long"), ("http://[x", "Invalid IPv6 URL"),
    ):  # fmt: skip
        with pytest.raises(CheckpointsError, match=f"^CHECKPOINTS='.+' cannot be used: {reason}$"):
            require_unclaimed(checkpoints)
