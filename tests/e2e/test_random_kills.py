"""Random processes are killed at random moments under load: every interaction ends up everywhere once.

A longer run: ``make test ARGS="tests/e2e/test_random_kills.py --kills 60 --seed 7"``.
"""

import random
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mirakuru import HTTPExecutor, SimpleExecutor, TCPExecutor

from local_stack import servers
from local_stack.services import PRODUCER, SINK, STREAM, Service
from tests.pipeline import Pipeline, kill_9, kill_9_python_only

_MAX_PAUSE = 30.0
"""Seconds between two kills; a stream job takes about 15 from its start to its first aggregate."""


@dataclass
class _Supervisor:
    """Runs the stream job and the sink, and starts a new process beside the leftovers of a killed one."""

    pipeline: Pipeline
    stack: ExitStack
    running: dict[Service, HTTPExecutor] = field(default_factory=dict)

    def start(self, service: Service) -> None:
        """Start a process without waiting until it is ready: a kill may come before."""
        settings = {"MAX_OFFSETS_PER_BATCH": 2_000, "UPKEEP_INTERVAL": 5} if service is STREAM else {}
        self.running[service] = self.pipeline.service(service, **settings)
        self.stack.callback(self.running[service].kill)
        SimpleExecutor.start(self.running[service])

    def assert_running(self) -> None:
        """Assert that the kill of one process has ended no other."""
        assert all(process.running() for process in self.running.values())

    def restart(self) -> None:
        """Restart all processes and wait until they are ready."""
        for process in self.running.values():
            process.kill()
            process.start()


@pytest.mark.timeout(7200)
def test_nothing_is_lost_or_duplicated_whichever_process_is_killed_at_any_moment(
    pipeline: Pipeline, tmp_path: Path, kills: int, seed: int
) -> None:
    rng = random.Random(seed)
    port = servers.free_port()
    own_pipeline = Pipeline(f"{servers.HOST}:{port}", pipeline.es_url, pipeline.topic, tmp_path)
    broker = servers.kafka(tmp_path / "broker", port)
    producer = own_pipeline.service(PRODUCER, PRODUCER_RATE="0.004", RANDOM_DATA_MAX_USERS=50, RANDOM_DATA_MAX_ITEMS=50)
    with ExitStack() as stack:
        supervisor = _Supervisor(own_pipeline, stack)
        for process in (broker, producer):
            stack.callback(process.kill)
            process.start()
        supervisor.start(STREAM)
        supervisor.start(SINK)
        for _ in range(kills):
            time.sleep(rng.uniform(0, _MAX_PAUSE))
            supervisor.assert_running()
            _kill_one(rng, broker, supervisor)
        supervisor.restart()
        producer.stop()

        sent = own_pipeline.interactions()
        reported = re.findall(r"sent (\d+) interactions.*", own_pipeline.log(PRODUCER))
        assert reported[-1] == str(len(sent)), "an interaction was duplicated by a retry, or one was lost"
        own_pipeline.assert_everywhere(sent)
        own_pipeline.assert_exact()


def _kill_one(rng: random.Random, broker: TCPExecutor, supervisor: _Supervisor) -> None:
    victim = rng.choice(["stream", "stream", "python only", "sink", "broker"])
    if victim == "broker":
        kill_9(broker)
        time.sleep(rng.uniform(0, 5))
        broker.start()
    elif victim == "python only":
        kill_9_python_only(supervisor.running[STREAM])
        supervisor.start(STREAM)
    else:
        service = STREAM if victim == "stream" else SINK
        kill_9(supervisor.running[service])
        supervisor.start(service)
