"""Warehouse and checkpoints in an S3-compatible object store, and the lease that keeps a second job off them."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from mirakuru import HTTPExecutor
from stream_processing.lake import Lake
from stream_processing.lease import Timing

from local_stack.services import STREAM
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.object_store import KEYS, ObjectStore, running_object_store
from tests.pipeline import Pipeline, eventually, kill_9
from tests.processes import command_lines, java_processes

LEASE = "checkpoints/.lease"
ANOTHER_JOB = {"host": "another", "process": 7, "token": "another", "number": 9, "writes": 1, "released": False}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    with running_object_store(tmp_path) as store:
        yield store


@dataclass(frozen=True)
class OnS3:
    """A pipeline whose stream job has everything in the store."""

    pipeline: Pipeline
    settings: dict[str, Any]

    def stream(self) -> HTTPExecutor:
        """Create the job, not started yet."""
        return self.pipeline.service(STREAM, UPKEEP_INTERVAL=5, **self.settings)

    def log(self) -> str:
        """Read the log of the job."""
        return self.pipeline.log(STREAM)

    def assert_logged(self, text: str) -> None:
        """Require a text in the log of the job."""
        assert text in self.log()


@pytest.fixture
def on_s3(pipeline: Pipeline, store: ObjectStore) -> OnS3:
    settings = {
        "WAREHOUSE": store.location("warehouse"),
        "CHECKPOINTS": store.location("checkpoints"),
        "AWS_ENDPOINT_URL": store.endpoint,
        **KEYS,
    }
    options = {"AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": store.endpoint, **KEYS}
    return OnS3(replace(pipeline, remote_lake=Lake(settings["WAREHOUSE"], options)), settings)


def _interactions(count: int) -> list[Interaction]:
    return [
        Interaction(f"user_{n % 9}", f"item_{n % 5}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 + n)
        for n in range(count)
    ]


def _assert_ended(process: psutil.Process) -> None:
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_lake_and_checkpoints_can_be_in_an_object_store_and_survive_a_kill(on_s3: OnS3, store: ObjectStore) -> None:
    pipeline = on_s3.pipeline
    first, second = _interactions(2_000)[:1_000], _interactions(2_000)[1_000:]
    stream = on_s3.stream()
    try:
        stream.start()
        pipeline.send_interactions(first)
        eventually(lambda: pipeline.assert_published(first))
        assert stream.process is not None
        commands = str(command_lines(stream.process.pid))
        assert "fs.s3a.endpoint" in commands
        assert not [key for key in KEYS.values() if key in commands]
        pipeline.send_interactions(second)
    finally:
        kill_9(stream)
    with pipeline.running(STREAM, UPKEEP_INTERVAL=5, **on_s3.settings):
        eventually(lambda: pipeline.assert_published(first + second))
        pipeline.assert_in_the_lake(first + second)
        eventually(lambda: on_s3.assert_logged("maintenance took"))
    lease = re.escape(store.location(LEASE))
    assert re.search(rf"holds the lease {lease} as number 1\n", on_s3.log())
    assert re.search(rf"another stream job holds {lease} \(process \d+ on '.+'\): waiting up to 80 s", on_s3.log())
    assert re.search(rf"holds the lease {lease} as number 2, after \d+ s\n", on_s3.log())
    assert "failed" not in on_s3.log()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in on_s3.log()
    assert not (pipeline.data / "warehouse").exists()


def test_a_second_job_or_command_ends_until_the_first_job_has_released_the_lease(
    on_s3: OnS3, store: ObjectStore, tmp_path: Path
) -> None:
    pipeline, sent = on_s3.pipeline, _interactions(1_000)
    held = f"another stream job holds {store.location(LEASE)} (process "
    second = replace(pipeline, data=tmp_path / "second")
    with pipeline.running(STREAM, UPKEEP_INTERVAL=5, **on_s3.settings):
        output = pipeline.command(STREAM, "rebuild", expected_status=1, **on_s3.settings)
        assert held in output.splitlines()[-1]
        with pytest.raises(subprocess.CalledProcessError):
            second.run_to_end(STREAM, **on_s3.settings)
        assert held in second.log(STREAM).splitlines()[-1]
        pipeline.send_interactions(sent)
        eventually(lambda: pipeline.assert_published(sent))
    assert json.loads(store.read(LEASE))["released"]
    pipeline.command(STREAM, "rebuild", **on_s3.settings)
    lease = json.loads(store.read(LEASE))
    assert (lease["number"], lease["released"]) == (2, True)


def test_a_job_whose_lease_was_taken_ends_and_names_who_has_taken_it(on_s3: OnS3, store: ObjectStore) -> None:
    stream = on_s3.stream()
    stream.start()
    try:
        assert stream.process is not None
        (java,) = java_processes(stream.process.pid)
        store.write(LEASE, json.dumps(ANOTHER_JOB))
        assert stream.process.wait(60) == 1
        eventually(lambda: _assert_ended(java))
    finally:
        kill_9(stream)
    assert f"the lease {store.location(LEASE)} is lost: process 7 on 'another' has taken it." in on_s3.log()
    assert json.loads(store.read(LEASE)) == ANOTHER_JOB


def test_a_job_that_was_paused_until_another_took_its_lease_writes_nothing_more(
    on_s3: OnS3, store: ObjectStore
) -> None:
    pipeline, sent = on_s3.pipeline, _interactions(1_000)
    stream = on_s3.stream()
    stream.start()
    try:
        pipeline.send_interactions(sent)
        eventually(lambda: pipeline.assert_published(sent))
        pipeline.assert_in_the_lake(sent)
        assert stream.process is not None
        (java,) = java_processes(stream.process.pid)
        stream.process.send_signal(signal.SIGSTOP)
        java.suspend()
        time.sleep(Timing().duration)
        store.write(LEASE, json.dumps(ANOTHER_JOB))
        pipeline.send_interactions(_interactions(2_000)[1_000:])
        java.resume()
        stream.process.send_signal(signal.SIGCONT)
        assert stream.process.wait(60) == 1
    finally:
        kill_9(stream)
    assert f"the lease {store.location(LEASE)} is lost: " in on_s3.log()
    assert pipeline.lake_count() == len(sent)
    pipeline.assert_published(sent)
