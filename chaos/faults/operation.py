"""Faults of operation: commands and maintenance in the middle of everything."""

import random
from typing import ClassVar, Literal, Self

from chaos.faults.fault import Fault, draw_seconds
from chaos.stack import KAFKA, STREAM_JOB, STREAM_TO_KAFKA, Stack

_MAINTENANCE = {"UPKEEP_INTERVAL": "1", "LAKE_HISTORY": "0.05"}
"""A round each second, which keeps three seconds of history."""
_MOST_SECONDS = 40.0
_MOST_OUTPUT = 500


class Command(Fault):
    """A command of the stream job is run while that is killed: `rebuild`, or `accept-gap` without a gap."""

    kind: ClassVar = "command"
    weight: ClassVar = 2
    command: Literal["rebuild", "accept-gap"]

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:  # noqa: ARG003
        """Return one."""
        return cls(command=rng.choice(("rebuild", "accept-gap")))

    @property
    def process(self) -> str:
        """The stream job."""
        return STREAM_JOB

    @property
    def targets(self) -> frozenset[str]:
        """`accept-gap` needs Kafka."""
        return frozenset({STREAM_JOB, STREAM_TO_KAFKA, KAFKA})

    def apply(self, stack: Stack) -> None:
        """Kill the job and run the command."""
        while not (stack.processes[KAFKA].is_ready or stack.stopped.wait(0.2)):
            pass
        stack.processes[STREAM_JOB].hold()
        stack.processes[STREAM_JOB].kill()
        completed = stack.command(STREAM_JOB, self.command)
        if completed.returncode and not stack.stopped.is_set():
            stack.violations.append(
                f"`{self.command}` ended with status {completed.returncode}: {completed.stderr[-_MOST_OUTPUT:]}"
            )

    def undo(self, stack: Stack) -> None:
        """Let the job start."""
        stack.processes[STREAM_JOB].release()


class Maintenance(Fault):
    """The job is killed and started with a round of maintenance each second; `seconds` later it is killed again."""

    kind: ClassVar = "maintenance"
    weight: ClassVar = 2
    shortest: ClassVar = 15.0
    seconds: float

    @classmethod
    def draw(cls, rng: random.Random, longest: float) -> Self:
        """Return one."""
        return cls(seconds=draw_seconds(rng, 15, min(longest, _MOST_SECONDS)))

    @property
    def process(self) -> str:
        """The stream job."""
        return STREAM_JOB

    @property
    def lasts(self) -> float:
        """Seconds until it is killed again."""
        return self.seconds

    def apply(self, stack: Stack) -> None:
        """Start the job with other settings."""
        stack.processes[STREAM_JOB].settings = dict(_MAINTENANCE)
        stack.processes[STREAM_JOB].kill()

    def undo(self, stack: Stack) -> None:
        """Start the job with its usual settings."""
        stack.processes[STREAM_JOB].settings = {}
        stack.processes[STREAM_JOB].kill()
