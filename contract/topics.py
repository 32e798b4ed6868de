"""The topics: their names, partitions and the configuration that the pipeline relies on."""

from dataclasses import dataclass, field
from typing import Final, Protocol

from contract import dead_letters

TRACEPARENT: Final = "traceparent"
"""The header with the trace that a sampled record belongs to (W3C Trace Context), where traces are on; a record means
the same with and without it."""
_AGGREGATED_SUFFIX: Final = "_aggregated"
_DEAD_LETTER_SUFFIX: Final = "_dead_letter"


@dataclass(frozen=True)
class Topic:
    """A topic as it should be created."""

    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str] = field(default_factory=dict)


class TopicSettings(Protocol):
    """The settings that the topics follow from."""

    @property
    def kafka_topic(self) -> str:
        """The name of the topic of interactions."""

    @property
    def kafka_topic_partition(self) -> int:
        """The number of partitions."""

    @property
    def kafka_topic_replication_factor(self) -> int:
        """The number of replicas."""


def aggregated_topic_name(interactions: str) -> str:
    """Return the name of the topic of changed rows.

    >>> aggregated_topic_name("avroic")
    'avroic_aggregated'
    """
    return interactions + _AGGREGATED_SUFFIX


def dead_letter_topic_name(interactions: str) -> str:
    """Return the name of the topic of dead letters.

    >>> dead_letter_topic_name("avroic")
    'avroic_dead_letter'
    """
    return interactions + _DEAD_LETTER_SUFFIX


def interactions_topic(settings: TopicSettings) -> Topic:
    """Declare the topic that the producer writes to.

    Its records carry the broker's append time: Spark's source fails at a time that a client sets beyond the year
    294247, such as nanoseconds that it sends as milliseconds.
    """
    return Topic(
        settings.kafka_topic,
        settings.kafka_topic_partition,
        settings.kafka_topic_replication_factor,
        {"message.timestamp.type": "LogAppendTime"},
    )


def aggregated_topic(settings: TopicSettings) -> Topic:
    """Declare the topic of changed rows: compacted, so that the latest row of every key is retained.

    Its records carry the broker's append time, from which the sink derives document versions.
    """
    return Topic(
        aggregated_topic_name(settings.kafka_topic),
        settings.kafka_topic_partition,
        settings.kafka_topic_replication_factor,
        {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"},
    )


def dead_letter_topic(settings: TopicSettings) -> Topic:
    """Declare the topic of dead letters: unlimited retention, and larger records than other topics accept."""
    return Topic(
        dead_letter_topic_name(settings.kafka_topic),
        1,
        settings.kafka_topic_replication_factor,
        {"retention.ms": "-1", "max.message.bytes": str(dead_letters.MAX_BYTES)},
    )
