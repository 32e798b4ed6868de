"""What every fault has."""

import random
from abc import abstractmethod
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from chaos.stack import Stack


class Fault(BaseModel):
    """Something that happens to the pipeline; the fields of a subclass are its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    """Its name in schedules."""
    weight: ClassVar[int] = 1
    """How often it is drawn, compared with others."""
    shortest: ClassVar[float] = 0.0
    """The least number of seconds that it lasts."""
    needs_mount: ClassVar[bool] = False
    """Whether it needs a disk of its own."""

    @classmethod
    @abstractmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one with random parameters; `longest` is the most that it may last, and not less than `shortest`."""

    @property
    @abstractmethod
    def process(self) -> str:
        """The process that it is about; its recoveries are counted there."""

    @property
    def targets(self) -> frozenset[str]:
        """The processes and connections that no other fault may touch meanwhile."""
        return frozenset({self.process})

    @property
    def lasts(self) -> float:
        """Seconds between `apply` and `undo`."""
        return 0.0

    @property
    def planned(self) -> float:
        """Seconds that a schedule leaves for all of it."""
        return self.lasts

    @abstractmethod
    def apply(self, stack: Stack) -> None:
        """Begin it."""

    def undo(self, stack: Stack) -> None:
        """End it: nothing of it is left, but that the pipeline has to recover."""

    def run(self, stack: Stack) -> None:
        """Let it happen from its beginning to its end."""
        self.apply(stack)
        try:
            stack.stopped.wait(self.lasts)
        finally:
            self.undo(stack)

    def __str__(self) -> str:
        """Return it in one line."""
        parameters = {name: value for name, value in self.model_dump().items() if value != ""}
        return ", ".join([self.kind, *(f"{name}={value}" for name, value in parameters.items())])


def draw_seconds(rng: random.Random, least: float, most: float) -> float:
    """Return a duration that is readable in a schedule."""
    return round(rng.uniform(least, max(least, most)), 1)
