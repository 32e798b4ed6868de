"""Faults of connections between services and servers."""

import random
from typing import ClassVar, Literal, Self

from chaos.faults.fault import Fault, draw_seconds
from chaos.links import Direction
from chaos.stack import (
    LINKS,
    LOAD_TO_KAFKA,
    PRODUCER,
    PRODUCER_TO_KAFKA,
    SINK,
    SINK_TO_ELASTICSEARCH,
    SINK_TO_KAFKA,
    STREAM_JOB,
    STREAM_TO_KAFKA,
    LinkName,
    Stack,
)

LOAD = "load"
_PROCESS = {
    STREAM_TO_KAFKA: STREAM_JOB,
    SINK_TO_KAFKA: SINK,
    SINK_TO_ELASTICSEARCH: SINK,
    PRODUCER_TO_KAFKA: PRODUCER,
    LOAD_TO_KAFKA: LOAD,
}
_MOST_SECONDS = 45.0
_MOST_DELAY = 2.0


class _LinkFault(Fault):
    """A fault of all connections of one service to one server, for `seconds`."""

    shortest: ClassVar = 1.0
    link: LinkName
    seconds: float

    @property
    def process(self) -> str:
        """The service."""
        return _PROCESS[self.link]

    @property
    def targets(self) -> frozenset[str]:
        """The connections: the service itself may be killed meanwhile."""
        return frozenset({self.link})

    @property
    def lasts(self) -> float:
        """Seconds until connections work again."""
        return self.seconds

    def undo(self, stack: Stack) -> None:
        """Let connections work again."""
        stack.links[self.link].restore()


class Cut(_LinkFault):
    """All connections are reset, and each new one."""

    kind: ClassVar = "cut"
    weight: ClassVar = 3

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one."""
        return cls(link=rng.choice(LINKS), seconds=_seconds(rng, longest))

    def apply(self, stack: Stack) -> None:
        """Reset all connections."""
        stack.links[self.link].cut()


class Delay(_LinkFault):
    """What is sent arrives `delay` seconds later, in each direction."""

    kind: ClassVar = "delay"
    weight: ClassVar = 2
    delay: float

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one."""
        delay = round(rng.uniform(0.02, _MOST_DELAY), 2)
        return cls(link=rng.choice(LINKS), seconds=_seconds(rng, longest), delay=delay)

    def apply(self, stack: Stack) -> None:
        """Delay what is sent from now on."""
        stack.links[self.link].delay(self.delay)


class HalfOpen(_LinkFault):
    """Connections stay open, and nothing arrives: no requests, no responses, or neither.

    At the end of a `silent` one new connections work, and the old ones stay as they are.
    """

    kind: ClassVar = "half-open"
    weight: ClassVar = 3
    lost: Literal["requests", "responses", "both"]
    silent: bool

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one."""
        return cls(
            link=rng.choice(LINKS),
            seconds=_seconds(rng, longest),
            lost=rng.choice(("requests", "responses", "both")),
            silent=rng.random() < 0.5,
        )

    def apply(self, stack: Stack) -> None:
        """Lose what is sent."""
        lost: frozenset[Direction] = frozenset({"requests", "responses"} if self.lost == "both" else {self.lost})
        stack.links[self.link].half_open(lost)

    def undo(self, stack: Stack) -> None:
        """Let new connections work, and old ones too unless it is a silent end."""
        stack.links[self.link].restore(silent=self.silent)


def _seconds(rng: random.Random, longest: float) -> float:
    return draw_seconds(rng, 1, min(longest, _MOST_SECONDS))
