"""Estimates whether the counts fit into the memory of this process."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_PEAK: Final = 4
"""Bytes while an append is counted, for each byte of the counts (measured): old rows, new rows and hash tables."""
_OTHER: Final = 600 << 20
"""Bytes for everything else: a large append, Python, and Java outside its heap."""
_CONTAINER_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Of the two versions of Linux' control groups."""


def warning(state: int, memory: int, heap: int) -> str | None:
    """Return a warning with the remedy if counts of `state` bytes are too large, else None.

    `memory` is what this process and Java may use together, `heap` what Java's heap can grow to, both in bytes.
    """
    available = memory - heap - _OTHER
    if state * _PEAK <= available:
        return None
    return (
        f"the counts of all users and items take up to {state * _PEAK >> 20:,} MB while they change, and"
        f" {max(0, available) >> 20:,} MB are left beside Java and the rest: give the job more memory (with Docker,"
        " STREAM_MEMORY_LIMIT), or set STATE_STORE=rocksdb, which keeps the counts in files"
    )


def memory_limit(limits: Sequence[Path] = _CONTAINER_LIMITS) -> int:
    """Return the bytes that this process and Java may use together: the container's limit, or all of the machine's."""
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in limits:
        # A container without a limit has the word "max", or no such file.
        with suppress(OSError, ValueError):
            known.append(int(limit.read_text()))
    return min(known)
