"""The private parts of the Kafka client, and the configuration of the pipeline's producers.

The client keeps its admin classes in private modules, as type checkers see it, and its own error codes under private
names. They are imported here alone, so that an upgrade of the client has one place to check.
"""

import operator
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from confluent_kafka import KafkaError, Message
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from confluent_kafka.admin._topic import TopicDescription
from confluent_kafka.cimpl import NewPartitions, NewTopic

__all__ = [
    "ALL_BROKERS_DOWN",
    "INVALID_ARGUMENT",
    "MESSAGE_TIMED_OUT",
    "PARTITION_EOF",
    "QUEUE_FULL",
    "RESOLVE_FAILED",
    "TIMED_OUT",
    "TRANSPORT_FAILED",
    "AclBinding",
    "AclBindingFilter",
    "AclOperation",
    "AclPermissionType",
    "AlterConfigOpType",
    "ConfigEntry",
    "ConfigResource",
    "NewPartitions",
    "NewTopic",
    "ResourcePatternType",
    "ResourceType",
    "ScramCredentialInfo",
    "ScramMechanism",
    "TopicDescription",
    "UserScramCredentialAlteration",
    "UserScramCredentialUpsertion",
    "headers_of",
    "producer_config",
    "readable_headers_of",
    "time_of",
]

ALL_BROKERS_DOWN: Final[int] = KafkaError._ALL_BROKERS_DOWN
INVALID_ARGUMENT: Final[int] = KafkaError._INVALID_ARG
MESSAGE_TIMED_OUT: Final[int] = KafkaError._MSG_TIMED_OUT
PARTITION_EOF: Final[int] = KafkaError._PARTITION_EOF
QUEUE_FULL: Final[int] = KafkaError._QUEUE_FULL
RESOLVE_FAILED: Final[int] = KafkaError._RESOLVE
TIMED_OUT: Final[int] = KafkaError._TIMED_OUT
TRANSPORT_FAILED: Final[int] = KafkaError._TRANSPORT

_FIRST_TIME: Final = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * 1000
_LAST_TIME: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1000
"""The range of Python's times, in milliseconds."""


def headers_of(message: Message) -> list[tuple[str, str | bytes | None]]:
    """Return the headers of a record; none of them if the client cannot decode a name, which is not UTF-8 then."""
    return readable_headers_of(message) or []


def readable_headers_of(message: Message) -> list[tuple[str, str | bytes | None]] | None:
    """Return the headers of a record; None if the client cannot decode a name, which is not UTF-8 then."""
    try:
        # The client returns a list and leaves its error pending, which a plain call does not always notice.
        headers = operator.call(message.headers)
    except (SystemError, UnicodeDecodeError):
        return None
    return headers if isinstance(headers, list) else []


def as_bytes(data: object) -> bytes | None:
    """Return a key or value as bytes; the client's types allow text as well."""
    return data.encode() if isinstance(data, str) else data if isinstance(data, bytes) else None


def time_of(message: Message) -> datetime:
    """Return the timestamp of a record; a client can set any, and those outside of the years 1 to 9999 become these."""
    milliseconds = message.timestamp()[1]
    return datetime.fromtimestamp(min(max(milliseconds, _FIRST_TIME), _LAST_TIME) / 1000, UTC)


def producer_config(kafka_client: Mapping[str, str | int], max_message_bytes: int) -> dict[str, Any]:
    """Return the configuration of an idempotent producer; `max_message_bytes` is the topic's max.message.bytes.

    >>> producer_config({"bootstrap.servers": "localhost:9092"}, 1_000_000)["message.max.bytes"]
    1000000
    """
    return {
        **kafka_client,
        "acks": "all",
        "enable.idempotence": True,
        # The Java client's partitioner: every client maps a key to the same partition.
        "partitioner": "murmur2_random",
        # Limits a batch as well; the topic would refuse a larger one as a whole.
        "message.max.bytes": max_message_bytes,
    }
