"""Kafka is unavailable for longer than the stream job's clients wait."""

import re
import signal
from pathlib import Path

from local_stack import servers
from local_stack.services import STREAM, Service
from observer.services import OK, read_service
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, assert_equal, assert_more_than, eventually
from tests.reference import reference_tables

SHORT_TIMEOUTS_JOB = Service("tests.short_timeouts_job", STREAM.port_setting, STREAM.port)
STUCK_BATCH_JOB = Service("tests.stuck_batch_job", STREAM.port_setting, STREAM.port)


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
        # The exceptions of Java end with their lines.
        assert re.search(r"\S\d{4}-\d\d-\d\dT", own_pipeline.log(SHORT_TIMEOUTS_JOB)) is None
        own_pipeline.assert_in_the_lake(sent)
        own_pipeline.assert_published(sent)
        assert job.process.pid == process


def test_a_batch_that_never_finishes_makes_the_job_unhealthy_and_an_idle_topic_does_not(pipeline: Pipeline) -> None:
    first, second = (Interaction(user, "item", "view", 1_700_000_000) for user in ("user", "stuck"))
    job = pipeline.service(STUCK_BATCH_JOB)
    url = job.url.geturl().removesuffix("/health")
    try:
        job.start()
        pipeline.send_interactions([first])
        eventually(lambda: pipeline.assert_published([first]))
        # The tables are merged later than the job would take an idle topic for a stuck batch.
        pipeline.assert_in_the_lake([first])
        assert read_service(url)[0] == OK
        eventually(lambda: assert_equal(read_service(url)[1].get("stream_lag_seconds"), 0))
        pipeline.send_interactions([second])
        eventually(lambda: assert_contains(read_service(url)[0], "although records are waiting (1)"))
        assert read_service(url)[1]["stream_lag_records"] == 1
        eventually(lambda: assert_more_than(read_service(url)[1].get("stream_lag_seconds", 0), 5))
    finally:
        job.kill()


def assert_contains(text: str, part: str) -> None:
    assert part in text
