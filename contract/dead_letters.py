"""The form of a dead letter: the original key and bytes, and headers that say where from and why."""

from typing import Final

TOPIC: Final = "dead_letter.topic"
PARTITION: Final = "dead_letter.partition"
OFFSET: Final = "dead_letter.offset"
REASON: Final = "dead_letter.reason"
SERVICE: Final = "dead_letter.service"

HEADERS: Final = (TOPIC, PARTITION, OFFSET, REASON, SERVICE)
"""All headers of a dead letter; their values are UTF-8 text."""
