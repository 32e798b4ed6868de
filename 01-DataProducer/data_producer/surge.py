"""A surge: interactions about one item, in addition to the regular ones."""

from typing import Final

from contract.declared import EVENT
from data_producer.events import Event
from data_producer.generator import EventGenerator
from data_producer.pacing import Pacer

_SECONDS: Final = 10.0
"""Over which they are spread, so that the item's rows are seen to rise."""


class Surge:
    """Random interactions about one value of the first text besides the key, such as one item, spread over ten seconds.

    >>> surge = Surge(EventGenerator(keys=5, others=5, seed=7), size=1_000, start=50.0)
    >>> events = surge.take(500, now=51.0, timestamp=1736404972)
    >>> len(events), len({event["item_id"] for event in events}), surge.left
    (101, 1, 899)
    """

    def __init__(self, generator: EventGenerator, size: int, start: float) -> None:
        """Start a surge of `size` interactions, whose other fields are those of the generator."""
        self.left = size
        """The number of interactions that are not taken yet."""
        self._generator = generator
        self._field = EVENT.other_texts[0]
        self._value = generator.batch(1, start)[0][self._field]
        self._pacer = Pacer(_SECONDS / size, start)

    def take(self, most: int, now: float, timestamp: float) -> list[Event]:
        """Return the next interactions that are due, `most` at most, all at `timestamp` (epoch seconds)."""
        size = min(self._pacer.due(now), self.left, most)
        self._pacer.record_sent(size)
        self.left -= size
        return [event | {self._field: self._value} for event in self._generator.batch(size, timestamp)]

    def pause(self, now: float) -> float:
        """Return the seconds until the next interaction is due."""
        return self._pacer.pause(now)
