"""Document versions: a later row of a key has a greater version, whatever is replayed and whoever asks.

A record's version is the broker's append time and, within a millisecond, its offset. That survives a
topic created anew, where offsets start at 0 again. Should the broker's clock be set back, versions go on
from the last one of the partition instead, like those of a hybrid logical clock (Kulkarni et al., 2014);
the last one is kept as metadata of the committed offset, and so moves with the partition.
"""

from typing import Final

_OFFSET_BITS: Final = 20


def appended_at(version: int) -> int:
    """When the record of this version was appended, in milliseconds since the epoch.

    >>> appended_at(VersionClock().version(partition=0, timestamp_ms=1000, offset=7))
    1000
    """
    return version >> _OFFSET_BITS


class VersionClock:
    """Versions of the records of each partition, in the order of their offsets.

    >>> clock = VersionClock()
    >>> first = clock.version(partition=0, timestamp_ms=1000, offset=7)
    >>> clock.version(partition=0, timestamp_ms=900, offset=8) - first
    1
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def version(self, partition: int, timestamp_ms: int, offset: int) -> int:
        """The version of a record; greater than all before it in the partition. A 63-bit number."""
        own = (timestamp_ms << _OFFSET_BITS) | (offset & ((1 << _OFFSET_BITS) - 1))
        version = max(own, self._last.get(partition, -1) + 1)
        self._last[partition] = version
        return version

    def metadata(self, partition: int) -> str:
        """What to commit along with the partition's offset."""
        return str(self._last.get(partition, 0))

    def restore(self, partition: int, metadata: str | None) -> None:
        """Go on from a committed offset; without metadata, from the records' own times."""
        self._last.pop(partition, None)
        if metadata and metadata.isdigit():
            self._last[partition] = int(metadata)
