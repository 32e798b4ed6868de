"""The interaction: the event that the producer sends and the stream job processes."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

InteractionType = Literal["click", "like", "view", "purchase"]

INTERACTION_TYPES: Final[tuple[InteractionType, ...]] = get_args(InteractionType)

MIN_TIMESTAMP: Final = 0
"""1970-01-01T00:00:00Z in epoch seconds."""
MAX_TIMESTAMP: Final = 253_402_300_799
"""9999-12-31T23:59:59Z in epoch seconds; milliseconds sent by mistake exceed it."""

MAX_BYTES: Final = 4 << 20
"""The largest record value that is parsed; parsing a larger one could exhaust the memory."""
MAX_ID_BYTES: Final = 512
"""The longest user or item id in UTF-8: Elasticsearch's limit of a document id."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """One action of one user on one item."""

    user_id: str
    item_id: str
    interaction_type: InteractionType
    timestamp: int
    """Epoch seconds, UTC."""
