"""The malformed records of the topic of events, by the dead letters of the stream job."""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from confluent_kafka import Message

from contract.dead_letters import OFFSET, PARTITION, SERVICE, STREAM_PROCESSING, TOPIC
from runtime.kafka_client import headers_of
from runtime.topic_reader import read_to_end

_SECONDS: Final = 1.0
"""A reading ends after this time, and the next one continues."""


class MalformedRecords:
    """Offsets of the malformed records; reads each dead letter once, also if it is there twice."""

    def __init__(self, kafka_client: Mapping[str, str | int], topic: str, dead_letter_topic: str) -> None:
        self._kafka_client = kafka_client
        self._topic = topic.encode()
        self._dead_letter_topic = dead_letter_topic
        self._positions: dict[int, int] = {}
        self._offsets: defaultdict[int, list[int]] = defaultdict(list)
        self._is_whole = True

    def read(self, ranges: Mapping[int, tuple[int, int]], timeout: float) -> bool:
        """Read the dead letters in these offset ranges that were not read yet, for about a second.

        Returns whether all are known. Raises KafkaException.
        """
        if any(end < self._positions.get(partition, 0) for partition, (_, end) in ranges.items()):
            # The topic was recreated.
            self._positions.clear()
            self._offsets.clear()
            self._is_whole = True
        if any(begin > self._positions.get(partition, 0) for partition, (begin, _) in ranges.items()):
            # Some were deleted, such as by a retention time, before they were read.
            self._is_whole = False
        if any(end > self._positions.get(partition, 0) for partition, (_, end) in ranges.items()):
            self._read_to(ranges, timeout)
        return self._is_whole and all(self._positions.get(n, 0) >= end for n, (_, end) in ranges.items())

    def before(self, offsets: Mapping[int, int]) -> int:
        """Count the malformed records before the next offsets of the partitions."""
        return sum(bisect_left(self._offsets[partition], offset) for partition, offset in offsets.items())

    def _read_to(self, ranges: Mapping[int, tuple[int, int]], timeout: float) -> None:
        # From the first message on: until then the broker may take longer than that.
        deadline: float | None = None
        messages = read_to_end(
            self._kafka_client, self._dead_letter_topic, group_id="observer", timeout=timeout, start=self._positions
        )
        with closing(messages):
            for message in messages:
                self._add(message)
                self._positions[int(message.partition() or 0)] = int(message.offset() or 0) + 1
                deadline = deadline or time.monotonic() + _SECONDS
                if time.monotonic() > deadline:
                    return
        # The last offsets can be those of markers, which are never delivered.
        for partition, (_, end) in ranges.items():
            self._positions[partition] = max(end, self._positions.get(partition, 0))

    def _add(self, message: Message) -> None:
        headers = dict(headers_of(message))
        if headers.get(SERVICE) != STREAM_PROCESSING.encode() or headers.get(TOPIC) != self._topic:
            return
        try:
            known, offset = self._offsets[int(headers[PARTITION] or 0)], int(headers[OFFSET] or 0)
        except (KeyError, ValueError):
            # Another program has written it.
            return
        at = bisect_left(known, offset)
        if at == len(known) or known[at] != offset:
            known.insert(at, offset)
