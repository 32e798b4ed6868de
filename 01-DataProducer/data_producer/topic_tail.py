"""Reads the end of the topic: the offsets up to which it is filled, and which events it got since."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException

from data_producer.columns import InvalidRow
from data_producer.events import Event, record_of
from runtime.kafka_errors import is_transient
from runtime.topic_reader import offset_ranges, read_to_end

_GROUP: Final = "data-producer-replay"
"""Matters only to the broker's access rules: no offsets are committed."""
_TIMEOUT: Final = 5.0
"""Seconds."""


class TopicTail:
    """The end of a topic, as the partition leaders have acknowledged it."""

    def __init__(self, kafka_client: Mapping[str, str | int], topic: str) -> None:
        self._kafka_client = kafka_client
        self._topic = topic
        # The publisher's client logs what is wrong with a broker.
        self._consumer = Consumer({**kafka_client, "group.id": _GROUP, "log_level": 0})

    def ends(self) -> dict[int, int] | None:
        """Return the offset after the last acknowledged record of each partition; None if the broker does not answer.

        Raises KafkaException if a retry cannot help.
        """
        try:
            ranges = offset_ranges(self._consumer, self._topic, _TIMEOUT)
        except KafkaException as error:
            if is_transient(error.args[0]):
                return None
            raise
        return {partition: end for partition, (_, end) in ranges.items()}

    def records_since(self, ends: Mapping[int, int]) -> "Counter[int]":
        """Count the records from the offsets `ends` on, by the hash of key and value. Raises KafkaException."""
        messages = read_to_end(self._kafka_client, self._topic, group_id=_GROUP, start=ends, uncommitted=True)
        return Counter(hash((message.key(), message.value())) for message in messages)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()


def rows_in_topic(rows: Sequence[Event | InvalidRow], first: int, records: "Counter[int]") -> set[int]:
    """Return the numbers of the rows that are among the `records` of the topic; the first of `rows` is number `first`.

    A record stands for one row only: of two equal rows and one such record, the later row is not in the topic.
    """
    found = set()
    for number, row in enumerate(rows, first):
        if isinstance(row, InvalidRow):
            continue
        record = record_of(row)
        key = hash((record["key"], record["value"]))
        if records[key]:
            records[key] -= 1
            found.add(number)
    return found
