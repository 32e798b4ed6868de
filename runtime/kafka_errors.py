"""Classifies the errors of the Kafka client."""

from typing import Final

from confluent_kafka import KafkaError

from runtime.kafka_client import ALL_BROKERS_DOWN, RESOLVE_FAILED, TIMED_OUT, TRANSPORT_FAILED

# A broker's name does not resolve while its container is down.
_RETRIED_BY_THE_CLIENT: Final = (TIMED_OUT, TRANSPORT_FAILED, RESOLVE_FAILED, ALL_BROKERS_DOWN)
"""Errors that the client does not mark as retriable, because it retries them itself."""

_WITHOUT_A_LEADER: Final = (KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION)
"""Errors of a partition whose leader is being elected, as in a topic that was just created."""


def is_transient(error: KafkaError) -> bool:
    """Return whether the error passes by itself once the broker is available.

    >>> is_transient(KafkaError(RESOLVE_FAILED)), is_transient(KafkaError(KafkaError.INVALID_CONFIG))
    (True, False)
    """
    return bool(error.retriable()) or error.code() in (*_RETRIED_BY_THE_CLIENT, *_WITHOUT_A_LEADER)
