"""Kafka is unavailable for longer than the stream job's clients wait."""

import signal
from pathlib import Path

from contract.interaction import INTERACTION_TYPES, Interaction
from local_stack import servers
from local_stack.services import STREAM, Service
from tests.pipeline import Pipeline, assert_equal, eventually
from tests.reference import reference_tables

SHORT_TIMEOUTS_JOB = Service("tests.short_timeouts_job", STREAM.port_setting, STREAM.port)


def test_the_job_survives_an_outage_of_kafka_and_neither_loses_nor_duplicates_records(
    cache: None, tmp_path: Path
) -> None:
    port = servers.free_port()
    own_pipeline = Pipeline(f"{servers.HOST}:{port}", "", "outage", tmp_path)
    sent = [
        Interaction(f"user_{n % 31}", f"item_{n % 23}", INTERACTION_TYPES[n % 4], 1_700_000_000 + n)
        for n in range(2_000)
    ]
    with servers.kafka(tmp_path / "broker", port) as broker, own_pipeline.running(SHORT_TIMEOUTS_JOB) as job:
        assert broker.process is not None
        assert job.process is not None
        process = job.process.pid
        own_pipeline.send_interactions(sent[:1_000])
        eventually(lambda: assert_equal(own_pipeline.topic_tables(), reference_tables(sent[:1_000])))
        own_pipeline.send_interactions(sent[1_000:])
        broker.process.send_signal(signal.SIGSTOP)
        eventually(lambda: assert_contains(own_pipeline.log(SHORT_TIMEOUTS_JOB), "restarting"))
        broker.process.send_signal(signal.SIGCONT)
        own_pipeline.assert_in_the_lake(sent)
        own_pipeline.assert_published(sent)
        assert job.process.pid == process


def assert_contains(text: str, part: str) -> None:
    assert part in text
