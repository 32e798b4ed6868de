"""Creates the topics, with the configuration that their meaning needs."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

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
from runtime.kafka_errors import is_transient
from runtime.settings import Settings

logger = logging.getLogger(__name__)

_REQUEST_TIMEOUT = 5.0
_PATIENT: Final = {"socket.connection.setup.timeout.ms": 5000, "reconnect.backoff.ms": 2000}
"""Of a client that looks for a broker: each attempt that fails is a line in the log."""
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


class TopicError(Exception):
    """A topic cannot be had, whatever one waits; the message says why and what to do."""


class _NotReachableError(Exception):
    pass


def ensure(kafka_client: Mapping[str, str | int], stop: threading.Event, *topics: Topic) -> None:
    """Create the topics that do not exist yet, waiting for the broker for as long as it takes.

    An existing topic is never changed; where it differs from what is wanted a warning says so. Raises
    `StoppedError` when `stop` is set meanwhile, and `TopicError` for what waiting does not solve, such as
    more replicas than brokers.
    """

    _once_reachable(stop)(_create, kafka_client, topics)


def _once_reachable(stop: threading.Event) -> Retrying:
    def give_up(_: RetryCallState) -> None:
        raise StoppedError

    return Retrying(
        retry=retry_if_exception_type(_NotReachableError),
        wait=wait_random_exponential(multiplier=0.5, max=10),
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        before_sleep=before_sleep_log(logger, logging.WARNING),
        retry_error_callback=give_up,
    )


_RIGHTS: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


def _create(kafka_client: Mapping[str, str | int], topics: Sequence[Topic]) -> None:
    broker = kafka_client["bootstrap.servers"]
    try:
        admin = AdminClient({**kafka_client, **_PATIENT}, logger=logger)
    except KafkaException as error:
        names = {"ssl.ca.location": "KAFKA_CA_FILE", "sasl.mechanism": "KAFKA_SASL_MECHANISM"}
        given = ", ".join(f"{name}={kafka_client[key]}" for key, name in names.items() if key in kafka_client)
        raise TopicError(
            f"Kafka's client cannot be made: {_text(error)}: correct KAFKA_BROKER={broker} {given}"
        ) from None
    for topic in topics:
        try:
            wanted = NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication_factor,
                config=topic.config,
            )
            admin.create_topics([wanted], request_timeout=_REQUEST_TIMEOUT)[topic.name].result()
            logger.info("created topic %s with %d partitions", topic.name, topic.partitions)
        except (KafkaException, ValueError, TypeError) as error:
            reason = error.args[0] if isinstance(error, KafkaException) else None
            if isinstance(reason, KafkaError) and reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                _warn_of_differences(admin, topic)
            elif isinstance(reason, KafkaError) and is_transient(reason):
                # What librdkafka has to say of it, such as a certificate that it does not trust, goes to the log.
                admin.poll(0)
                raise _NotReachableError(f"no answer from Kafka at {broker}: {reason.str()}") from None
            else:
                code = reason.code() if isinstance(reason, KafkaError) else KafkaError._INVALID_ARG
                raise TopicError(
                    f"topic {topic.name} cannot be created by Kafka at {broker}: {_text(error)}: {_remedy(code, topic)}"
                ) from None


def _text(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return (reason.str() if isinstance(reason, KafkaError) else str(reason)).strip().rstrip(".")


def _remedy(code: int, topic: Topic) -> str:
    config = "".join(f", {name}={value}" for name, value in topic.config.items())
    by_hand = f"create it by hand with {topic.partitions} partitions{config}"
    if code == KafkaError.INVALID_REPLICATION_FACTOR:
        return (
            f"KAFKA_TOPIC_REPLICATION_FACTOR is {topic.replication_factor}: set it to at most the number of brokers "
            "(1 for the local stack), or start more of them"
        )
    if code == KafkaError.INVALID_PARTITIONS:
        return f"KAFKA_TOPIC_PARTITION is {topic.partitions}: set it to what the broker allows"
    if code in _RIGHTS:
        return f"grant KAFKA_USERNAME the right to create topics, or {by_hand}"
    if code in (KafkaError.INVALID_CONFIG, KafkaError.POLICY_VIOLATION):
        return f"the broker's rules do not allow it: change them, or {by_hand}"
    if code == KafkaError.TOPIC_EXCEPTION:
        return "KAFKA_TOPIC is where its name is from: set it to another"
    return "check KAFKA_TOPIC, KAFKA_TOPIC_PARTITION and KAFKA_TOPIC_REPLICATION_FACTOR"


def _warn_of_differences(admin: AdminClient, topic: Topic) -> None:
    try:
        found = admin.list_topics(topic.name, timeout=_REQUEST_TIMEOUT).topics.get(topic.name)
        partitions = len(found.partitions) if found else topic.partitions
        if partitions != topic.partitions:
            logger.warning(
                "topic %s has %d partitions, not %d: left as it is", topic.name, partitions, topic.partitions
            )
        resource = ConfigResource(ResourceType.TOPIC, topic.name)
        actual = admin.describe_configs([resource], request_timeout=_REQUEST_TIMEOUT)[resource].result()
    except KafkaException as error:
        # A client may well read and write a topic whose settings it must not see.
        logger.warning("topic %s: its settings could not be read: %s", topic.name, _text(error))
        return
    for name, value in topic.config.items():
        if actual[name].value != value:
            logger.warning("topic %s has %s=%s, not %s: left as it is", topic.name, name, actual[name].value, value)


def max_message_bytes(kafka_client: Mapping[str, str | int], topic: str, timeout: float = 300.0) -> int:
    """The largest batch of records that the topic takes now, in bytes: Kafka's default where we may not ask.

    Within what a client of librdkafka can be set to.
    Raises KafkaException where the broker does not answer within `timeout` seconds.
    """
    admin = AdminClient({**kafka_client, **_PATIENT}, logger=logger)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        config = admin.describe_configs([resource], request_timeout=timeout)[resource].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return _DEFAULT_MAX_MESSAGE_BYTES
        raise
    return min(max(int(config["max.message.bytes"].value), _LEAST_LIMIT), _GREATEST_LIMIT)


def max_message_bytes_once_reachable(kafka_client: Mapping[str, str | int], topic: str, stop: threading.Event) -> int:
    """`max_message_bytes`, waiting for the broker for as long as it takes; `StoppedError` when `stop` is set."""

    def ask() -> int:
        try:
            return max_message_bytes(kafka_client, topic, _REQUEST_TIMEOUT)
        except KafkaException as error:
            reason = error.args[0]
            # Created a moment ago, a topic may not be known to every broker yet.
            if is_transient(reason) or reason.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                broker = kafka_client["bootstrap.servers"]
                raise _NotReachableError(f"no answer from Kafka at {broker}: {_text(error)}") from None
            raise TopicError(f"topic {topic} cannot be asked how large a record may be: {_text(error)}") from None

    return _once_reachable(stop)(ask)
