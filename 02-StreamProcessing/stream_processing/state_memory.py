"""Whether the counts per key, where they are in memory, fit into Java's heap with what else has to."""

from typing import Final

from runtime.commands import command

_BYTES_PER_KEY: Final = 700
"""350 for a key's counts (measured), twice while a batch changes all of them."""
_SHARE: Final = 0.6
"""Of the heap: the rest is for a batch's own records and for Java."""
REMEDY: Final = (
    "raise SPARK_DRIVER_MEMORY, or set STATE_STORE=rocksdb, whose counts are outside of Java's heap, and run"
    f" `{command('stream_processing', 'rebuild')}` once"
)
"""What to do where the heap is too small."""


def warning(keys: int, heap: int) -> str | None:
    """What to do if so many keys are more than a heap of so many bytes holds well; nothing if they are not.

    With more of them Java collects garbage most of the time, long before it runs out of memory.
    """
    if keys * _BYTES_PER_KEY <= heap * _SHARE:
        return None
    return (
        f"the counts of {keys:,} users and items take up to {keys * _BYTES_PER_KEY >> 20:,} MB of Java's heap of"
        f" {heap >> 20:,} MB, and Java will be busy collecting garbage: {REMEDY}"
    )
