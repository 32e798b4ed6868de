"""Any part is killed at any moment, under load: what the topic holds is, in the end, everywhere once.

A longer run by command: ``make test ARGS="tests/e2e/test_random_kills.py --kills 60 --seed 7"``.
"""

import random
import re
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from mirakuru import SimpleExecutor

from local_stack import servers
from local_stack.services import PRODUCER, SINK, STREAM
from tests.pipeline import Pipeline, assert_equal, eventually, identity, identity_of_row, kill_9, kill_9_python_only
from tests.reference import reference_tables

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
    stream = here.service(STREAM, MAX_OFFSETS_PER_BATCH=2_000, UPKEEP_INTERVAL=5)
    sink = here.service(SINK)
    with ExitStack() as stack:
        for process in (broker, producer, stream, sink):
            stack.callback(process.kill)
        broker.start()
        producer.start()
        ended_by_themselves: Counter[str] = Counter()
        killed: set[str] = set()
        for _ in range(kills):
            for name, service in (("stream", stream), ("sink", sink)):
                if name not in killed and service.process is not None and not service.running():
                    ended_by_themselves[name] += 1
                _start(service)
            killed.clear()
            time.sleep(chance.uniform(0, _LONGEST))
            victim = chance.choice(["stream", "stream", "python only", "sink", "broker"])
            if victim == "broker":
                kill_9(broker)
                time.sleep(chance.uniform(0, 5))
                broker.start()
            elif victim == "python only" and stream.running():
                killed.add("stream")
                kill_9_python_only(stream)
            else:
                kill_9(sink if victim == "sink" else stream)
        for service in (stream, sink):
            service.kill()
            service.start()
        producer.stop()

        sent = here.interactions()
        said = re.findall(r"sent (\d+) interactions.*", here.log(PRODUCER))
        assert said[-1] == str(len(sent)), "an interaction that was sent again is there twice, or one is gone"
        expected = reference_tables(sent)
        eventually(lambda: assert_equal(here.topic_tables(), expected))
        eventually(lambda: assert_equal(here.index_tables(), expected))
        eventually(lambda: assert_equal(here.lake_tables(), expected))
        in_the_lake = here.lake_rows("SELECT * FROM interactions")
        assert Counter(map(identity_of_row, in_the_lake)) == Counter(map(identity, sent))
        # A broker that is away for seconds ends nobody.
        assert ended_by_themselves == Counter()


def _start(service: SimpleExecutor) -> None:
    """Start it, unless it runs, and do not wait until it is ready: a kill may come before."""
    if not service.running():
        SimpleExecutor.start(service)
