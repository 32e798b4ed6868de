"""What is done by hand while the job is stopped: a rebuild, and going on behind a gap in the topic."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition
from pyspark.sql import SparkSession

from stream_processing import aggregate, ingest, kafka_io, materialise
from stream_processing.checkpoint import Checkpoint
from stream_processing.lake import Lake
from stream_processing.settings import StreamProcessingSettings
from stream_processing.storage import remove

logger = logging.getLogger(__name__)


def rebuild(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> None:
    """Forget the aggregates' state, so that the next start computes it anew from the lake, in a single batch.

    Every row is then published again, none older than before, and comes to the tables and indices the usual way.
    What arrives meanwhile waits in Kafka and in the lake: ingest's checkpoint is not touched.
    """
    remove(session, f"{settings.checkpoints}/{aggregate.NAME}")
    remove(session, aggregate.definitions_file(settings))
    lake.renew_tables_of_another_form()
    logger.info("the next start computes all aggregates anew from %s", lake.interactions)


@dataclass(frozen=True)
class Place:
    """Where a partition was read up to, and what it holds now."""

    partition: int
    known: int
    first: int
    end: int
    made_anew: bool = False
    """The topic is another one of the same name."""

    @property
    def next(self) -> int:
        """Where to go on: behind what was read, or at the first record where that is not there any more."""
        return self.known if self.first <= self.known <= self.end and not self.made_anew else self.first

    @property
    def loss(self) -> str:
        """What is not there any more, in words."""
        if self.made_anew or self.known > self.end:
            return f"the topic was made anew; what the old one held from offset {self.known} on is gone for good"
        if self.known < self.first:
            return f"the records {self.known} to {self.first - 1} are gone for good"
        return "nothing is missing"


class NothingKnownError(Exception):
    """There is no record of how far the topic was read."""


def accept_gap(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> list[Place]:
    """Have the job go on although records are gone from the topic, and tell which; what the lake has stays.

    Where rows are gone from the aggregated topic too, as with a new Kafka, it is filled again as by `rebuild`.
    Raises `NothingKnownError` where neither the lake's history nor a checkpoint tells how far the topic was read.
    """
    checkpoint = Checkpoint(session, f"{settings.checkpoints}/{ingest.NAME}")
    note = lake.last_note()
    offsets = note["offsets"] if note else checkpoint.committed_offsets()
    if offsets is None:
        raise NothingKnownError(f"neither {lake.interactions} nor {checkpoint.path} tells how far the topic was read")
    known = {int(partition): int(offset) for partition, offset in offsets[settings.kafka_topic].items()}
    topic_id = kafka_io.topic_id(settings, settings.kafka_topic)
    made_anew = ingest.known_topic_id(session, settings, note) not in (None, topic_id)
    places = list(_places(settings, settings.kafka_topic, known, made_anew))
    for place in places:
        is_gap = place.next != place.known
        logger.log(logging.WARNING if is_gap else logging.INFO, "partition %d: %s", place.partition, place.loss)
    # Before anything tells that the gap is accepted: after a kill, the command is run again.
    _fill_again_if_gone(session, settings, lake, made_anew)
    going_on = {settings.kafka_topic: {str(place.partition): place.next for place in places}}
    lake.leave_note({"query": "accept-gap", "batch": 0, "topic_id": topic_id, "offsets": going_on})
    ingest.remember_topic(session, settings, topic_id)
    remove(session, checkpoint.path)
    logger.info("the next start goes on at %s", json.dumps(going_on))
    return places


def _fill_again_if_gone(session: SparkSession, settings: StreamProcessingSettings, lake: Lake, certainly: bool) -> None:
    """Rebuild where the aggregated topic is not the one that the tables were read from, or has a gap."""
    checkpoint = Checkpoint(session, f"{settings.checkpoints}/{materialise.NAME}")
    if not checkpoint.exists:
        return
    topic, offsets = settings.aggregated_topic, checkpoint.committed_offsets()
    known = {int(partition): int(offset) for partition, offset in offsets[topic].items()} if offsets else {}
    places = _places(settings, topic, known, False)
    if certainly or not known or any(place.next != place.known for place in places):
        logger.warning("rows are gone from %s: it is filled again", topic)
        rebuild(session, settings, lake)
        remove(session, checkpoint.path)


def _places(
    settings: StreamProcessingSettings, topic: str, known: Mapping[int, int], made_anew: bool
) -> Iterator[Place]:
    consumer = Consumer({**settings.kafka_client, "group.id": "stream-processing-accept-gap"})
    try:
        for partition in sorted(kafka_io.partitions_of(settings, topic)):
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
            yield Place(partition, known.get(partition, first), first, end, made_anew)
    finally:
        consumer.close()
