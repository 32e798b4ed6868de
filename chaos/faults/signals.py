"""Faults of processes: they are killed, or stopped for a while."""

import os
import random
import signal
from contextlib import suppress
from typing import ClassVar, Literal, Self

from chaos.faults.fault import Fault, draw_seconds
from chaos.stack import PROCESSES, STREAM_JOB, ProcessName, Stack

Part = Literal["", "Python", "Java"]
_MOST_DOWN = 10.0
_MOST_PAUSED = 60.0


class Kill(Fault):
    """SIGKILL of a process and its children; it is started again `down` seconds later."""

    kind: ClassVar = "kill"
    weight: ClassVar = 6
    name: ProcessName
    down: float

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one."""
        return cls(name=rng.choice(PROCESSES), down=draw_seconds(rng, 0, min(longest, _MOST_DOWN)))

    @property
    def process(self) -> str:
        """The one that is killed."""
        return self.name

    @property
    def lasts(self) -> float:
        """Seconds until it is started again."""
        return self.down

    def apply(self, stack: Stack) -> None:
        """Kill it."""
        stack.processes[self.name].hold()
        stack.processes[self.name].kill()

    def undo(self, stack: Stack) -> None:
        """Let it be started again."""
        stack.processes[self.name].release()


class KillPart(Fault):
    """SIGKILL of the stream job's Python alone, whose Java is left for a moment; or of its Java alone."""

    kind: ClassVar = "kill part"
    weight: ClassVar = 2
    part: Literal["Python", "Java"]

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:  # noqa: ARG003
        """Return one."""
        return cls(part=rng.choice(("Python", "Java")))

    @property
    def process(self) -> str:
        """The stream job."""
        return STREAM_JOB

    def apply(self, stack: Stack) -> None:
        """Kill it; it is started again at once."""
        process = stack.processes[STREAM_JOB]
        if self.part == "Python":
            process.kill_python()
        else:
            process.kill_java()


class Pause(Fault):
    """SIGSTOP of a process, or of a part of the stream job; SIGCONT `seconds` later."""

    kind: ClassVar = "pause"
    weight: ClassVar = 5
    shortest: ClassVar = 1.0
    name: ProcessName
    part: Part = ""
    seconds: float

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one."""
        name = rng.choice(PROCESSES)
        part: Part = rng.choice(("", "Python", "Java")) if name == STREAM_JOB else ""
        return cls(name=name, part=part, seconds=draw_seconds(rng, 1, min(longest, _MOST_PAUSED)))

    @property
    def process(self) -> str:
        """The one that is stopped."""
        return self.name

    @property
    def lasts(self) -> float:
        """Seconds until it continues."""
        return self.seconds

    def apply(self, stack: Stack) -> None:
        """Stop it."""
        self._signal(stack, signal.SIGSTOP)

    def undo(self, stack: Stack) -> None:
        """Let it continue."""
        # All of it: parts that were started meanwhile run anyway.
        self._signal(stack, signal.SIGCONT, part="")

    def _signal(self, stack: Stack, number: int, part: Part | None = None) -> None:
        for pid in stack.processes[self.name].pids(self.part if part is None else part):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
