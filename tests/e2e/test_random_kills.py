"""Any part is killed at any moment, under load: what the topic holds is, in the end, everywhere once.

A longer run by command: ``make test ARGS="tests/e2e/test_random_kills.py --kills 60 --seed 7"``.
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

_LONGEST = 30.0
"""Seconds between two kills; a stream job needs about fifteen from its start to its first aggregate."""


@pytest.mark.timeout(7200)
def test_whatever_is_killed_whenever_nothing_is_lost_or_doubled(
    pipeline: Pipeline, tmp_path: Path, kills: int, seed: int
) -> None:
    chance = random.Random(seed)
    port = servers.free_port()
    here = Pipeline(f"{servers.HOST}:{port}", pipeline.es_url, pipeline.topic, tmp_path)
    broker = servers.kafka(tmp_path / "broker", port)
    producer = here.service(PRODUCER, PRODUCER_RATE="0.004", RANDOM_DATA_MAX_USERS=50, RANDOM_DATA_MAX_ITEMS=50)
    with ExitStack() as stack:

        def begin(name: str) -> None:
            """A new one beside what a killed one may have left, as a supervisor would."""
            settings = {"MAX_OFFSETS_PER_BATCH": 2_000, "UPKEEP_INTERVAL": 5} if name == "stream" else {}
            services[name] = here.service(STREAM if name == "stream" else SINK, **settings)
            stack.callback(services[name].kill)
            # Not waited for until it is ready: a kill may come before.
            SimpleExecutor.start(services[name])

        services: dict[str, HTTPExecutor] = {}
        for process in (broker, producer):
            stack.callback(process.kill)
            process.start()
        begin("stream")
        begin("sink")
        for _ in range(kills):
            time.sleep(chance.uniform(0, _LONGEST))
            # Nothing that was not killed has ended, whatever else was.
            assert all(service.running() for service in services.values())
            victim = chance.choice(["stream", "stream", "python only", "sink", "broker"])
            if victim == "broker":
                kill_9(broker)
                time.sleep(chance.uniform(0, 5))
                broker.start()
            elif victim == "python only":
                kill_9_python_only(services["stream"])
                begin("stream")
            else:
                kill_9(services[victim])
                begin(victim)
        for service in services.values():
            service.kill()
            service.start()
        producer.stop()

        sent = here.interactions()
        said = re.findall(r"sent (\d+) interactions.*", here.log(PRODUCER))
        assert said[-1] == str(len(sent)), "an interaction that was sent again is there twice, or one is gone"
        here.assert_everywhere(sent)
