"""Computes document versions: a later row of a key has a greater version, also after replays and restarts.

A version is the record's append time at the broker and, within a millisecond, its offset. That survives a recreated
topic, whose offsets start at 0 again. If the broker's clock is set back, versions continue from the last one of the
partition, as in a hybrid logical clock (Kulkarni et al., 2014). The last version is part of the metadata of the
committed offset, and so moves with the partition.
"""

import re
from typing import Final

_OFFSET_BITS: Final = 20
_OFFSET_MASK: Final = (1 << _OFFSET_BITS) - 1


def appended_at(version: int) -> int:
    """Return when the record of this version was appended, in milliseconds since the epoch.

    >>> appended_at(VersionClock().version(partition=0, timestamp_ms=1000, offset=7))
    1000
    """
    return version >> _OFFSET_BITS


class VersionClock:
    """Assigns versions to the records of each partition, in the order of their offsets.

    >>> clock = VersionClock()
    >>> first = clock.version(partition=0, timestamp_ms=1000, offset=7)
    >>> clock.version(partition=0, timestamp_ms=900, offset=8) - first
    1
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def version(self, partition: int, timestamp_ms: int, offset: int) -> int:
        """Return the version of a record: a 63-bit number, greater than all before it in the partition."""
        version = (timestamp_ms << _OFFSET_BITS) | (offset & _OFFSET_MASK)
        last = self._last.get(partition, -1)
        if version <= last:
            version = last + 1
        self._last[partition] = version
        return version

    def metadata(self, partition: int) -> str:
        """Return the metadata to commit with the partition's offset."""
        return str(self._last.get(partition, 0))

    def restore(self, partition: int, metadata: str | None) -> None:
        """Continue from a committed offset's metadata; without it, from the records' own times."""
        self._last.pop(partition, None)
        if metadata and re.fullmatch("[0-9]{1,19}", metadata):
            self._last[partition] = int(metadata)
