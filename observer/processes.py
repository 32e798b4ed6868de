"""The file in which the local stack lists its processes and their deaths, for the live page."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

MAX_DEATHS: Final = 3
DEATHS_WITHIN: Final = 60.0
"""Seconds: a process that dies so often within them is not started again."""


@dataclass(frozen=True)
class ProcessState:
    """A process that runs."""

    pid: int
    started: float
    """When, in seconds since the epoch: another process may have its id later."""
    is_ready: bool


@dataclass(frozen=True)
class Death:
    """The end of a process that was started again."""

    name: str
    at: float
    """When it was noticed, in seconds since the epoch."""
    reason: str
    seconds: float | None = None
    """How long until it was ready again; None: it is not yet."""


@dataclass(frozen=True)
class ProcessList:
    """The processes of a stack by name, and the latest deaths, the last one last."""

    processes: Mapping[str, ProcessState] = field(default_factory=dict)
    deaths: tuple[Death, ...] = ()

    def seconds_until_kill(self, name: str, now: float) -> float:
        """Return in how many seconds a process can die without ending the stack or being given up; 0: now."""
        recent = sorted(death.at for death in self.deaths if death.name == name)[1 - MAX_DEATHS :]
        return max(0.0, recent[0] + DEATHS_WITHIN - now) if len(recent) == MAX_DEATHS - 1 else 0.0

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        scratch = path.with_name(f"{path.name}.new")
        scratch.write_text(json.dumps(asdict(self)))
        scratch.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file; an empty list if there is none, or another program's file."""
        try:
            read = json.loads(path.read_text())
            processes = {name: ProcessState(**state) for name, state in read["processes"].items()}
            return cls(processes, tuple(Death(**death) for death in read["deaths"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()
