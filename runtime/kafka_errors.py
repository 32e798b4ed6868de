"""Which errors of Kafka's client pass by themselves."""

from typing import Final

from confluent_kafka import KafkaError

_TRANSIENT: Final = (
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    # The broker's name is not known while its container is away.
    KafkaError._RESOLVE,
    KafkaError._ALL_BROKERS_DOWN,
)
"""What the client itself does not call retriable, because it goes on trying."""


def is_transient(error: KafkaError) -> bool:
    """Whether waiting for the broker is all that can be done, and enough.

    >>> is_transient(KafkaError(KafkaError._RESOLVE)), is_transient(KafkaError(KafkaError.INVALID_CONFIG))
    (True, False)
    """
    return bool(error.retriable()) or error.code() in _TRANSIENT
