"""Changes of the topic while the job runs or is stopped: in each case the job does what is documented, and logs it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from mirakuru import HTTPExecutor
from mirakuru.exceptions import ProcessExitedWithError
from stream_processing.lake import Lake

from contract.declared import EVENT
from contract.topics import interactions_topic
from local_stack import servers, services
from local_stack.services import STREAM
from runtime import topic_admin
from runtime.kafka_client import NewPartitions
from tests.crash_points import CRASHING_STREAM
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, eventually, headers_of
from tests.reference import reference_tables


def _interactions(count: int, first: int = 0) -> list[Interaction]:
    return [
        Interaction(f"user_{n % 9}", f"item_{n % 5}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 - n)
        for n in range(first, first + count)
    ]


def _command(pipeline: Pipeline, command: str, expected_status: int = 0, **settings: str) -> str:
    environment = services.environment(pipeline.data) | {"KAFKA_BROKER": pipeline.kafka, "KAFKA_TOPIC": pipeline.topic}
    environment |= settings
    result = subprocess.run(
        [sys.executable, "-m", STREAM.package, command],
        cwd=services.ROOT, env=environment | {"PATH": os.environ["PATH"]}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == expected_status, result.stderr
    return result.stderr


def _expire_appends(pipeline: Pipeline) -> None:
    """Do what maintenance does to a table without appends for longer than `LAKE_HISTORY`."""
    table = Lake(str(pipeline.data / "warehouse")).table(EVENT.name)
    # A commit that is no append, such as a compaction.
    table.alter.set_table_properties({"delta.checkpointInterval": "100"})
    table.create_checkpoint()
    for entry in sorted((pipeline.data / "warehouse" / EVENT.name / "_delta_log").glob("*.json"))[:-1]:
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


def test_a_topic_that_is_an_older_copy_stops_the_job_until_the_gap_is_accepted_and_nothing_counts_twice(
    cache: None, tmp_path: Path
) -> None:
    broker, port = tmp_path / "broker", servers.free_port()
    pipeline = Pipeline(f"{servers.HOST}:{port}", "", "copied", tmp_path)
    with servers.kafka(broker, port), pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(100))
        eventually(lambda: pipeline.assert_published(_interactions(100)))
    shutil.copytree(broker, tmp_path / "copy")
    # Rows of users and items that the copy does not have, and that do not change again.
    added = [replace(each, user_id=f"{each.user_id}0", item_id=f"{each.item_id}0") for each in _interactions(100, 100)]
    with servers.kafka(broker, port), pipeline.running(STREAM):
        pipeline.send_interactions(added)
        eventually(lambda: pipeline.assert_published(_interactions(100) + added))
    shutil.rmtree(broker)
    (tmp_path / "copy").rename(broker)
    with servers.kafka(broker, port):
        with pytest.raises(ProcessExitedWithError):
            pipeline.service(STREAM).start()
        assert "Kafka's data is an older copy, or has lost records" in pipeline.log(STREAM)

        assert "None is read twice" in _command(pipeline, "accept-gap")
        with pipeline.running(STREAM):
            pipeline.send_interactions(_interactions(50, 200))
            counted = _interactions(100) + added + _interactions(50, 200)
            eventually(lambda: pipeline.assert_published(counted))
        pipeline.assert_in_the_lake(counted)


def test_an_accept_gap_that_was_killed_before_its_last_step_skips_nothing_of_a_recreated_topic(
    pipeline: Pipeline,
) -> None:
    checkpoint, copy = pipeline.data / "checkpoints" / "ingest", pipeline.data / "copy"
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(100))
        eventually(lambda: pipeline.assert_published(_interactions(100)))
    _delete_topic(pipeline)
    topic_admin.create_missing_topics(
        pipeline.settings.kafka_client, threading.Event(), interactions_topic(pipeline.settings)
    )
    # More than there were: the old offsets exist in the new topic.
    pipeline.send_interactions(_interactions(400, first=100))
    shutil.copytree(checkpoint, copy)
    _command(pipeline, "accept-gap")
    copy.rename(checkpoint)
    with pipeline.running(STREAM):
        eventually(lambda: pipeline.assert_published(_interactions(500)))
    assert pipeline.lake_count() == 500


def test_no_timestamp_that_a_client_sets_stops_the_job(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM):
        interactions = _interactions(3)
        producer = Producer({"bootstrap.servers": pipeline.kafka})
        # The last one is in nanoseconds instead of milliseconds.
        for interaction, timestamp in zip(interactions, (-5, 2**63 - 1, 1_795_805_360_499_000_000), strict=True):
            producer.produce(pipeline.topic, orjson.dumps(interaction), timestamp=timestamp)
        assert producer.flush(30) == 0
        eventually(lambda: pipeline.assert_published(interactions))


def test_a_topic_with_the_times_of_clients_continues_by_the_remedy_that_the_job_names(pipeline: Pipeline) -> None:
    topic = replace(interactions_topic(pipeline.settings), config={})
    topic_admin.create_missing_topics(pipeline.settings.kafka_client, threading.Event(), topic)
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(90))
        eventually(lambda: pipeline.assert_published(_interactions(90)))
    producer = Producer({"bootstrap.servers": pipeline.kafka})
    producer.produce(pipeline.topic, orjson.dumps(_interactions(1)[0]), timestamp=2**63 - 1)
    assert producer.flush(30) == 0
    assert _exit_status(pipeline.service(STREAM)) == 1
    assert "set message.timestamp.type=LogAppendTime for the topic, delete its records" in pipeline.log(STREAM)

    _remove_records(pipeline)
    _command(pipeline, "accept-gap")
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(90, first=90))
        eventually(lambda: pipeline.assert_published(_interactions(180)))
    assert pipeline.lake_count() == 180


def _older(checkpoint: Path, copy: Path) -> None:
    shutil.rmtree(checkpoint)
    copy.rename(checkpoint)


def _without_batches(checkpoint: Path, _: Path) -> None:
    for folder in ("offsets", "commits", "sources"):
        shutil.rmtree(checkpoint / folder)


def _latest(folder: Path) -> Path:
    return max((file for file in folder.iterdir() if file.name.isdecimal()), key=lambda file: int(file.name))


def _damaged(checkpoint: Path, _: Path) -> None:
    latest = _latest(checkpoint / "offsets")
    latest.write_text("")
    (checkpoint / "commits" / latest.name).unlink()


def _overwritten_offsets(checkpoint: Path, _: Path) -> None:
    latest = _latest(checkpoint / "offsets")
    # Within a text of the second line: it is still JSON, for a reader that replaces what is not UTF-8.
    latest.write_bytes(latest.read_bytes().replace(b"RocksDBStateStoreProvider", b"\xa5" * 25))


def _damaged_commit(checkpoint: Path, _: Path) -> None:
    _latest(checkpoint / "commits").write_text("")


def _half_a_commit(checkpoint: Path, _: Path) -> None:
    _latest(checkpoint / "commits").write_text('v1\n{"nextBatch')


def _damaged_metadata(checkpoint: Path, _: Path) -> None:
    (checkpoint / "metadata").write_text("")


def _overwritten_metadata(checkpoint: Path, _: Path) -> None:
    metadata = checkpoint / "metadata"
    content = metadata.read_bytes()
    metadata.write_bytes(content[:12] + b"\xa5" * 20 + content[32:])


_DAMAGES = {
    "an older copy": _older,
    "killed before its first batch": _without_batches,
    "damaged": _damaged,
    "offsets with other bytes": _overwritten_offsets,
    "an empty commit": _damaged_commit,
    "half a commit": _half_a_commit,
    "without its id": _damaged_metadata,
    "an id with other bytes": _overwritten_metadata,
}


@pytest.mark.timeout(2400)
def test_a_checkpoint_that_is_behind_the_lake_appends_nothing_twice(pipeline: Pipeline) -> None:
    checkpoint, copy = pipeline.data / "checkpoints" / "ingest", pipeline.data / "copy"
    sent = 0

    def send(count: int) -> None:
        nonlocal sent
        pipeline.send_interactions(_interactions(count, first=sent))
        sent += count

    def assert_each_once() -> None:
        pipeline.assert_published(_interactions(sent))
        assert pipeline.lake_count() == sent

    with pipeline.running(STREAM):
        send(100)
        eventually(assert_each_once)
    shutil.copytree(checkpoint, copy)
    with pipeline.running(STREAM):
        send(200)
        eventually(assert_each_once)
    for name, damage in _DAMAGES.items():
        damage(checkpoint, copy)
        send(10)
        before = pipeline.log(STREAM)
        with pipeline.running(STREAM):
            eventually(assert_each_once)
            message = f"{checkpoint} is missing: continuing from the offsets in the table's history"
            assert message in pipeline.log(STREAM).removeprefix(before), name
            # So that the next one damages the checkpoint of several batches.
            for _ in range(2):
                send(10)
                eventually(assert_each_once)


def test_a_checkpoint_that_is_lost_after_a_crash_loses_no_dead_letter_of_the_last_batch(pipeline: Pipeline) -> None:
    job = pipeline.service(CRASHING_STREAM, KILL_AT="after-append")
    with pipeline.running(STREAM):
        pipeline.send(pipeline.topic, [(b"key", b"not json")])
        pipeline.send_interactions(_interactions(100))
        eventually(lambda: pipeline.assert_published(_interactions(100)))
        eventually(lambda: _assert_dead_letters_once(pipeline, 1))
    try:
        job.start()
        for n in range(1, 3):
            # The job dies after its second append, before the dead letters of that batch are sent.
            pipeline.send(pipeline.topic, [(b"key", b"not json")] * n)
            if n == 1:
                eventually(lambda: _assert_dead_letters_once(pipeline, 2))
        assert job.process is not None
        assert job.process.wait(60) == -signal.SIGKILL
    finally:
        job.kill()
    _assert_dead_letters_once(pipeline, 2)
    shutil.rmtree(pipeline.data / "checkpoints" / "ingest")
    with pipeline.running(STREAM):
        eventually(lambda: _assert_dead_letters_once(pipeline, 4))
        pipeline.send_interactions(_interactions(10, first=100))
        eventually(lambda: pipeline.assert_published(_interactions(110)))
    _assert_dead_letters_once(pipeline, 4)
    assert pipeline.lake_count() == 110


def _assert_dead_letters_once(pipeline: Pipeline, expected: int) -> None:
    headers = map(headers_of, pipeline.read(pipeline.settings.dead_letter_topic))
    origins = Counter((each["dead_letter.partition"], each["dead_letter.offset"]) for each in headers)
    assert (len(origins), origins.total()) == (expected, expected)


def test_folders_that_belong_to_another_topic_are_refused_by_name(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(10))
        eventually(lambda: pipeline.assert_published(_interactions(10)))
    other = f"{pipeline.topic}_other"
    expected = f"belong to topic {pipeline.topic}, and KAFKA_TOPIC is {other}"
    assert _exit_status(pipeline.service(STREAM, KAFKA_TOPIC=other)) == 1
    assert expected in pipeline.log(STREAM)
    assert expected in _command(pipeline, "accept-gap", expected_status=1, KAFKA_TOPIC=other)
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(10, first=10))
        eventually(lambda: pipeline.assert_published(_interactions(20)))


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
    definitions = pipeline.data / "checkpoints" / "tables.definitions"
    definitions.write_text("agg_interactions_user of another time\n")
    job = pipeline.service(STREAM)
    with pytest.raises(ProcessExitedWithError):
        job.start()
    assert "run `python -m stream_processing rebuild`" in pipeline.log(STREAM)
    _command(pipeline, "rebuild")
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(50, first=50))
        eventually(lambda: pipeline.assert_published(_interactions(100)))
