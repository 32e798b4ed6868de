"""Reads the records that a topic has now."""

import time
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from runtime.kafka_client import PARTITION_EOF, TIMED_OUT
from runtime.kafka_errors import is_transient

_BATCH: Final = 10_000
_POLL_SECONDS: Final = 1.0


def read_to_end(
    kafka_client: Mapping[str, str | int],
    topic: str,
    *,
    group_id: str,
    timeout: float = 30.0,
    start: Mapping[int, int] | None = None,
    uncommitted: bool = False,
) -> Generator[Message, None, None]:
    """Yield all committed records from the start of `topic` to its end offsets at the time of the call.

    Records of a partition come in order of their offsets, those of different partitions interleaved; nothing where the
    topic does not exist. No offsets are committed. `group_id` matters only to the broker's access rules. `start`:
    offsets to begin at, by partition; `uncommitted`: yield the records of open and aborted transactions too.

    Raises KafkaException on an error of the client, and where the broker sends nothing for `timeout` seconds.
    """
    with closing(_consumer(kafka_client, group_id, uncommitted=uncommitted)) as consumer:
        # The leader of a partition may not be known yet, as in a topic that was just created.
        ranges = _while_transient(timeout)(offset_ranges, consumer, topic, timeout)
        begins = {partition: max(begin, (start or {}).get(partition, 0)) for partition, (begin, _) in ranges.items()}
        positions = {partition: begin for partition, begin in begins.items() if begin < ranges[partition][1]}
        consumer.assign([TopicPartition(topic, partition, begin) for partition, begin in positions.items()])
        deadline = time.monotonic() + timeout
        while positions:
            messages = consumer.consume(_BATCH, timeout=_POLL_SECONDS)
            for message in messages:
                error, partition, offset = message.error(), int(message.partition() or 0), int(message.offset() or 0)
                if error is not None and error.code() != PARTITION_EOF:
                    raise KafkaException(error)
                if partition not in positions:
                    continue
                end = ranges[partition][1]
                if error is None and offset < end:
                    yield message
                positions[partition] = offset + 1
                # A topic that is written all the time may never report the end of a partition.
                if error is not None or offset >= end - 1:
                    del positions[partition]
                    consumer.pause([TopicPartition(topic, partition)])
            if messages:
                deadline = time.monotonic() + timeout
            elif positions and time.monotonic() > deadline:
                raise KafkaException(_timed_out(topic, timeout, positions, ranges))


def offset_ranges(consumer: Consumer, topic: str, timeout: float) -> dict[int, tuple[int, int]]:
    """Return the first offset of each partition and the offset of its next record; empty if the topic does not exist.

    Raises KafkaException, also where a partition does not answer within `timeout` seconds.
    """
    metadata = consumer.list_topics(topic, timeout=timeout).topics[topic]
    if metadata.error is not None and metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise KafkaException(metadata.error)
    ranges = {}
    for partition in metadata.partitions:
        offsets = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout)
        if offsets is None:
            raise KafkaException(KafkaError(TIMED_OUT))
        ranges[partition] = offsets
    return ranges


def _while_transient(timeout: float) -> Retrying:
    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, KafkaException) and is_transient(error.args[0])),
        wait=wait_fixed(0.2),
        stop=stop_after_delay(timeout),
        reraise=True,
    )


def _consumer(kafka_client: Mapping[str, str | int], group_id: str, *, uncommitted: bool) -> Consumer:
    return Consumer(
        {
            **kafka_client,
            "group.id": group_id,
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted" if uncommitted else "read_committed",
            "auto.offset.reset": "earliest",
            # The last offsets may be of aborted records or transaction markers, which are never delivered.
            "enable.partition.eof": True,
        }
    )


def _timed_out(
    topic: str, timeout: float, positions: Mapping[int, int], ranges: Mapping[int, tuple[int, int]]
) -> KafkaError:
    missing = ", ".join(f"partition {n}: {offset} of {ranges[n][1]}" for n, offset in sorted(positions.items()))
    return KafkaError(TIMED_OUT, f"reading topic {topic}: nothing arrived for {timeout:.0f} s, next offsets: {missing}")
