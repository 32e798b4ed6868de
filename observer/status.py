"""The status of a running pipeline: its figures at one moment, and what needs attention."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from observer.reading_history import Stage
from observer.reconciliation import State, Verdict
from observer.services import OK
from runtime import commands

MAY_HAVE_ENDED: Final = "does not answer: it ends when it has sent everything"
"""The state of a producer that has a limit or a recording."""
_LEAST_FREE: Final = 1 << 30
"""Bytes that have to be free on a disk."""
_TROUBLESHOOTING: Final = "docs/runbook.md#symptoms"
_BACKLOG: Final = "docs/operations.md#working-through-a-backlog"


class ExitStatus(IntEnum):
    """What the command reports to the program that has started it."""

    WELL = 0
    ATTENTION = 1
    NO_ANSWER = 2


@dataclass(frozen=True)
class Part:
    """A server or a service."""

    name: str
    state: str
    """`OK`, or the reason why not."""
    answers: bool | None
    """None: unknown."""
    memory: int | None = None
    """Bytes: for `make status` those of its Python process."""
    uptime: float | None = None
    """Seconds."""
    log: str | None = None
    """Its log on this machine."""


@dataclass(frozen=True)
class TableRows:
    """The number of rows of a table, wherever it is. None: unknown, or there are none by design."""

    name: str
    in_the_state: int | None
    """Keys that the stream job counts; without closed windows."""
    in_the_lake: int | None
    indexed: int | None


@dataclass(frozen=True)
class Batch:
    """The latest batch of the stream job that had records."""

    age: float
    """Seconds since it was appended to the lake."""
    records: int | None
    seconds: float | None
    """How long it took."""


@dataclass(frozen=True)
class Disk:
    """What a server or the lake uses of a disk, in bytes. None: unknown."""

    name: str
    used: int | None
    free: int | None


@dataclass(frozen=True)
class LoggedError:
    """The last error in the log of a service."""

    service: str
    line: str


@dataclass(frozen=True)
class Figures:
    """Everything that is known about the pipeline. None: unknown, because what has it does not answer."""

    at: str
    """ISO 8601, in UTC."""
    seconds: float
    """How long it took to ask."""
    parts: tuple[Part, ...]
    stages: tuple[Stage, ...]
    sent: int | None
    in_the_lake: int | None
    malformed: int | None
    indexed: int | None
    dead_letters: int | None
    alerts_firing: int | None
    counts: Verdict
    """Whether everything sent is in the lake and in the index, as far as these counts prove it."""
    tables: tuple[TableRows, ...]
    batch: Batch | None
    behind_seconds: float
    """A record that waits for longer is overdue."""
    lake_is_readable: bool | None
    lake_overdue: int | None
    """Records that are not in the lake, and overdue."""
    aggregates_overdue: int | None
    """Interactions that are in the lake and not aggregated, and overdue."""
    sink_overdue: int | None
    """Published rows that are not indexed, and overdue."""
    disks: tuple[Disk, ...]
    errors: tuple[LoggedError, ...]
    """Of the last hour."""

    @property
    def state_rows(self) -> int | None:
        """The number of rows in the state of the stream job."""
        known = [table.in_the_state for table in self.tables if table.in_the_state is not None]
        return sum(known) if known else None

    @property
    def answers(self) -> bool:
        """Whether any server or service answers, or may do so."""
        return any(part.answers is not False for part in self.parts)


@dataclass(frozen=True)
class Problem:
    """Something that needs attention."""

    part: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.part}: {self.reason}: {self.remedy}"


def problems(figures: Figures) -> list[Problem]:
    """Return what needs attention."""
    return [
        *_unhealthy(figures),
        *_unreadable_lake(figures),
        *_overdue(figures),
        *_wrong_counts(figures),
        *_full_disks(figures),
    ]


def exit_status(figures: Figures) -> ExitStatus:
    """Return the exit status."""
    if not figures.answers:
        return ExitStatus.NO_ANSWER
    return ExitStatus.ATTENTION if problems(figures) else ExitStatus.WELL


def _unhealthy(figures: Figures) -> Iterator[Problem]:
    for part in figures.parts:
        if part.state not in (OK, MAY_HAVE_ENDED):
            yield Problem(part.name, part.state, _remedy(part))


def _remedy(part: Part) -> str:
    if commands.under_compose():
        service = part.name.lower().replace("_", "-")
        return f"`docker compose logs {service}` has more, then {_TROUBLESHOOTING}"
    return f"its log {part.log} has more, then {_TROUBLESHOOTING}" if part.log else _TROUBLESHOOTING


def _unreadable_lake(figures: Figures) -> Iterator[Problem]:
    if figures.lake_is_readable is False:
        yield Problem("the lake", "cannot be read", "set WAREHOUSE and KAFKA_TOPIC as for the stream job")


def _overdue(figures: Figures) -> Iterator[Problem]:
    longer = f"for more than {figures.behind_seconds:g} s"
    for part, number, what in (
        ("stream_processing", figures.lake_overdue, "records in Kafka are not in the lake"),
        ("stream_processing", figures.aggregates_overdue, "interactions in the lake are not aggregated"),
        ("elasticsearch_sink_alert", figures.sink_overdue, "published rows are not indexed"),
    ):
        if number:
            yield Problem(part, f"is behind: {number:,} {what} {longer}", _BACKLOG)


def _wrong_counts(figures: Figures) -> Iterator[Problem]:
    if figures.counts.state == State.WRONG:
        verify = "docker compose run --rm verify" if commands.under_compose() else "make verify"
        yield Problem("the counts", figures.counts.text, f"`{verify}` names each row that differs")


def _full_disks(figures: Figures) -> Iterator[Problem]:
    for disk in figures.disks:
        if disk.free is not None and disk.free < _LEAST_FREE:
            yield Problem(f"the disk of {disk.name}", f"{disk.free / 1e6:,.0f} MB are free", "free some space")
