"""Changes of the topic while the job runs or is stopped: in each case the job does what is documented, and logs it."""

import os
import subprocess
import sys

import pytest
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient
from mirakuru import HTTPExecutor
from mirakuru.exceptions import ProcessExitedWithError
from stream_processing.lake import Lake

from contract.interaction import INTERACTION_TYPES, Interaction
from contract.tables import INTERACTIONS
from local_stack import services
from local_stack.services import STREAM
from runtime.kafka_client import NewPartitions
from tests.pipeline import Pipeline, eventually
from tests.reference import reference_tables


def _interactions(count: int, first: int = 0) -> list[Interaction]:
    return [
        Interaction(f"user_{n % 9}", f"item_{n % 5}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 - n)
        for n in range(first, first + count)
    ]


def _command(pipeline: Pipeline, command: str) -> str:
    environment = services.environment(pipeline.data) | {"KAFKA_BROKER": pipeline.kafka, "KAFKA_TOPIC": pipeline.topic}
    result = subprocess.run(
        [sys.executable, "-m", STREAM.package, command],
        cwd=services.ROOT, env=environment | {"PATH": os.environ["PATH"]}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stderr


def _expire_appends(pipeline: Pipeline) -> None:
    """Do what maintenance does to a table without appends for longer than `LAKE_HISTORY`."""
    table = Lake(str(pipeline.data / "warehouse")).table(INTERACTIONS)
    # A commit that is no append, such as a compaction.
    table.alter.set_table_properties({"delta.checkpointInterval": "100"})
    table.create_checkpoint()
    for entry in sorted((pipeline.data / "warehouse" / INTERACTIONS / "_delta_log").glob("*.json"))[:-1]:
        entry.unlink()
    assert Lake(str(pipeline.data / "warehouse")).last_append() is None


def _delete_topic(pipeline: Pipeline) -> None:
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.delete_topics([pipeline.topic])[pipeline.topic].result()
    eventually(lambda: _assert_deleted(admin, pipeline.topic))


def _assert_deleted(admin: AdminClient, topic: str) -> None:
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


@pytest.mark.parametrize(("count", "history_expired"), [(100, False), (900, False), (900, True)])
def test_a_topic_that_is_deleted_and_recreated_stops_the_job_until_the_gap_is_accepted(
    pipeline: Pipeline, count: int, history_expired: bool
) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(300))
        eventually(lambda: pipeline.assert_published(_interactions(300)))
    _delete_topic(pipeline)
    if history_expired:
        _expire_appends(pipeline)
    job = pipeline.service(STREAM)
    with pytest.raises(ProcessExitedWithError):
        job.start()
    assert "was deleted and recreated since it was last read" in pipeline.log(STREAM)

    pipeline.send_interactions(_interactions(count, first=300))
    output = _command(pipeline, "accept-gap")
    assert output.count("the topic was recreated: records of the deleted topic from offset") == 4
    if history_expired:
        # Maintenance would have kept the log entries that the aggregation needs; here they are deleted.
        _command(pipeline, "rebuild")
    with pipeline.running(STREAM):
        eventually(lambda: pipeline.assert_published(_interactions(300 + count)))
    assert pipeline.lake_count() == 300 + count


def test_records_that_retention_has_deleted_unread_stop_the_job_until_the_gap_is_accepted(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(90))
        eventually(lambda: pipeline.assert_published(_interactions(90)))
    pipeline.send_interactions(_interactions(90, first=90))
    _remove_records(pipeline)
    pipeline.send_interactions(_interactions(90, first=180))
    assert _exit_status(pipeline.service(STREAM)) == 1
    assert "records were deleted from the topic before the job read them" in pipeline.log(STREAM)

    assert "are lost" in _command(pipeline, "accept-gap")
    with pipeline.running(STREAM):
        eventually(lambda: pipeline.assert_published(_interactions(90) + _interactions(90, first=180)))
    assert pipeline.lake_count() == 180


def _exit_status(job: HTTPExecutor) -> int:
    """Return the exit status of a job that cannot continue, before or after it was ready."""
    try:
        job.start()
        assert job.process is not None
        return job.process.wait(60)
    except ProcessExitedWithError as error:
        return int(error.exit_code)
    finally:
        job.kill()


def _remove_records(pipeline: Pipeline) -> None:
    """Delete all records of the topic, as retention does with old ones."""
    end_offsets = [TopicPartition(pipeline.topic, partition, OFFSET_END) for partition in range(4)]
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    for result in admin.delete_records(end_offsets).values():
        result.result()


def test_a_rebuild_recomputes_every_table_and_loses_no_interaction_that_arrives_meanwhile(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(500))
        eventually(lambda: pipeline.assert_published(_interactions(500)))
    published = len(pipeline.read(pipeline.settings.aggregated_topic))
    pipeline.send_interactions(_interactions(50, first=500))
    assert "recomputes all aggregates" in _command(pipeline, "rebuild")
    with pipeline.running(STREAM):
        eventually(lambda: pipeline.assert_published(_interactions(550)))
        eventually(lambda: _assert_in_the_lake(pipeline, _interactions(550)))
    republished = pipeline.read(pipeline.settings.aggregated_topic)[published:]
    assert len(republished) >= 9 + 5 + 1


def _assert_in_the_lake(pipeline: Pipeline, interactions: list[Interaction]) -> None:
    assert pipeline.lake_tables() == reference_tables(interactions)


def test_changed_table_definitions_stop_the_job_until_a_rebuild(pipeline: Pipeline) -> None:
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
