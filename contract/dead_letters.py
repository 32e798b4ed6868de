"""The format of a dead letter: the original key and value, and headers with its origin and the reason."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

TOPIC: Final = "dead_letter.topic"
PARTITION: Final = "dead_letter.partition"
OFFSET: Final = "dead_letter.offset"
REASON: Final = "dead_letter.reason"
SERVICE: Final = "dead_letter.service"

STREAM_PROCESSING: Final = "stream-processing"
ELASTICSEARCH_SINK: Final = "elasticsearch-sink-alert"
"""The values of `SERVICE`: who could not process the original."""

HEADERS: Final = (TOPIC, PARTITION, OFFSET, REASON, SERVICE)
"""The headers of every dead letter; their values are UTF-8 text."""

CUT: Final = "dead_letter.cut"
"""Header of a dead letter that is truncated because the original exceeds the topic's limit: the original's size in
bytes of key and value. The other headers locate the original, which exists for as long as its topic retains it."""

REPLAY_OF: Final = "dead_letter.replay_of"
"""Header of a replayed record: the id of its dead letter. A replayed record is never dead-lettered a second time."""
REPLAYED: Final = "dead_letter.replayed"
"""Header of a marker in the dead letter topic, which is no dead letter itself: the id of the one that was replayed."""

MAX_BYTES: Final = 64 << 20
"""The largest dead letter that its topic accepts; below the default limits of brokers and clients (100 MB)."""
QUOTED_CHARACTERS: Final = 80
"""The longest quotation of a key or a field in a reason."""
MAX_REASON_CHARACTERS: Final = 500
"""The longest reason whose text comes from outside, such as an error message of Elasticsearch."""

REFUSED: Final = "Elasticsearch refuses it"
"""How the reason of a document that Elasticsearch refuses starts."""
OTHER: Final = "other"
_KINDS: Final[Mapping[str, str]] = {
    "refused": rf"^{REFUSED}: ",
    "empty": r"^the value is empty$",
    "too_large": r"^(the value|\S+) has [0-9]+ bytes|^\S+( and \S+)* have [0-9]+ bytes|^the id is longer than ",
    "encoding": r"^not UTF-8$|^not text: |^the key is not UTF-8$",
    "not_json": r"^not one JSON object$|^the value is not (JSON: |a JSON object$)|^a decimal has an exponent ",
    "key": r"^the record has no key$|^key .* names no row: |, but the key says ",
    "duplicate_field": r"^\S+ occurs more than once$",
    "missing_field": r"^\S+ is missing or null(:|$)",
    "invalid_field": r"^.+ is ",
}
"""The pattern of the reasons of each kind; the first one that is found counts. For Python and for Java."""
REASON_KINDS: Final = (*_KINDS, OTHER)
"""The kinds of reasons, which metrics count: a bounded set, as reasons are not."""

_MAX_KEY_PREFIX: Final = 1 << 10
_MAX_VALUE_PREFIX: Final = 64 << 10
_OVERHEAD: Final = 4 << 10
"""An upper bound for the size of all headers and Kafka's own fields."""


@dataclass(frozen=True)
class Capacity:
    """How much of an original a dead letter can hold, in bytes of key and value.

    A client limits the uncompressed record, a topic the compressed batch: a record whose uncompressed size is within
    the topic's limit passes both.

    >>> Capacity.of(1_048_588).max_bytes
    1043444
    """

    max_bytes: int
    """An original of up to this size is kept whole."""
    key_prefix: int
    """How much of the key of a larger original is kept."""
    value_prefix: int
    """How much of its value."""

    @classmethod
    def of(cls, max_message_bytes: int) -> Self:
        """Return the capacity for this max.message.bytes of the dead letter topic."""
        limit = min(max_message_bytes, MAX_BYTES)
        # Incompressible data grows a little by compression.
        max_bytes = max(0, limit - limit // 1000 - _OVERHEAD)
        return cls(max_bytes, min(_MAX_KEY_PREFIX, max_bytes // 2), min(_MAX_VALUE_PREFIX, max_bytes // 2))

    def fit(self, key: bytes | None, value: bytes | None) -> tuple[bytes | None, bytes | None, str | None]:
        """Return key and value as a dead letter holds them, and the header `CUT` if they are truncated."""
        key_bytes, value_bytes = len(key or b""), len(value or b"")
        if key_bytes + value_bytes <= self.max_bytes:
            return key, value, None
        return (
            key and key[: self.key_prefix],
            value and value[: self.value_prefix],
            cut_header(key_bytes, value_bytes),
        )


def cut_header(key_bytes: object, value_bytes: object) -> str:
    """Return the value of the header `CUT`.

    >>> cut_header(3, 70000000)
    'the original has a key of 3 bytes and a value of 70000000'
    """
    return f"the original has a key of {key_bytes} bytes and a value of {value_bytes}"


def truncated(text: str, max_characters: int = QUOTED_CHARACTERS) -> str:
    """Return a key or field as a reason quotes it: the start of a long one, with its length.

    >>> truncated("a" * 100)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... (100 characters)'
    """
    return text if len(text) <= max_characters else f"{text[:max_characters]}... ({len(text)} characters)"


def kind_of(reason: str) -> str:
    """Return the kind of a reason, one of `REASON_KINDS`.

    >>> kind_of("user_id is missing or null"), kind_of("Elasticsearch refuses it: status 400"), kind_of("?")
    ('missing_field', 'refused', 'other')
    """
    return next((kind for kind, pattern in _KINDS.items() if re.search(pattern, reason, re.DOTALL)), OTHER)


def kind_patterns() -> Mapping[str, str]:
    """Return the pattern of each kind but `OTHER`, in the order in which they are tried, with `.` for any character."""
    return {kind: f"(?s){pattern}" for kind, pattern in _KINDS.items()}
