"""Topics, partitions and committed offsets, read from Kafka."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cachetools.func import ttl_cache
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from live_page.settings import PageSettings
from live_page.sources.consumers import KAFKA, TIMEOUT, Consumers
from live_page.sources.errors import translate_errors
from runtime.topic_reader import offset_ranges

_CACHE_SECONDS: Final = 0.9


@dataclass(frozen=True)
class Partition:
    """A partition of a topic."""

    partition: int
    start: int
    end: int
    """The offset of the next record."""
    leader: int
    committed: int | None
    """Committed by the sink's group, if it reads this topic."""

    @property
    def lag(self) -> int | None:
        """Records that the group has not committed."""
        return None if self.committed is None else max(0, self.end - self.committed)


@dataclass(frozen=True)
class TopicState:
    """Current state of a topic."""

    name: str
    partitions: tuple[Partition, ...]
    exists: bool

    @property
    def records(self) -> int:
        """Offsets in the topic, including compacted and aborted records and markers of transactions."""
        return sum(each.end - each.start for each in self.partitions)

    @property
    def lag(self) -> int | None:
        """Lag of the sink's group over all partitions."""
        lags = [each.lag for each in self.partitions if each.lag is not None]
        return sum(lags) if lags else None


class Topics:
    """Reads from the broker; every method raises `UnavailableError`."""

    def __init__(self, settings: PageSettings, consumers: Consumers) -> None:
        self._settings = settings
        self._consumers = consumers
        self._admin = AdminClient({**settings.kafka_client, "log_level": 0})
        self.state = ttl_cache(20, _CACHE_SECONDS)(self._state)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pipeline's topics."""
        return self._settings.kafka_topic, self._settings.aggregated_topic, self._settings.dead_letter_topic

    def _state(self, topic: str) -> TopicState:
        """Read the current state of a topic."""
        with translate_errors(KAFKA):
            metadata = self._admin.list_topics(topic, timeout=TIMEOUT).topics[topic]
            committed = self._committed(topic, metadata.partitions)
            with self._consumers.borrow() as consumer:
                offsets = offset_ranges(consumer, topic, TIMEOUT)
        partitions = (
            Partition(n, start, end, metadata.partitions[n].leader, committed.get(n))
            for n, (start, end) in sorted(offsets.items())
        )
        return TopicState(topic, tuple(partitions), metadata.error is None)

    def _committed(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        group = self._settings.kafka_group_id
        requested = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, n) for n in partitions])
        if topic != self._settings.aggregated_topic or not requested.topic_partitions:
            return {}
        response = self._admin.list_consumer_group_offsets([requested], request_timeout=TIMEOUT)[group].result()
        return {each.partition: each.offset for each in response.topic_partitions or [] if each.offset >= 0}
