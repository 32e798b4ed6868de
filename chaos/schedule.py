"""Schedules: which fault happens at which second. Pure functions of a seed, and files."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from chaos.faults import FAULTS, Fault

_FIRST: Final = 3.0
"""Seconds before the first fault."""
_MEAN_GAP: Final = 10.0
"""Seconds between the beginnings of two faults, on average, if both are possible."""
_MOST_AT_ONCE: Final = 2
"""Faults at one time: under more the pipeline does not recover before the next ones, and shows less."""
_CALM: Final = 15.0
"""Seconds at the end of a target's fault in which no other one touches the same target: a stream job needs as long to
start, and one that is killed before it is ready shows less."""
_DRAWS: Final = 20
"""Faults that are drawn for a moment until one is possible."""


class ScheduleError(Exception):
    """A file has no schedule; the message has the reason."""


@dataclass(frozen=True)
class Event:
    """A fault at a second of the run."""

    second: float
    fault: Fault

    def __str__(self) -> str:
        """Return it in one line.

        >>> print(Event(61.5, FAULTS["kill"].model_validate({"name": "sink", "down": 2})))
          1:01.5  kill, name=sink, down=2.0
        """
        minutes, seconds = divmod(self.second, 60)
        return f"{minutes:3.0f}:{seconds:04.1f}  {self.fault}"

    def as_json(self) -> dict[str, Any]:
        """Return it as a schedule's file has it."""
        return {"second": self.second, "fault": self.fault.kind, **self.fault.model_dump()}


def generate(seed: int, minutes: float) -> list[Event]:
    """Return the schedule of a seed, in the order of seconds.

    Every fault ends within the minutes, and no two of them touch the same target at the same time.
    """
    rng = random.Random(seed)
    end = minutes * 60
    events: list[Event] = []
    free_at: dict[str, float] = {}
    second = round(_FIRST + rng.random() * _FIRST, 1)
    while second < end:
        active = sum(event.second + event.fault.planned > second for event in events)
        fault = _draw(rng, second, end, free_at) if active < _MOST_AT_ONCE else None
        if fault is not None:
            events.append(Event(second, fault))
            free_at |= dict.fromkeys(fault.targets, second + fault.planned + _CALM)
        second = round(second + rng.expovariate(1 / _MEAN_GAP), 1)
    return events


def without_mount(events: Iterable[Event]) -> list[Event]:
    """Return the events that are possible where mounting is not permitted."""
    return [event for event in events if not event.fault.needs_mount]


def _draw(rng: random.Random, second: float, end: float, free_at: Mapping[str, float]) -> Fault | None:
    kinds = list(FAULTS.values())
    weights = [kind.weight for kind in kinds]
    for _ in range(_DRAWS):
        (kind,) = rng.choices(kinds, weights)
        if kind.shortest > end - second:
            continue
        fault = kind.draw(rng, end - second)
        if all(free_at.get(target, 0.0) <= second for target in fault.targets):
            return fault
    return None


def read(file: Path) -> dict[str, Any]:
    """Return the content of a file with a schedule, with its `schedule` as events.

    Raises `ScheduleError`.
    """
    try:
        content = json.loads(file.read_text())
        written = content["schedule"]
        return {**content, "schedule": sorted(map(_event, written), key=lambda event: event.second)}
    except OSError as error:
        raise ScheduleError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScheduleError(f"{file} has no schedule, as `--dry-run --json FILE` writes it: {_reason(error)}") from None


def as_json(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return a schedule as its file has it."""
    return [event.as_json() for event in events]


def _event(written: Mapping[str, Any]) -> Event:
    parameters = dict(written)
    second, kind = float(parameters.pop("second")), str(parameters.pop("fault"))
    if kind not in FAULTS:
        raise ValueError(f"unknown fault {kind!r}: expected {', '.join(FAULTS)}")
    return Event(second, FAULTS[kind].model_validate(parameters))


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{error.title}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)
