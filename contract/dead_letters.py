"""The form of a dead letter: the original key and bytes, and headers that say where from and why."""

from dataclasses import dataclass
from typing import Final, Self

TOPIC: Final = "dead_letter.topic"
PARTITION: Final = "dead_letter.partition"
OFFSET: Final = "dead_letter.offset"
REASON: Final = "dead_letter.reason"
SERVICE: Final = "dead_letter.service"

HEADERS: Final = (TOPIC, PARTITION, OFFSET, REASON, SERVICE)
"""The headers that every dead letter has; their values are UTF-8 text."""

CUT: Final = "dead_letter.cut"
"""Header of a dead letter that holds only the start of its original, which was larger than the topic takes: how many
bytes of key and value there were. The original is where the other headers say, for as long as its topic keeps it."""

REPLAY_OF: Final = "dead_letter.replay_of"
"""Header of a record that was sent again: the letter that it was. It is not put aside a second time."""
REPLAYED: Final = "dead_letter.replayed"
"""Header of a record of the dead letter topic that is no letter: it says which letter was sent again."""

MAX_BYTES: Final = 64 << 20
"""Of a dead letter: what its topic takes, and with some room what brokers and clients take by default (100 MB)."""
QUOTED_CHARACTERS: Final = 80
"""The most that a reason repeats of a key or a field."""
MAX_REASON_CHARACTERS: Final = 500
"""Of a reason that somebody else has worded."""

_KEPT_OF_KEY: Final = 1 << 10
_KEPT_OF_VALUE: Final = 64 << 10
_OVERHEAD: Final = 4 << 10
"""More than all headers and Kafka's own fields take."""


@dataclass(frozen=True)
class Capacity:
    """How much of an original a dead letter can hold, in bytes of key and value.

    A client's limits are about the record as it is, a topic's about the batch as it is compressed: what is small
    enough for the topic uncompressed is small enough for both.

    >>> Capacity.of(1_048_588).whole
    1043444
    """

    whole: int
    """An original of so many bytes or fewer is held whole."""
    key: int
    """Of a larger one, the start of the key."""
    value: int
    """And the start of the value."""

    @classmethod
    def of(cls, max_message_bytes: int) -> Self:
        """The capacity where the topic of dead letters has this max.message.bytes."""
        most = min(max_message_bytes, MAX_BYTES)
        # Compressing what cannot be compressed adds a little.
        whole = max(0, most - most // 1000 - _OVERHEAD)
        return cls(whole, min(_KEPT_OF_KEY, whole // 2), min(_KEPT_OF_VALUE, whole // 2))

    def fit(self, key: bytes | None, value: bytes | None) -> tuple[bytes | None, bytes | None, str | None]:
        """Key and value as a dead letter holds them, and what its header `CUT` says where that is not all."""
        key_bytes, value_bytes = len(key or b""), len(value or b"")
        if key_bytes + value_bytes <= self.whole:
            return key, value, None
        return key and key[: self.key], value and value[: self.value], cut_header(key_bytes, value_bytes)


def cut_header(key_bytes: object, value_bytes: object) -> str:
    """What the header `CUT` says.

    >>> cut_header(3, 70000000)
    'the original has a key of 3 bytes and a value of 70000000'
    """
    return f"the original has a key of {key_bytes} bytes and a value of {value_bytes}"


def quoted(text: str, most: int = QUOTED_CHARACTERS) -> str:
    """A key or field as a reason repeats it: where it is long, its start and how long it is.

    >>> quoted("a" * 100)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... (100 characters)'
    """
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
