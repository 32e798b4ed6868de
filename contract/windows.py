"""Windows of event time: a key column can be the start of the window in which an event happened."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contract.dead_letters import truncated
from contract.source_lines import declared_at

DAY: Final = timedelta(days=1)
LONGEST: Final = 36_500 * DAY
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"
_UNITS: Final = {"day": DAY, "hour": timedelta(hours=1), "minute": timedelta(minutes=1), "second": timedelta(seconds=1)}


@dataclass(frozen=True)
class Window:
    """Consecutive windows of the same size, which start at midnight UTC; one column of a key."""

    name: str
    """The name of the column with the start of the window."""
    size: timedelta
    closes_after: timedelta
    """The time after its end, as events have it, for which the stream job keeps a window in memory. An event that comes
    later is counted too, at a higher cost."""
    line: int = field(default_factory=declared_at, compare=False, repr=False)

    @property
    def lifetime(self) -> timedelta:
        """The time from the start of a window until it is closed."""
        return self.size + self.closes_after

    def text(self, start: Any) -> str:
        """Return the start of a window, a time or its text, as in the id of a row: `2026-01-31T12:00:00Z`.

        A text that is no time with a time zone is returned as it is.
        """
        try:
            time = datetime.fromisoformat(start) if isinstance(start, str) else start
            if isinstance(start, str) and time.tzinfo is None:
                return start
            return time.astimezone(UTC).strftime(_FORM) if isinstance(time, datetime) else str(start)
        # Also of a time whose year in UTC is 0.
        except (ValueError, OverflowError):
            return str(start)

    def start(self, text: str) -> datetime:
        """Return the start of the window of a row's id; raises ValueError if no window starts there."""
        start = datetime.fromisoformat(text)
        if self.text(start) != text or (start - _EPOCH) % self.size:
            raise ValueError(f"{truncated(text)!r} is not the start of a window of {self.size}")
        return start

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        if not isinstance(self.closes_after, timedelta):
            yield f"window {self.name}: closes_after is {self.closes_after!r}: expected such as minutes(10)"
        elif not timedelta() <= self.closes_after <= LONGEST:
            yield f"window {self.name}: closes_after is not within 0 and 100 years"
        if self.size < timedelta(seconds=1) or DAY % self.size or self.size.microseconds:
            yield f"window {self.name}: {self.size} does not divide a day: expected such as minutes=15 or hours=1"


def every(
    *,
    seconds: int = 0,
    minutes: int = 0,
    hours: int = 0,
    days: int = 0,
    closes_after: timedelta = timedelta(minutes=10),
    name: str = "",
) -> Window:
    """Divide the time of the events into windows of this size, for the key of a table.

    The column is called by the unit, such as minute or minutes_15, or has a name of its own.
    """
    size = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    return Window(name or _name(size), size, closes_after)


def _name(size: timedelta) -> str:
    number, unit = in_units(size)
    return unit if number == 1 else f"{unit}s_{number}" if number else "window"


def in_units(size: timedelta) -> tuple[int, str]:
    """Return a duration as a number of its largest unit that divides it, such as 15 and minute; 0 if none does."""
    for unit, length in _UNITS.items():
        if size >= length and not size % length:
            return size // length, unit
    return 0, ""


def minutes(number: float) -> timedelta:
    """Return a duration."""
    return timedelta(minutes=number)


def hours(number: float) -> timedelta:
    """Return a duration."""
    return timedelta(hours=number)


def days(number: float) -> timedelta:
    """Return a duration."""
    return timedelta(days=number)
