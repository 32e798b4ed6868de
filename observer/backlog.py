"""Records that wait for longer than they should: by the times of the records, not by how many they are."""

from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from runtime.settings import Settings
from runtime.topic_reader import offset_ranges


class Backlog:
    """Counts the records of a topic that are not processed, and are from before a time."""

    def __init__(self, settings: Settings, group_id: str, timeout: float) -> None:
        """`timeout` is that of each request, in seconds."""
        self._timeout = timeout
        # Never subscribed, so it is no member of the group.
        self._consumer = Consumer(
            {**settings.kafka_client, "group.id": group_id, "log_level": 0, "isolation.level": "read_committed"}
        )

    def of_group(self, topic: str, before: float) -> int:
        """Count the records that the consumer group has not committed; `before` is in seconds since the epoch.

        Raises KafkaException.
        """
        ranges = offset_ranges(self._consumer, topic, self._timeout)
        partitions = [TopicPartition(topic, partition) for partition in ranges]
        committed = self._consumer.committed(partitions, timeout=self._timeout) if partitions else []
        # Without a committed offset, it is negative.
        return self._count(topic, ranges, {each.partition: each.offset for each in committed}, before)

    def after(self, topic: str, offsets: Mapping[int, int], before: float) -> int:
        """Count the records from these next offsets on. Raises KafkaException."""
        return self._count(topic, offset_ranges(self._consumer, topic, self._timeout), offsets, before)

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()

    def _count(
        self, topic: str, ranges: Mapping[int, tuple[int, int]], offsets: Mapping[int, int], before: float
    ) -> int:
        at = [TopicPartition(topic, partition, int(before * 1000)) for partition in ranges]
        number = 0
        for later in self._consumer.offsets_for_times(at, timeout=self._timeout) if at else []:
            if later.error is not None:
                raise KafkaException(later.error)
            begin, end = ranges[later.partition]
            # It is negative if no record is as late.
            limit = later.offset if later.offset >= 0 else end
            number += max(0, limit - max(begin, offsets.get(later.partition, 0)))
        return number
