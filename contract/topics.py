"""Creates the topics, with the configuration that their meaning needs."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from tenacity import (
    RetryCallState,
    Retrying,
    before_sleep_log,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from contract import dead_letters
from contract.settings import Settings

logger = logging.getLogger(__name__)

_REQUEST_TIMEOUT = 5.0
_DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own."""
_LEAST_LIMIT, _GREATEST_LIMIT = 1_000, 1_000_000_000
"""Of a client's `message.max.bytes`."""


@dataclass(frozen=True)
class Topic:
    """A topic as it should be."""

    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str] = field(default_factory=dict)


def interactions_topic(settings: Settings) -> Topic:
    """The topic that the producer writes."""
    return Topic(settings.kafka_topic, settings.kafka_topic_partition, settings.kafka_topic_replication_factor)


def aggregated_topic(settings: Settings) -> Topic:
    """The topic of changed rows: the last row of a key is kept for good.

    Its records carry the broker's append time, which the sink's document versions build on.
    """
    config = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}
    return Topic(
        settings.aggregated_topic, settings.kafka_topic_partition, settings.kafka_topic_replication_factor, config
    )


def dead_letter_topic(settings: Settings) -> Topic:
    """The topic of what did not fit: kept until somebody has looked, and larger records than other topics take."""
    config = {"retention.ms": "-1", "max.message.bytes": str(dead_letters.MAX_BYTES)}
    return Topic(settings.dead_letter_topic, 1, settings.kafka_topic_replication_factor, config)


class StoppedError(Exception):
    """The service was told to stop while it waited for the broker."""


class _NotReachableError(Exception):
    pass


def ensure(kafka_client: Mapping[str, str | int], stop: threading.Event, *topics: Topic) -> None:
    """Create the topics that do not exist yet, waiting for the broker for as long as it takes.

    An existing topic is never changed; where it differs from what is wanted a warning says so. Raises
    `StoppedError` when `stop` is set meanwhile, and KafkaException for what no waiting mends, such as
    more replicas than brokers.
    """

    def give_up(_: RetryCallState) -> None:
        raise StoppedError

    retrying = Retrying(
        retry=retry_if_exception_type(_NotReachableError),
        wait=wait_random_exponential(multiplier=0.5, max=10),
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        before_sleep=before_sleep_log(logger, logging.WARNING),
        retry_error_callback=give_up,
    )
    retrying(_create, kafka_client, topics)


def _create(kafka_client: Mapping[str, str | int], topics: Sequence[Topic]) -> None:
    admin = AdminClient({**kafka_client, "socket.connection.setup.timeout.ms": 5000}, logger=logger)
    wanted = [
        NewTopic(t.name, num_partitions=t.partitions, replication_factor=t.replication_factor, config=t.config)
        for t in topics
    ]
    results = admin.create_topics(wanted, request_timeout=_REQUEST_TIMEOUT)
    for topic in topics:
        try:
            results[topic.name].result()
            logger.info("created topic %s with %d partitions", topic.name, topic.partitions)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                _warn_of_differences(admin, topic)
            elif reason.retriable() or reason.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
                # What librdkafka has to say of it, such as a certificate that it does not trust, goes to the log.
                admin.poll(0)
                broker = kafka_client["bootstrap.servers"]
                raise _NotReachableError(f"no answer from Kafka at {broker}: {reason.str()}") from None
            else:
                raise


def _warn_of_differences(admin: AdminClient, topic: Topic) -> None:
    partitions = len(admin.list_topics(topic.name, timeout=_REQUEST_TIMEOUT).topics[topic.name].partitions)
    if partitions != topic.partitions:
        logger.warning("topic %s has %d partitions, not %d: left as it is", topic.name, partitions, topic.partitions)
    resource = ConfigResource(ResourceType.TOPIC, topic.name)
    actual = admin.describe_configs([resource], request_timeout=_REQUEST_TIMEOUT)[resource].result()
    for name, value in topic.config.items():
        if actual[name].value != value:
            logger.warning("topic %s has %s=%s, not %s: left as it is", topic.name, name, actual[name].value, value)


def max_message_bytes(kafka_client: Mapping[str, str | int], topic: str, timeout: float = 300.0) -> int:
    """The largest batch of records that the topic takes now, in bytes: Kafka's default where we may not ask.

    Within what a client of librdkafka can be set to.
    Raises KafkaException where the broker does not answer within `timeout` seconds.
    """
    admin = AdminClient({**kafka_client}, logger=logger)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        config = admin.describe_configs([resource], request_timeout=timeout)[resource].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return _DEFAULT_MAX_MESSAGE_BYTES
        raise
    return min(max(int(config["max.message.bytes"].value), _LEAST_LIMIT), _GREATEST_LIMIT)
