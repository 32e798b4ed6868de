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
        """The offset to continue at: the recorded position, or the earliest record if the position is unavailable."""
        return self.earliest if self._is_another_topic or self.position < self.earliest else self.position

    @property
    def exists(self) -> bool:
        """Whether the job cannot continue at the recorded position."""
        return self.resume_at != self.position

    @property
    def description(self) -> str:
        """The loss in words."""
        if self._is_another_topic:
            return f"the topic was recreated: records of the deleted topic from offset {self.position} on are lost"
        if self.position < self.earliest:
            return f"the records {self.position} to {self.earliest - 1} are lost"
        return "no record is missing"

    @property
    def _is_another_topic(self) -> bool:
        return self.topic_recreated or self.position > self.end
