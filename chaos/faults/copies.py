"""Faults of operation: a second copy of a service is started beside the first one."""

import random
import re
from typing import ClassVar, Literal, Self

from chaos.faults.fault import Fault, draw_seconds
from chaos.stack import SINK, STREAM_JOB, STREAM_TO_KAFKA, Stack

_MOST_SECONDS = 60.0
_HELD = "another stream job holds"
"""How the refusal of a second stream job begins."""
_POLL = 0.2
_READY = re.compile(r" stream_processing[.\w]*: ready$", re.M)
"""How the log of a stream job that runs says so."""


class SecondSink(Fault):
    """A second sink shares the partitions for `seconds`; then it ends in order, or is killed."""

    kind: ClassVar = "second sink"
    shortest: ClassVar = 5.0
    seconds: float
    ends: Literal["stop", "kill"]

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one."""
        return cls(seconds=draw_seconds(rng, 5, min(longest, _MOST_SECONDS)), ends=rng.choice(("stop", "kill")))

    @property
    def process(self) -> str:
        """The sink."""
        return SINK

    @property
    def lasts(self) -> float:
        """Seconds until it ends."""
        return self.seconds

    def apply(self, stack: Stack) -> None:
        """Start the second sink."""
        stack.second(SINK).start()

    def undo(self, stack: Stack) -> None:
        """End the second sink."""
        second = stack.seconds.pop(SINK)
        if self.ends == "stop":
            second.hold()
            second.stop()
        second.close()
        if second.deaths:
            stack.violations.append(f"a second sink does not run beside the first one: {second.deaths[0].reason}")


class SecondStreamJob(Fault):
    """A second stream job on the same folders, which has to be refused while the first one runs."""

    kind: ClassVar = "second stream job"
    shortest: ClassVar = 75.0

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:  # noqa: ARG003
        """Return one."""
        return cls()

    @property
    def process(self) -> str:
        """The stream job."""
        return STREAM_JOB

    @property
    def targets(self) -> frozenset[str]:
        """The first one has to run all the time."""
        return frozenset({STREAM_JOB, STREAM_TO_KAFKA, "Kafka"})

    @property
    def planned(self) -> float:
        """Seconds until it is refused: it waits for a minute."""
        return self.shortest

    def apply(self, stack: Stack) -> None:
        """Start the second one once the first one is ready."""
        first = stack.processes[STREAM_JOB]
        while not (first.is_ready or stack.stopped.wait(_POLL)):
            pass
        second = stack.second(STREAM_JOB)
        second.hold()
        second.start()

    def undo(self, stack: Stack) -> None:
        """Wait until the second one is refused."""
        first, second = stack.processes[STREAM_JOB], stack.seconds.pop(STREAM_JOB)
        starts = first.starts
        while not (second.deaths or _READY.search(second.output()) or stack.stopped.wait(_POLL)):
            pass
        second.close()
        if _HELD in second.output():
            stack.say(self.kind, "was refused")
        elif stack.stopped.is_set() or first.starts != starts:
            stack.say(self.kind, "was not refused, because the first one had ended, or the run has")
        else:
            stack.violations.append(f"a second stream job was not refused: {second.output()[-300:]!r}")
