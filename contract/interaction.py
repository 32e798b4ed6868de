"""The interaction: what the producer sends and the stream job accepts."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

InteractionType = Literal["click", "like", "view", "purchase"]

INTERACTION_TYPES: Final[tuple[InteractionType, ...]] = get_args(InteractionType)

MIN_TIMESTAMP: Final = 0
"""1970-01-01T00:00:00Z in epoch seconds."""
MAX_TIMESTAMP: Final = 253_402_300_799
"""9999-12-31T23:59:59Z in epoch seconds; milliseconds sent by mistake lie beyond it."""

MAX_BYTES: Final = 4 << 20
"""Of an interaction as it is in the topic: a larger one might take more memory to parse than there is."""
MAX_ID_BYTES: Final = 512
"""Of a user's or item's id in UTF-8: Elasticsearch takes no longer id of a document."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """One user doing one thing to one item."""

    user_id: str
    item_id: str
    interaction_type: InteractionType
    timestamp: int
    """Epoch seconds, UTC."""
