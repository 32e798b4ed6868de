"""The ledger of the load: what was sent, what the broker has acknowledged, and whether the topic has exactly that."""

import hashlib
import threading
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

NUMBER: Final = "chaos.number"
"""The header of a record with its number in the ledger."""
_KEPT: Final = 20
"""Numbers of each kind that are named."""


@dataclass
class Balance:
    """What the committed records of the topic are, compared with the ledger."""

    sent: int
    acknowledged: int
    found: int = 0
    """Records of the ledger that the topic has, each once."""
    others: int = 0
    """Records of other producers."""
    lost: list[int] = field(default_factory=list)
    """Acknowledged, and not in the topic."""
    doubled: list[int] = field(default_factory=list)
    """More than once in the topic."""
    changed: list[int] = field(default_factory=list)
    """With other bytes than those that were sent."""
    unknown: int = 0
    """In the topic with a number that was not sent."""

    @property
    def is_exact(self) -> bool:
        """Whether everything that was acknowledged is there once, as it was sent, and nothing that was not sent."""
        return not (self.lost or self.doubled or self.changed or self.unknown)

    def lines(self) -> Iterable[str]:
        """Yield what is wrong."""
        for what, numbers in (("lost", self.lost), ("doubled", self.doubled), ("changed", self.changed)):
            if numbers:
                more = " ..." if len(numbers) > _KEPT else ""
                yield f"{len(numbers):,} records {what}: numbers {', '.join(map(str, numbers[:_KEPT]))}{more}"
        if self.unknown:
            yield f"{self.unknown:,} records with a number that was not sent"


class Ledger:
    """Numbers the records that are sent, and notes which were acknowledged. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests = array("Q")
        self._acknowledged = bytearray()
        self._number_acknowledged = 0

    def enter(self, key: bytes | None, value: bytes | None) -> int:
        """Note a record before it is sent; return its number."""
        with self._lock:
            self._digests.append(_digest(key, value))
            self._acknowledged.append(0)
            return len(self._digests) - 1

    def acknowledge(self, number: int) -> None:
        """Note that the broker has acknowledged a record."""
        with self._lock:
            self._acknowledged[number] = 1
            self._number_acknowledged += 1

    @property
    def sent(self) -> int:
        """Records that were given to the client."""
        return len(self._digests)

    @property
    def acknowledged(self) -> int:
        """Records that the broker has acknowledged."""
        return self._number_acknowledged

    def compare(self, records: Iterable[tuple[int | None, bytes | None, bytes | None]]) -> Balance:
        """Compare with the committed records of the topic: number (None: of another producer), key and value of each.

        A record that was sent and not acknowledged may be there or not, and at most once.
        """
        balance = Balance(self.sent, self.acknowledged)
        times = bytearray(self.sent)
        for number, key, value in records:
            if number is None:
                balance.others += 1
            elif not 0 <= number < len(times):
                balance.unknown += 1
            else:
                times[number] = min(times[number] + 1, 2)
                if times[number] == 1 and self._digests[number] != _digest(key, value):
                    balance.changed.append(number)
        balance.found = sum(1 for each in times if each)
        balance.doubled = [number for number, each in enumerate(times) if each > 1]
        balance.lost = [number for number, each in enumerate(times) if not each and self._acknowledged[number]]
        return balance


def _digest(key: bytes | None, value: bytes | None) -> int:
    parts = [b"-" if part is None else b"%d:%b" % (len(part), part) for part in (key, value)]
    return int.from_bytes(hashlib.blake2b(b"".join(parts), digest_size=8).digest())
