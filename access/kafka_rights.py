"""Users of Kafka, and the least rights with which each service does its work."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from contract.topics import aggregated_topic_name, dead_letter_topic_name
from runtime.kafka_client import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

logger = logging.getLogger(__name__)

_TIMEOUT: Final = 30.0
_ITERATIONS: Final = 4096
"""Kafka's least; more would slow a guess of a chosen password down, and these are random."""
_ANY: Final = "*"
_NONE: Final[Any] = None
"""In a filter: every name. The client's types do not know it."""
_CLUSTER: Final = "kafka-cluster"
_TOPIC, _GROUP = ResourceType.TOPIC, ResourceType.GROUP
_EXACT, _PREFIX = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
# Read and write include the right to describe.
_KNOW: Final = (AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
_CREATE: Final = (AclOperation.CREATE, *_KNOW)
_READ, _WRITE = (AclOperation.READ,), (AclOperation.WRITE,)


class RightsError(Exception):
    """Kafka refuses users or rights; the message has its reason."""


def _right(
    user: str,
    kind: ResourceType,
    name: str,
    operation: AclOperation,
    pattern: ResourcePatternType = _EXACT,
) -> AclBinding:
    return AclBinding(kind, name, pattern, f"User:{user}", _ANY, operation, AclPermissionType.ALLOW)


def rights(topic: str, group: str) -> set[AclBinding]:
    """Return all rights, for the topic of interactions and the sink's consumer group."""
    aggregated, dead_letter = aggregated_topic_name(topic), dead_letter_topic_name(topic)
    on_topics: Mapping[str, Mapping[str, tuple[AclOperation, ...]]] = {
        # A replay reads the end of the topic to continue after the rows that it has sent.
        "producer": {topic: (*_CREATE, *_WRITE, *_READ)},
        "stream": {
            topic: (*_CREATE, *_READ),
            aggregated: (*_CREATE, *_WRITE, *_READ),
            dead_letter: (*_CREATE, *_WRITE, *_READ),
        },
        # Its command `dead-letters replay` writes to all three.
        "sink": {
            topic: (*_KNOW, *_WRITE),
            aggregated: (*_CREATE, *_WRITE, *_READ),
            dead_letter: (*_CREATE, *_WRITE, *_READ),
        },
        "page": dict.fromkeys((topic, aggregated, dead_letter), (*_KNOW, *_READ)),
        "kafka-ui": {_ANY: (*_KNOW, *_READ)},
    }
    found = {
        _right(user, _TOPIC, name, operation)
        for user, topics in on_topics.items()
        for name, operations in topics.items()
        for operation in operations
    }
    return found | {
        _right("producer", _GROUP, "data-producer-replay", AclOperation.READ),
        # Spark's names of groups begin like this, and end with random characters.
        _right("stream", _GROUP, "spark-kafka-", AclOperation.READ, _PREFIX),
        _right("stream", _GROUP, "stream-processing", AclOperation.READ, _PREFIX),
        _right("sink", _GROUP, group, AclOperation.READ),
        _right("sink", _GROUP, "dead-letters", AclOperation.READ),
        *(_right("page", _GROUP, name, AclOperation.READ) for name in ("live-page", "observer", "verify")),
        _right("page", _GROUP, group, AclOperation.DESCRIBE),
        _right("kafka-ui", _GROUP, _ANY, AclOperation.READ),
        _right("kafka-ui", ResourceType.BROKER, _CLUSTER, AclOperation.DESCRIBE),
        _right("kafka-ui", ResourceType.BROKER, _CLUSTER, AclOperation.DESCRIBE_CONFIGS),
    }


def apply(broker: str, folder: Path, users: tuple[str, ...], wanted: set[AclBinding]) -> None:
    """Set the passwords of the users, and exactly these rights; `folder` has passwords and the administrator's files.

    Raises `RightsError` if Kafka refuses one or does not answer.
    """
    admin = AdminClient(
        {
            "bootstrap.servers": broker,
            "security.protocol": "SSL",
            "ssl.ca.location": str(folder / "ca.pem"),
            "ssl.certificate.location": str(folder / "admin.crt"),
            "ssl.key.location": str(folder / "admin.key"),
        },
        logger=logger,
    )
    credentials: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(
            user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS), (folder / user).read_bytes()
        )
        for user in users
    ]
    every = AclBindingFilter(
        ResourceType.ANY, _NONE, ResourcePatternType.ANY, _NONE, _NONE, AclOperation.ANY, AclPermissionType.ANY
    )
    try:
        for set_password in admin.alter_user_scram_credentials(credentials, request_timeout=_TIMEOUT).values():
            set_password.result()
        found = set(admin.describe_acls(every, request_timeout=_TIMEOUT).result())
        if missing := wanted - found:
            for created in admin.create_acls(list(missing), request_timeout=_TIMEOUT).values():
                created.result()
        if others := found - wanted:
            for deleted in admin.delete_acls([_filter(each) for each in others], request_timeout=_TIMEOUT).values():
                deleted.result()
    except KafkaException as error:
        admin.poll(0)
        raise RightsError(f"Kafka at {broker} does not set users and rights: {error.args[0].str()}") from None
    logger.info("%d users, %d rights: %d new, %d removed", len(users), len(wanted), len(missing), len(others))


def _filter(right: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        right.restype,
        right.name,
        right.resource_pattern_type,
        right.principal,
        right.host,
        right.operation,
        right.permission_type,
    )
