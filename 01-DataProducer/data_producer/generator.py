"""Generates random events. Pure code, without Kafka."""

import itertools
import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from contract.declared import EVENT
from contract.fields import Field, FieldType
from data_producer.events import Event

_SPREAD: Final = 100
"""The range of a number that is declared without bounds."""
_WIDEST: Final = 100_000
"""The widest range that is used whole."""


class EventGenerator:
    """Draws the fields of events independently: texts by a power law, choices by their weights, all others uniformly.

    A text is the name of its field and a number; the n-th is drawn with a probability proportional to n ** -skew
    (Zipf's law at a skew of 1, a uniform distribution at 0).

    >>> EventGenerator(keys=5, others=5, seed=7).batch(1, timestamp=1736404972)
    [{'user_id': 'user_1', 'item_id': 'item_0', 'interaction_type': 'view', 'timestamp': 1736404972}]
    """

    def __init__(self, keys: int, others: int, *, skew: float = 0.0, seed: int | None = None) -> None:
        """Create a generator with this many values of the field that is the records' key, and of each other text."""
        self._random = random.Random(seed)
        counts = {True: keys, False: others}
        self._drawers = [self._drawer(field, counts[field.name == EVENT.partition_by], skew) for field in EVENT.fields]

    def batch(self, size: int, timestamp: float) -> list[Event]:
        """Return the next `size` events, all at `timestamp` (epoch seconds)."""
        columns = [draw(size, timestamp) for draw in self._drawers]
        return [dict(zip(EVENT.names, values, strict=True)) for values in zip(*columns, strict=True)]

    def malformed(self, size: int, timestamp: float) -> list[bytes]:
        """Return record values that are not valid events, for different reasons in turn."""
        return [_malformed(event, number) for number, event in enumerate(self.batch(size, timestamp))]

    def _drawer(self, field: Field, count: int, skew: float) -> Callable[[int, float], Sequence[Any]]:
        """Return the function that draws values of a field, given their number and the time."""
        rng = self._random
        match field.type:
            case FieldType.TEXT:
                stem = field.name.removesuffix("_id")
                names, weights = [f"{stem}_{n}" for n in range(count)], _cumulative_weights(count, skew)
                return lambda size, _: rng.choices(names, cum_weights=weights, k=size)
            case FieldType.CHOICE:
                cumulative = list(itertools.accumulate(field.weights)) or None
                return lambda size, _: rng.choices(field.choices, cum_weights=cumulative, k=size)
            case FieldType.FLAG:
                return lambda size, _: rng.choices((True, False), k=size)
            case FieldType.EPOCH_SECONDS:
                return lambda size, now: [int(now)] * size
            case FieldType.EPOCH_MILLISECONDS:
                return lambda size, now: [int(now * 1000)] * size
            case FieldType.ISO_DATETIME:
                return lambda size, now: [datetime.fromtimestamp(now, UTC).isoformat()] * size
            case FieldType.WHOLE:
                least, most = map(int, _range(field))
                return lambda size, _: [rng.randint(least, most) for _ in range(size)]
            case FieldType.DECIMAL:
                least, most = (int(Decimal(bound).scaleb(field.places)) for bound in _range(field))
                scale = 10**field.places
                return lambda size, _: [rng.randint(least, most) / scale for _ in range(size)]
            case FieldType.NUMBER:
                lower, upper = map(float, _range(field))
                return lambda size, _: [round(rng.uniform(lower, upper), 3) for _ in range(size)]


def _range(field: Field) -> tuple[Decimal, Decimal]:
    """Return the range of random values: the declared one, or a hundred wide if that is huge."""
    least = None if field.at_least is None else Decimal(str(field.at_least))
    most = None if field.at_most is None else Decimal(str(field.at_most))
    if least is not None and most is not None and most - least <= _WIDEST:
        return least, most
    if least is None or least < -(10**9):
        least = Decimal(0) if most is None or most >= 0 else most - _SPREAD
    return least, min(least + _SPREAD, most) if most is not None else least + _SPREAD


def _malformed(event: Event, number: int) -> bytes:
    return [
        b"this is not JSON",
        json.dumps(event | {_STRICT.name: "stare"}).encode(),
        json.dumps(event | {EVENT.time: "yesterday"}).encode(),
        json.dumps({name: value for name, value in event.items() if name != EVENT.partition_by}).encode(),
        b"",
    ][number % 5]


_STRICT: Final = next((field for field in EVENT.fields if field.type is not FieldType.TEXT), EVENT.time_field)
"""A field that has no arbitrary text."""


def _cumulative_weights(count: int, skew: float) -> Sequence[float] | None:
    if skew == 0:
        return None
    return list(itertools.accumulate(n**-skew for n in range(1, count + 1)))
