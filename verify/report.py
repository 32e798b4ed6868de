"""What the comparison found: checks, each with its differences."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

MAX_KEPT: Final = 1_000
"""Differences of a check that are reported one by one; the others are counted."""
_NAME_WIDTH: Final = 78
_MAX_SHOWN: Final = 300
"""Characters of a value."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be."""

    store: str
    """Where it is: a topic, a Delta table or an index."""
    key: str
    """Which record, row or document it is."""
    found: str | None
    """What is there; None: nothing."""
    expected: str | None
    """What should be there; None: nothing."""

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.store}: {_shown(self.key)}: found {_shown(self.found)}, expected {_shown(self.expected)}"


@dataclass
class Check:
    """One comparison."""

    name: str
    """What is compared with what."""
    compared: int = 0
    """Records, rows or documents."""
    number: int = 0
    """Differences."""
    differences: list[Difference] = field(default_factory=list)
    """The first of them."""
    notes: list[str] = field(default_factory=list)
    """What could not be compared, and why."""
    seconds: float = 0
    """For reading and comparing, and for waiting for what is still on its way."""

    def lines(self, max_differences: int) -> Iterator[str]:
        """Yield it for a terminal, with so many of its differences."""
        state = "ok       " if self.number == 0 else "DIFFERENT"
        yield f"{state}  {self.name:{_NAME_WIDTH}}  {self.compared:>12,}  {self.seconds:6.1f} s"
        yield from (f"           {note}" for note in self.notes)
        yield from (f"           {difference}" for difference in self.differences[:max_differences])
        if self.number > max_differences:
            yield f"           and {self.number - max_differences:,} more"

    def add(self, differences: Iterable[Difference]) -> None:
        """Add differences."""
        for difference in differences:
            self.number += 1
            if len(self.differences) < MAX_KEPT:
                self.differences.append(difference)


@dataclass
class Report:
    """All comparisons, and the moment that they are about."""

    version: int
    """The version of the Delta table of events."""
    offsets: Mapping[int, int]
    """The next offset of each partition of the topic of events."""
    checks: list[Check] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        """Whether there is no difference."""
        return all(check.number == 0 for check in self.checks)

    def to_json(self) -> str:
        """Return everything as JSON."""
        checks: list[dict[str, Any]] = [asdict(check) for check in self.checks]
        return json.dumps(
            {"exact": self.is_exact, "version": self.version, "offsets": dict(self.offsets), "checks": checks},
            indent=2,
        )

    @property
    def verdict(self) -> str:
        """Everything in a few words."""
        number = sum(check.number for check in self.checks)
        if self.is_exact:
            return "nothing lost, nothing twice"
        return f"{number:,} difference{'s' if number > 1 else ''}"


def _shown(text: str | None) -> str:
    """Return a text in one line, without control characters.

    >>> _shown(None), _shown("a\\x1bb")
    ('nothing', 'a\\\\x1bb')
    """
    if text is None:
        return "nothing"
    printable = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return printable if len(printable) <= _MAX_SHOWN else f"{printable[:_MAX_SHOWN]}..."
