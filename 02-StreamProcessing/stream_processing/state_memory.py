"""Estimates whether the in-memory state fits into the Java heap."""

from typing import Final

from runtime.commands import command

_BYTES_PER_KEY: Final = 700
"""350 for a key's counts (measured), twice while a batch changes all of them."""
_STATE_SHARE: Final = 0.6
"""Share of the heap for the state; a batch's own records and Java need the rest."""
REMEDY: Final = (
    "raise SPARK_DRIVER_MEMORY, or set STATE_STORE=rocksdb, which keeps the counts outside the Java heap, and run"
    f" `{command('stream_processing', 'rebuild')}` once"
)
"""The action that the log suggests if the heap is too small."""


def warning(keys: int, heap: int) -> str | None:
    """Return a warning with the remedy if the state of `keys` keys is too large for a heap of `heap` bytes, else None.

    With a larger state Java spends most of its time collecting garbage, long before it runs out of memory.
    """
    if keys * _BYTES_PER_KEY <= heap * _STATE_SHARE:
        return None
    return (
        f"the counts of {keys:,} users and items take up to {keys * _BYTES_PER_KEY >> 20:,} MB of the Java heap of"
        f" {heap >> 20:,} MB, and Java will be busy collecting garbage: {REMEDY}"
    )
