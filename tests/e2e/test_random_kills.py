"""Random processes are killed at random moments under load: every interaction ends up everywhere once.

A longer run: ``make test ARGS="tests/e2e/test_random_kills.py --kills 60 --seed 7"``.
"""

import random
import re
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from mirakuru import HTTPExecutor, SimpleExecutor

from local_stack import servers
from local_stack.services import PRODUCER, SINK, STREAM
from tests.pipeline import Pipeline, kill_9, kill_9_python_only

_MAX_PAUSE = 30.0
"""Seconds between two kills; a stream job takes about 15 from its start to its first aggregate."""


@pytest.mark.timeout(7200)
def test_nothing_is_lost_or_duplicated_whichever_process_is_killed_at_any_moment(
    pipeline: Pipeline, tmp_path: Path, kills: int, seed: int
) -> None:
    rng = random.Random(seed)
    port = servers.free_port()
    here = Pipeline(f"{servers.HOST}:{port}", pipeline.es_url, pipeline.topic, tmp_path)
    broker = servers.kafka(tmp_path / "broker", port)
    producer = here.service(PRODUCER, PRODUCER_RATE="0.004", RANDOM_DATA_MAX_USERS=50, RANDOM_DATA_MAX_ITEMS=50)
    with ExitStack() as stack:

        def start_another(name: str) -> None:
            """Start a new process beside the leftovers of a killed one, as a supervisor would."""
            settings = {"MAX_OFFSETS_PER_BATCH": 2_000, "UPKEEP_INTERVAL": 5} if name == "stream" else {}
            services[name] = here.service(STREAM if name == "stream" else SINK, **settings)
            stack.callback(services[name].kill)
            # Without waiting until it is ready: a kill may come before.
            SimpleExecutor.start(services[name])

        services: dict[str, HTTPExecutor] = {}
        for process in (broker, producer):
            stack.callback(process.kill)
            process.start()
        start_another("stream")
        start_another("sink")
        for _ in range(kills):
            time.sleep(rng.uniform(0, _MAX_PAUSE))
            # A kill of one process ends no other.
            assert all(service.running() for service in services.values())
            victim = rng.choice(["stream", "stream", "python only", "sink", "broker"])
            if victim == "broker":
                kill_9(broker)
                time.sleep(rng.uniform(0, 5))
                broker.start()
            elif victim == "python only":
                kill_9_python_only(services["stream"])
                start_another("stream")
            else:
                kill_9(services[victim])
                start_another(victim)
        for service in services.values():
            service.kill()
            service.start()
        producer.stop()

        sent = here.interactions()
        reported = re.findall(r"sent (\d+) interactions.*", here.log(PRODUCER))
        assert reported[-1] == str(len(sent)), "an interaction was duplicated by a retry, or one was lost"
        here.assert_everywhere(sent)
