"""A command notices a running job by its lock, before it starts Java."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from pyspark.sql import SparkSession
from stream_processing import single_instance
from stream_processing.single_instance import AnotherInstanceError, CheckpointsError, claim, require_unclaimed

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


def test_a_job_without_a_lock_says_so_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = cast(SparkSession, None)
    monkeypatch.setattr(single_instance, "local_lock", lambda *_: None)
    assert claim(session, "s3a://lake/checkpoints", threading.Event()) is None
    (warning,) = caplog.messages
    assert warning.startswith("nothing keeps a second stream job or command off CHECKPOINTS=s3a://lake/checkpoints: ")
    assert "Start one only when the other has certainly ended" in warning


def test_a_folder_that_cannot_be_used_is_reported_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    for checkpoints, reason in (
        (str(tmp_path), "Is a directory"), ("x" * 300, "File name too long"), ("http://[x", "Invalid IPv6 URL"),
    ):  # fmt: skip
        with pytest.raises(CheckpointsError, match=f"^CHECKPOINTS='.+' cannot be used: {reason}$"):
            require_unclaimed(checkpoints)
