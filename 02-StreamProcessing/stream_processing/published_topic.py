"""Remembers up to where the aggregated topic has the published rows: one that lacks them gets all rows."""

import json
import logging
from collections.abc import Mapping
from typing import Final

from pyspark.sql import SparkSession

from stream_processing.kafka_io import offset_ranges, topic_id
from stream_processing.settings import StreamProcessingSettings
from stream_processing.storage import read_text_if_exists, remove, write_text

_TIMEOUT: Final = 2.0
"""Seconds for each partition's end; without an answer, the ends that are stored already stay."""

logger = logging.getLogger(__name__)


class PublishedTopic:
    """The aggregated topic, by its id and the end of each partition after the rows of the latest snapshot."""

    def __init__(self, session: SparkSession, settings: StreamProcessingSettings) -> None:
        self._session = session
        self._settings = settings
        self._topic_id = ""

    def has_all_rows(self) -> bool:
        """Whether the topic has what was published: it was not recreated, and does not end before that.

        Raises KafkaException.
        """
        self._topic_id = topic_id(self._settings, self._settings.aggregated_topic)
        known, ends = parse_published(read_text_if_exists(self._session, _file(self._settings)) or "")
        if known != self._topic_id:
            return False
        topic = self._settings.aggregated_topic
        for partition, (_, end) in sorted(offset_ranges(self._settings, topic).items()) if ends else ():
            if end < (published := ends.get(str(partition), 0)):
                logger.warning(
                    "topic %s ends at offset %d in partition %d, and had rows up to %d: Kafka's data is an older copy,"
                    " or has lost records. All rows are published again. Records that topic %s has got since at offsets"
                    " that were read before are not counted",
                    topic, end, partition, published, self._settings.kafka_topic,
                )  # fmt: skip
                # A kill after some rows would leave a topic that is long enough again.
                forget_published(self._session, self._settings)
                return False
        return True

    def store(self) -> None:
        """Store that the topic has all rows up to its current ends; raises KafkaException."""
        ranges = offset_ranges(self._settings, self._settings.aggregated_topic, _TIMEOUT)
        published = {"id": self._topic_id, "ends": {str(partition): end for partition, (_, end) in ranges.items()}}
        write_text(self._session, _file(self._settings), json.dumps(published))


def parse_published(text: str) -> tuple[str, Mapping[str, int]]:
    """Return the id of the topic, and the end of each partition; earlier releases have stored the id alone.

    >>> parse_published('{"id": "dGhlIGZpcnN0", "ends": {"0": 7}}'), parse_published("dGhlIGZpcnN0")
    (('dGhlIGZpcnN0', {'0': 7}), ('dGhlIGZpcnN0', {}))
    """
    if not text.startswith("{"):
        return text, {}
    try:
        published = json.loads(text)
    except ValueError:
        # A power failure has damaged it.
        return "", {}
    return published["id"], published["ends"]


def forget_published(session: SparkSession, settings: StreamProcessingSettings) -> None:
    """Let the next start publish all rows, as to a topic that was recreated."""
    remove(session, _file(settings))


def _file(settings: StreamProcessingSettings) -> str:
    return f"{settings.checkpoints}/aggregate.topic"
