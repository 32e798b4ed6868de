"""Creates the topics, and reads their limits, through Kafka's admin client."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)

from contract.topics import Topic
from runtime.client_logs import WhileWaiting
from runtime.kafka_client import INVALID_ARGUMENT, ConfigResource, NewTopic, ResourceType, TopicDescription
from runtime.kafka_errors import is_transient
from runtime.signals import StoppedError

logger = logging.getLogger(__name__)
logger.addFilter(WhileWaiting())

_T = TypeVar("_T")

_REQUEST_TIMEOUT: Final = 5.0
"""Seconds."""
_CONNECTION: Final = {"socket.connection.setup.timeout.ms": 5000, "reconnect.backoff.ms": 2000}
"""Few connection attempts, as each that fails is a line in the log."""
_SHORT_WAIT: Final = 1.0
"""Seconds after which waiting for the broker is logged."""
_LONG_WAIT: Final = 10.0
"""Seconds after which waiting for the broker is a warning, which is repeated after twice the time."""
_PROPAGATION: Final = 10.0
"""Seconds after which a topic that a broker does not know is missing: the controller has created it, and acknowledged
that, before the other brokers have learnt of it."""
_DEFAULT_MAX_MESSAGE_BYTES: Final = 1_048_588
"""Kafka's default of max.message.bytes."""
_MIN_CLIENT_LIMIT, _MAX_CLIENT_LIMIT = 1_000, 1_000_000_000
"""The range of the client's message.max.bytes."""
_AUTHORIZATION_FAILED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


class TopicError(Exception):
    """A topic cannot be created or described, and a retry cannot help; the message has the reason and the remedy."""


class _BrokerUnavailableError(Exception):
    """The broker does not answer; retried."""


def interruptible_sleep(stop: threading.Event) -> Callable[[float], None]:
    """Return a function that sleeps for seconds; it raises `StoppedError` as soon as `stop` is set."""

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise StoppedError

    return sleep


def create_missing_topics(kafka_client: Mapping[str, str | int], stop: threading.Event, *topics: Topic) -> None:
    """Create the topics that do not exist, retrying until the broker is available.

    An existing topic is never changed; a warning reports how it differs. Raises `StoppedError` when `stop` is set
    meanwhile, and `TopicError` if a retry cannot help, such as for more replicas than brokers.
    """
    _retry(interruptible_sleep(stop), kafka_client, lambda: _create(kafka_client, topics))


class _WaitLog:
    """Logs that the broker does not answer: after a moment, and with the reason when it takes long."""

    def __init__(self, kafka_client: Mapping[str, str | int]) -> None:
        self._broker = kafka_client["bootstrap.servers"]
        self._is_logged = False
        self._warn_at = _LONG_WAIT

    def __call__(self, state: RetryCallState) -> None:
        seconds = state.seconds_since_start or 0.0
        self.log_once()
        if seconds >= self._warn_at and state.outcome is not None:
            logger.warning("%s; waiting for %.0f s", state.outcome.exception(), seconds)
            self._warn_at = 2 * seconds

    def log_once(self) -> None:
        """Log that the service waits, unless that is logged already."""
        if not self._is_logged:
            self._is_logged = True
            logger.info("waiting for Kafka at %s", self._broker)


def _retry(sleep: Callable[[float], None], kafka_client: Mapping[str, str | int], request: Callable[[], _T]) -> _T:
    log = _WaitLog(kafka_client)
    # The first request alone may take longer than a user waits for a line.
    timer = threading.Timer(_SHORT_WAIT, log.log_once)
    timer.daemon = True
    timer.start()
    try:
        return _retrying(sleep, log)(request)
    finally:
        timer.cancel()


def _retrying(sleep: Callable[[float], None], log: _WaitLog) -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(_BrokerUnavailableError),
        wait=wait_random_exponential(multiplier=0.5, max=10),
        sleep=sleep,
        before_sleep=log,
    )


def _create(kafka_client: Mapping[str, str | int], topics: Sequence[Topic]) -> None:
    admin = _admin(kafka_client)
    for topic in topics:
        try:
            new = NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication_factor,
                config=topic.config,
            )
            admin.create_topics([new], request_timeout=_REQUEST_TIMEOUT)[topic.name].result()
            logger.info("created topic %s with %d partitions", topic.name, topic.partitions)
        except (KafkaException, ValueError, TypeError) as error:
            reason = error.args[0] if isinstance(error, KafkaException) else None
            if isinstance(reason, KafkaError) and reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                _warn_of_differences(admin, topic)
                continue
            raise _creation_error(admin, kafka_client["bootstrap.servers"], topic, error) from None


def _admin(kafka_client: Mapping[str, str | int]) -> AdminClient:
    try:
        return AdminClient({**kafka_client, **_CONNECTION}, logger=logger)
    except KafkaException as error:
        settings = {
            "bootstrap.servers": "KAFKA_BROKER",
            "ssl.ca.location": "KAFKA_CA_FILE",
            "sasl.mechanism": "KAFKA_SASL_MECHANISM",
        }
        values = " ".join(f"{name}={kafka_client[key]}" for key, name in settings.items() if key in kafka_client)
        raise TopicError(f"the Kafka client rejects its configuration: {_text(error)}: correct {values}") from None


def _creation_error(admin: AdminClient, broker: str | int, topic: Topic, error: Exception) -> Exception:
    reason = error.args[0] if isinstance(error, KafkaException) else None
    if isinstance(reason, KafkaError) and is_transient(reason):
        # Logs librdkafka's own reason, such as a certificate that is not trusted.
        admin.poll(0)
        return _BrokerUnavailableError(f"no answer from Kafka at {broker}: {reason.str()}")
    code = reason.code() if isinstance(reason, KafkaError) else INVALID_ARGUMENT
    return TopicError(
        f"topic {topic.name} cannot be created by Kafka at {broker}: {_text(error)}: {_remedy(code, topic)}"
    )


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
    if code in _AUTHORIZATION_FAILED:
        return f"grant KAFKA_USERNAME the right to create topics, or {by_hand}"
    if code in (KafkaError.INVALID_CONFIG, KafkaError.POLICY_VIOLATION):
        return f"the broker's policy does not allow it: change the policy, or {by_hand}"
    if code == KafkaError.TOPIC_EXCEPTION:
        return "its name comes from KAFKA_TOPIC: set that to another name"
    return "check KAFKA_TOPIC, KAFKA_TOPIC_PARTITION and KAFKA_TOPIC_REPLICATION_FACTOR"


def _warn_of_differences(admin: AdminClient, topic: Topic) -> None:
    try:
        partitions = len(_description(admin, topic.name, _REQUEST_TIMEOUT).partitions)
        if partitions != topic.partitions:
            logger.warning(
                "topic %s has %d partitions, not %d: left unchanged", topic.name, partitions, topic.partitions
            )
        resource = ConfigResource(ResourceType.TOPIC, topic.name)
        config = _known(lambda: admin.describe_configs([resource], request_timeout=_REQUEST_TIMEOUT)[resource].result())
    except KafkaException as error:
        # A user may be allowed to read and write a topic, and not to describe its configuration.
        logger.warning("topic %s: its configuration cannot be read: %s", topic.name, _text(error))
        return
    for name, value in topic.config.items():
        if config[name].value != value:
            logger.warning("topic %s has %s=%s, not %s: left unchanged", topic.name, name, config[name].value, value)


def topic_id(kafka_client: Mapping[str, str | int], topic: str) -> str:
    """Return the id of the topic, which a topic recreated under the same name does not share.

    Raises KafkaException if the topic does not exist.
    """
    return str(_description(_client(kafka_client), topic).topic_id)


def partitions_of(kafka_client: Mapping[str, str | int], topic: str) -> list[int]:
    """Return the current partitions of the topic; raises KafkaException if it does not exist."""
    return [partition.id for partition in _description(_client(kafka_client), topic).partitions]


def _description(admin: AdminClient, topic: str, timeout: float = 30.0) -> TopicDescription:
    topics = TopicCollection([topic])
    found: TopicDescription = _known(lambda: admin.describe_topics(topics, request_timeout=timeout)[topic].result())
    return found


def max_message_bytes(
    kafka_client: Mapping[str, str | int],
    topic: str,
    timeout: float = 300.0,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Return the topic's current max.message.bytes, within the range of the client's option.

    It is Kafka's default if the user is not allowed to read it. Raises KafkaException if the broker does not answer
    within `timeout` seconds, or the topic does not exist.
    """
    admin = _client(kafka_client)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        config = _known(lambda: admin.describe_configs([resource], request_timeout=timeout)[resource].result(), sleep)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return _DEFAULT_MAX_MESSAGE_BYTES
        raise
    return min(max(int(config["max.message.bytes"].value), _MIN_CLIENT_LIMIT), _MAX_CLIENT_LIMIT)


def _client(kafka_client: Mapping[str, str | int]) -> AdminClient:
    return AdminClient({**kafka_client, **_CONNECTION}, logger=logger)


def _known(request: Callable[[], _T], sleep: Callable[[float], None] = time.sleep) -> _T:
    """Return the answer about a topic, which the broker that is asked may not know yet."""
    return Retrying(
        retry=retry_if_exception(_is_unknown_topic),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(_PROPAGATION),
        sleep=sleep,
        reraise=True,
    )(request)


def _is_unknown_topic(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def wait_for_max_message_bytes(
    kafka_client: Mapping[str, str | int],
    topic: str,
    sleep: Callable[[float], None],
    *,
    request_timeout: float = _REQUEST_TIMEOUT,
) -> int:
    """Return `max_message_bytes`, retrying until the broker is available; raises `TopicError` if a retry cannot help.

    `sleep` waits for seconds between two attempts, and ends the retries by an exception of its own.
    """

    def request() -> int:
        try:
            return max_message_bytes(kafka_client, topic, request_timeout, sleep)
        except KafkaException as error:
            reason = error.args[0]
            if is_transient(reason):
                broker = kafka_client["bootstrap.servers"]
                raise _BrokerUnavailableError(f"no answer from Kafka at {broker}: {_text(error)}") from None
            raise TopicError(f"max.message.bytes of topic {topic} cannot be read: {_text(error)}") from None

    return _retry(sleep, kafka_client, request)
