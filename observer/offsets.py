"""Offsets of a topic's partitions."""

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from runtime.kafka_client import TIMED_OUT


def watermark_offsets(consumer: Consumer, topic: str, timeout: float) -> dict[int, tuple[int, int]]:
    """Return the start and end offset of each partition; empty if the topic does not exist.

    Raises `KafkaException`, also if a single partition does not answer: it is not counted as an empty one.
    """
    metadata = consumer.list_topics(topic, timeout=timeout).topics[topic]
    if metadata.error is not None and metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise KafkaException(metadata.error)
    offsets = {}
    for partition in metadata.partitions:
        watermarks = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout)
        if watermarks is None:
            raise KafkaException(KafkaError(TIMED_OUT))
        offsets[partition] = watermarks
    return offsets
