"""What a run has found, as a table and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from chaos.ledger import Balance
from chaos.processes import Death
from chaos.schedule import Event, as_json

_LAKE = "lake "
_ONCE = {None: 0, "once": 1}


@dataclass
class Happened:
    """A fault that has happened."""

    event: Event
    began: float
    """Seconds of the run; later than scheduled if the target was not free."""
    ended: float
    recovered: float | None = None
    """Seconds after the end; None: not."""


@dataclass
class Result:
    """A run and what it has found."""

    seed: int
    minutes: float
    rate: float
    events: Sequence[Event]
    happened: list[Happened] = field(default_factory=list)
    balance: Balance | None = None
    """None: the topic was not compared."""
    verified: dict[str, Any] | None = None
    """The report of `python -m verify`; None: there is none."""
    deaths: list[Death] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Why the run has failed, beside what was compared."""

    @property
    def is_exact(self) -> bool:
        """Whether nothing is lost, nothing is doubled, and no promise was broken."""
        is_balanced = self.balance is not None and self.balance.is_exact
        is_verified = self.verified is not None and bool(self.verified["exact"])
        return is_balanced and is_verified and not self.failures

    @property
    def differences(self) -> list[dict[str, Any]]:
        """What `verify` has found."""
        checks = self.verified["checks"] if self.verified is not None else ()
        return [difference for check in checks for difference in check["differences"]]

    def lost_and_doubled(self) -> tuple[int, int]:
        """Return the records that are lost and doubled: in the topic by the ledger, and in the lake by `verify`."""
        lost = doubled = 0
        if self.balance is not None:
            lost, doubled = len(self.balance.lost), len(self.balance.doubled)
        for difference in self.differences:
            if difference["store"].startswith(_LAKE):
                more = _times(difference["found"]) - _times(difference["expected"])
                lost, doubled = lost + max(0, -more), doubled + max(0, more)
        return lost, doubled

    def as_json(self) -> dict[str, Any]:
        """Return everything; `--schedule` reads it."""
        lost, doubled = self.lost_and_doubled()
        return {
            "exact": self.is_exact,
            "seed": self.seed,
            "minutes": self.minutes,
            "rate": self.rate,
            "schedule": as_json(self.events),
            "faults": [
                {
                    **each.event.as_json(),
                    "began": round(each.began, 1),
                    "ended": round(each.ended, 1),
                    "recovered": None if each.recovered is None else round(each.recovered, 1),
                }
                for each in self.happened
            ],
            "lost": lost,
            "doubled": doubled,
            "ledger": None if self.balance is None else asdict(self.balance),
            "verify": self.verified,
            "deaths": [asdict(death) for death in self.deaths],
            "failures": self.failures,
        }

    def table(self) -> Table:
        """Return the table of faults and recoveries per process."""
        table = Table(title="faults and recoveries", title_justify="left", box=None)
        table.add_column("process")
        for title in ("faults", "recovered", "slowest recovery", "ended by itself"):
            table.add_column(title, justify="right")
        processes = sorted(
            {each.event.fault.process for each in self.happened} | {each.process for each in self.deaths}
        )
        for process in processes:
            faults = [each for each in self.happened if each.event.fault.process == process]
            recovered = [each.recovered for each in faults if each.recovered is not None]
            slowest = f"{max(recovered):.1f} s" if recovered else ""
            deaths = sum(death.process == process for death in self.deaths)
            table.add_row(process, str(len(faults)), str(len(recovered)), slowest, str(deaths))
        return table

    def lines(self, shown: int = 10) -> Iterator[str]:
        """Yield the result in lines: what was sent, what is wrong, and the verdict."""
        lost, doubled = self.lost_and_doubled()
        if self.balance is not None:
            sent, acknowledged = self.balance.sent, self.balance.acknowledged
            others = f", and {self.balance.others:,} of the producer" if self.balance.others else ""
            yield (
                f"records: sent {sent:,}, acknowledged {acknowledged:,}, in the topic {self.balance.found:,}{others};"
                f" lost {lost:,}, doubled {doubled:,}"
            )
            yield from (f"ledger: {line}" for line in self.balance.lines())
        if self.verified is not None:
            for check in self.verified["checks"]:
                yield f"{'ok' if check['number'] == 0 else 'DIFFERENT':<9}  {check['name']}: {check['compared']:,}"
        for each in self.differences[:shown]:
            yield f"DIFFERENT  {each['store']}: {each['key']}: found {each['found']}, expected {each['expected']}"
        yield from (f"failed: {failure}" for failure in self.failures)
        yield "nothing lost, nothing twice" if self.is_exact else "NOT EXACT"


def _times(text: str | None) -> int:
    """Return the number of times that `verify` has in words.

    >>> _times(None), _times("once"), _times("3 times")
    (0, 1, 3)
    """
    return _ONCE[text] if text in _ONCE else int(str(text).split()[0])
