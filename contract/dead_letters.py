"""The form of a dead letter: the original key and bytes, and headers that say where from and why."""

from typing import Final

TOPIC: Final = "dead_letter.topic"
PARTITION: Final = "dead_letter.partition"
OFFSET: Final = "dead_letter.offset"
REASON: Final = "dead_letter.reason"
SERVICE: Final = "dead_letter.service"

HEADERS: Final = (TOPIC, PARTITION, OFFSET, REASON, SERVICE)
"""All headers of a dead letter; their values are UTF-8 text."""

REPLAY_OF: Final = "dead_letter.replay_of"
"""Header of a record that was sent again: the letter that it was. It is not put aside a second time."""
REPLAYED: Final = "dead_letter.replayed"
"""Header of a record of the dead letter topic that is no letter: it says which letter was sent again."""
