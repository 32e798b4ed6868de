"""Compares the offsets that were read from a partition with those that it holds now."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PartitionGap:
    """A partition's recorded position beside its current offsets.

    >>> gap = PartitionGap(partition=0, position=5, earliest=8, end=20)
    >>> gap.resume_at, gap.description
    (8, 'the records 5 to 7 are lost')
    """

    partition: int
    position: int
    """The next offset to read, as recorded by the job."""
    earliest: int
    """The first offset that the partition holds."""
    end: int
    """The offset after the last record."""
    topic_recreated: bool = False
    """Whether the topic was deleted and created again, so that `position` means nothing in it."""

    @property
    def resume_at(self) -> int:
        """The offset to continue at: the position, if it is available; else the nearest one that is.

        Of a recreated topic, that of its earliest record.
        """
        return self.earliest if self.topic_recreated else min(max(self.position, self.earliest), self.end)

    @property
    def exists(self) -> bool:
        """Whether the job cannot continue at the recorded position."""
        return self.resume_at != self.position

    @property
    def description(self) -> str:
        """The loss in words."""
        if self.topic_recreated:
            return f"the topic was recreated: records of the deleted topic from offset {self.position} on are lost"
        if self.position < self.earliest:
            return f"the records {self.position} to {self.earliest - 1} are lost"
        if self.is_beyond_end:
            return (
                f"the topic ends at {self.end}, before {self.position}: it is an older copy, or has lost records. None"
                " is read twice; those that it got since then are not read"
            )
        return "no record is missing"

    @property
    def is_beyond_end(self) -> bool:
        """Whether the same topic has less records than were read from it."""
        return not self.topic_recreated and self.position > self.end
