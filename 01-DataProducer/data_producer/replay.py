"""Runs a replay: opens the recording and the topic, and sends until the end or until the producer is stopped."""

import threading
from pathlib import Path

from confluent_kafka import KafkaException

from data_producer import metrics
from data_producer.controls import Controls
from data_producer.errors import ReplayError
from data_producer.publisher import FLUSH_TIMEOUT, Publisher
from data_producer.recording import Recording
from data_producer.replayer import Replayer
from data_producer.settings import ProducerSettings
from data_producer.topic_tail import TopicTail
from runtime.health import Health


def replay(
    settings: ProducerSettings,
    source: Path,
    controls: Controls,
    publisher: Publisher,
    health: Health,
    stop: threading.Event,
) -> None:
    """Send the rows of `source` that are not in the topic yet, and store how far.

    Raises `ReplayError`, `PublishError`.
    """
    position = settings.producer_position
    recording = Recording(source, settings.producer_query or "", position.with_name(f"{position.name}.sorting"))
    tail = TopicTail(settings.kafka_client, settings.kafka_topic)
    replayer = Replayer(settings, recording, controls, publisher, health, tail)
    metrics.REPLAYED_ROWS.set_function(lambda: replayer.row)
    metrics.SKIPPED_ROWS.set_function(lambda: replayer.skipped)
    try:
        try:
            replayer.run(stop)
        finally:
            publisher.flush(FLUSH_TIMEOUT)
        replayer.store_last()
    except KafkaException as error:
        raise ReplayError(
            f"topic {settings.kafka_topic} cannot be read, which a replay has to do: {error.args[0].str()}: check that"
            " the Kafka user may read it"
        ) from None
    finally:
        tail.close()
        recording.close()
