"""Publishes the age of the oldest record that ingest has not finished, by the times of the records in Kafka."""

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from runtime.kafka_client import PARTITION_EOF
from stream_processing import metrics
from stream_processing.progress import RunningBatch
from stream_processing.settings import StreamProcessingSettings

_INTERVAL: Final = 5.0
"""Seconds between two looks."""
_TIMEOUT: Final = 2.0
"""Seconds for Kafka to answer one of them."""
_POLL: Final = 0.1
_GROUP: Final = "stream-processing-lag"
"""Matters only to the broker's access rules: nothing is subscribed or committed."""

logger = logging.getLogger(__name__)


def follow_lag(settings: StreamProcessingSettings, running: RunningBatch, stop: threading.Event) -> threading.Thread:
    """Publish the age in a thread, which ends when `stop` is set; it is absent while it is not known."""

    def follow() -> None:
        with closing(_consumer(settings)) as consumer:
            while not stop.wait(_INTERVAL):
                metrics.LAG_SECONDS.set(_oldest_age(consumer, settings.kafka_topic, running.finished, stop))

    thread = threading.Thread(target=follow, name="lag", daemon=True)
    thread.start()
    return thread


def _oldest_age(consumer: Consumer, topic: str, offsets: Mapping[str, int], stop: threading.Event) -> float | None:
    """Return the age of the oldest record at these offsets, in seconds; 0 if there is none, None if Kafka hangs."""
    waiting = {int(partition) for partition in offsets}
    if not waiting:
        return None
    oldest: int | None = None
    try:
        consumer.assign([TopicPartition(topic, int(partition), offset) for partition, offset in offsets.items()])
        deadline = time.monotonic() + _TIMEOUT
        while waiting:
            if stop.is_set() or time.monotonic() > deadline:
                return None
            message = consumer.poll(_POLL)
            if message is None or message.partition() not in waiting:
                continue
            error = message.error()
            if error is not None and error.code() != PARTITION_EOF:
                return None
            waiting.discard(int(message.partition() or 0))
            if error is None:
                written = message.timestamp()[1]
                oldest = written if oldest is None else min(oldest, written)
        return 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000)
    except KafkaException as error:
        logger.debug("the age of the oldest record is not known: %s", error)
        return None
    finally:
        consumer.unassign()


def _consumer(settings: StreamProcessingSettings) -> Consumer:
    return Consumer(
        {
            **settings.kafka_client,
            "group.id": _GROUP,
            "log_level": 0,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            # Offsets that were deleted by now: the first record that exists is the oldest.
            "auto.offset.reset": "earliest",
            # One record is needed, and with it comes its batch.
            "fetch.message.max.bytes": 1 << 10,
            "queued.min.messages": 1,
            "queued.max.messages.kbytes": 1 << 10,
        }
    )
