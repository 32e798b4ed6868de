"""What becomes of the topic while the job runs or is stopped: each case does the documented thing, and says so."""

import os
import subprocess
import sys

import pytest
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from mirakuru import HTTPExecutor
from mirakuru.exceptions import ProcessExitedWithError
from stream_processing.lake import Lake

from contract.interaction import INTERACTION_TYPES, Interaction
from contract.tables import INTERACTIONS
from local_stack import services
from local_stack.services import STREAM
from tests.pipeline import Pipeline, eventually
from tests.reference import reference_tables


def _interactions(count: int, first: int = 0) -> list[Interaction]:
    return [
        Interaction(f"user_{n % 9}", f"item_{n % 5}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 - n)
        for n in range(first, first + count)
    ]


def _command(pipeline: Pipeline, command: str) -> str:
    told = services.environment(pipeline.data) | {"KAFKA_BROKER": pipeline.kafka, "KAFKA_TOPIC": pipeline.topic}
    said = subprocess.run(
        [sys.executable, "-m", STREAM.package, command],
        cwd=services.ROOT, env=told | {"PATH": os.environ["PATH"]}, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    return said.stderr


def _forget_appends(pipeline: Pipeline) -> None:
    """What upkeep has done to a table that nothing was appended to for longer than `LAKE_HISTORY`."""
    table = Lake(str(pipeline.data / "warehouse")).table(INTERACTIONS)
    table.optimize.compact()
    table.create_checkpoint()
    for entry in sorted((pipeline.data / "warehouse" / INTERACTIONS / "_delta_log").glob("*.json"))[:-1]:
        entry.unlink()
    assert Lake(str(pipeline.data / "warehouse")).last_note() is None


def _delete_topic(pipeline: Pipeline) -> None:
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.delete_topics([pipeline.topic])[pipeline.topic].result()
    eventually(lambda: _assert_gone(admin, pipeline.topic))


def _assert_gone(admin: AdminClient, topic: str) -> None:
    assert topic not in admin.list_topics(timeout=10).topics


def test_partitions_added_while_the_job_runs_are_read_from_their_beginning(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(200))
        eventually(lambda: pipeline.assert_published(_interactions(200)))
        admin = AdminClient({"bootstrap.servers": pipeline.kafka})
        admin.create_partitions([NewPartitions(pipeline.topic, 9)])[pipeline.topic].result()
        pipeline.send_interactions(_interactions(400, first=200))
        eventually(lambda: pipeline.assert_published(_interactions(600)))
    assert {message.partition() for message in pipeline.read(pipeline.topic)} > {0, 1, 2, 3}
    assert pipeline.lake_count() == 600


@pytest.mark.parametrize(("again", "forgotten"), [(100, False), (900, False), (900, True)])
def test_a_recreated_topic_stops_the_job_until_the_gap_is_accepted(
    pipeline: Pipeline, again: int, forgotten: bool
) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(300))
        eventually(lambda: pipeline.assert_published(_interactions(300)))
    _delete_topic(pipeline)
    if forgotten:
        _forget_appends(pipeline)
    job = pipeline.service(STREAM)
    with pytest.raises(ProcessExitedWithError):
        job.start()
    assert "was deleted and made anew since it was read last" in pipeline.log(STREAM)

    pipeline.send_interactions(_interactions(again, first=300))
    said = _command(pipeline, "accept-gap")
    assert said.count("the topic was made anew; what the old one held from offset") == 4
    if forgotten:
        # Upkeep would have kept what the aggregate query asks for; here it is gone.
        _command(pipeline, "rebuild")
    with pipeline.running(STREAM):
        eventually(lambda: pipeline.assert_published(_interactions(300 + again)))
    assert pipeline.lake_count() == 300 + again


def test_unread_records_removed_by_retention_stop_the_job_until_the_gap_is_accepted(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(90))
        eventually(lambda: pipeline.assert_published(_interactions(90)))
    pipeline.send_interactions(_interactions(90, first=90))
    _remove_records(pipeline)
    pipeline.send_interactions(_interactions(90, first=180))
    assert _ended(pipeline.service(STREAM)) == 1
    assert "records are gone from the topic before they were read" in pipeline.log(STREAM)

    assert "are gone for good" in _command(pipeline, "accept-gap")
    with pipeline.running(STREAM):
        eventually(lambda: pipeline.assert_published(_interactions(90) + _interactions(90, first=180)))
    assert pipeline.lake_count() == 180


def _ended(job: HTTPExecutor) -> int:
    """The status with which a job ends that cannot go on, before or after it was ready."""
    try:
        job.start()
        assert job.process is not None
        return job.process.wait(60)
    except ProcessExitedWithError as error:
        return int(error.exit_code)
    finally:
        job.kill()


def _remove_records(pipeline: Pipeline) -> None:
    """Remove all records that the topic has, as retention does with old ones."""
    everything = [TopicPartition(pipeline.topic, partition, OFFSET_END) for partition in range(4)]
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    for result in admin.delete_records(everything).values():
        result.result()


def test_a_rebuild_recomputes_every_table_and_loses_no_record_that_arrives_meanwhile(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(500))
        eventually(lambda: pipeline.assert_published(_interactions(500)))
    published = len(pipeline.read(pipeline.settings.aggregated_topic))
    pipeline.send_interactions(_interactions(50, first=500))
    assert "computes all aggregates anew" in _command(pipeline, "rebuild")
    with pipeline.running(STREAM):
        eventually(lambda: pipeline.assert_published(_interactions(550)))
        eventually(lambda: _assert_in_the_lake(pipeline, _interactions(550)))
    again = pipeline.read(pipeline.settings.aggregated_topic)[published:]
    assert len(again) >= 9 + 5 + 1


def _assert_in_the_lake(pipeline: Pipeline, interactions: list[Interaction]) -> None:
    assert pipeline.lake_tables() == reference_tables(interactions)


def test_changed_table_declarations_stop_the_job_until_a_rebuild(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(50))
        eventually(lambda: pipeline.assert_published(_interactions(50)))
    definitions = pipeline.data / "checkpoints" / "aggregate.definitions"
    definitions.write_text("agg_interactions_user of another time\n")
    job = pipeline.service(STREAM)
    with pytest.raises(ProcessExitedWithError):
        job.start()
    assert "run `python -m stream_processing rebuild`" in pipeline.log(STREAM)
    _command(pipeline, "rebuild")
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(50, first=50))
        eventually(lambda: pipeline.assert_published(_interactions(100)))
