"""`python -m verify` finds nothing in a pipeline that is running, and wrong dead letters."""

import threading
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from contract import dead_letters
from contract.topics import interactions_topic
from local_stack.services import PRODUCER, SINK, STREAM, Service
from runtime import topic_admin
from tests.interaction import Interaction
from tests.pipeline import Pipeline, eventually


def test_lost_wrong_and_repeated_dead_letters_are_found(pipeline: Pipeline) -> None:
    with pipeline.running(SINK), pipeline.running(STREAM):
        pipeline.send_interactions([Interaction("ann", "tea", "like", 1_700_000_000)])
        eventually(lambda: pipeline.assert_published([Interaction("ann", "tea", "like", 1_700_000_000)]))
        pipeline.assert_exact(wait=20)
    headers = {
        dead_letters.TOPIC: pipeline.topic,
        dead_letters.PARTITION: str(pipeline.read(pipeline.topic)[0].partition()),
        dead_letters.OFFSET: "0",
        dead_letters.REASON: "none",
        dead_letters.SERVICE: "stream-processing",
    }

    producer = Producer({"bootstrap.servers": pipeline.kafka})
    producer.produce(pipeline.settings.dead_letter_topic, value=b"?", headers=list(headers.items()))
    assert producer.flush(30) == 0
    found = _differences(pipeline)
    assert [(each["found"], each["expected"]) for each in found] == [("a dead letter", None)]


def test_a_lake_of_another_topic_is_refused_at_once(pipeline: Pipeline) -> None:
    sent = [Interaction("ann", "tea", "like", 1_700_000_000)]
    with pipeline.running(STREAM):
        pipeline.send_interactions(sent)
        eventually(lambda: pipeline.assert_published(sent))
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.delete_topics([pipeline.topic])[pipeline.topic].result()
    eventually(lambda: _assert_deleted(admin, pipeline.topic))
    topic_admin.create_missing_topics(
        pipeline.settings.kafka_client, threading.Event(), interactions_topic(pipeline.settings)
    )
    error = pipeline.command(Service("verify", "", 0), expected_status=2)
    assert (
        f"was made of another topic {pipeline.topic} than that of Kafka at {pipeline.kafka}: set KAFKA_BROKER" in error
    )


def _assert_deleted(admin: AdminClient, topic: str) -> None:
    assert topic not in admin.list_topics(timeout=10).topics


def _differences(pipeline: Pipeline) -> list[dict[str, Any]]:
    return [each for check in pipeline.verify(wait=0)["checks"] for each in check["differences"]]


def test_a_running_pipeline_is_compared_without_stopping_it(pipeline: Pipeline) -> None:
    with (
        pipeline.running(SINK),
        pipeline.running(STREAM, MATERIALISE_INTERVAL=5),
        pipeline.running(PRODUCER, PRODUCER_RATE=0.002, RANDOM_DATA_MAX_USERS=20, RANDOM_DATA_MAX_ITEMS=500),
    ):
        eventually(lambda: _assert_at_least(pipeline.lake_count(), 500))
        pipeline.assert_exact()
        before = pipeline.lake_count()
        eventually(lambda: _assert_at_least(pipeline.lake_count(), before + 500))
        pipeline.assert_exact()


def _assert_at_least(number: int, least: int) -> None:
    assert number >= least
