"""Generates random interactions. Pure code, without Kafka."""

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import asdict

from contract.interaction import INTERACTION_TYPES, Interaction


class InteractionGenerator:
    """Draws users, items and types independently, users and items by a power law.

    The n-th user or item is drawn with a probability proportional to n ** -skew (Zipf's law at a skew
    of 1, a uniform distribution at 0).

    >>> InteractionGenerator(users=5, items=5, seed=7).batch(1, timestamp=1736404972)
    [Interaction(user_id='user_1', item_id='item_0', interaction_type='view', timestamp=1736404972)]
    """

    def __init__(self, users: int, items: int, *, skew: float = 0.0, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self._users = [f"user_{n}" for n in range(users)]
        self._items = [f"item_{n}" for n in range(items)]
        self._user_weights = _cumulative_weights(users, skew)
        self._item_weights = _cumulative_weights(items, skew)

    def batch(self, size: int, timestamp: int) -> list[Interaction]:
        """Return the next `size` interactions, all at `timestamp` (epoch seconds)."""
        draw = self._random.choices
        users = draw(self._users, cum_weights=self._user_weights, k=size)
        items = draw(self._items, cum_weights=self._item_weights, k=size)
        types = draw(INTERACTION_TYPES, k=size)
        return [Interaction(*drawn, timestamp) for drawn in zip(users, items, types, strict=True)]

    def malformed(self, size: int, timestamp: int) -> list[bytes]:
        """Return record values that are not valid interactions, for different reasons in turn."""
        return [_malformed(interaction, number) for number, interaction in enumerate(self.batch(size, timestamp))]


def _malformed(interaction: Interaction, number: int) -> bytes:
    fields = asdict(interaction)
    return [
        b"this is not JSON",
        json.dumps(fields | {"interaction_type": "stare"}).encode(),
        json.dumps(fields | {"timestamp": "yesterday"}).encode(),
        json.dumps({name: value for name, value in fields.items() if name != "item_id"}).encode(),
        b"",
    ][number % 5]


def _cumulative_weights(count: int, skew: float) -> Sequence[float] | None:
    if skew == 0:
        return None
    return list(itertools.accumulate(n**-skew for n in range(1, count + 1)))
