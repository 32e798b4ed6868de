"""Buckets of a distribution: of equal width, or growing tenfold where a few rows have most."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from live_page.formatting import format_compact

_BUCKETS: Final = 20
_MOST: Final = 28
"""More buckets, of 1, 2 and 5 times a power of ten, are replaced by one per power of ten."""
_SKEW: Final = 8.0
"""The highest value of a skewed distribution is more than this many times the median."""
_DECADES: Final = 8
"""That are told apart below the highest value."""


@dataclass(frozen=True)
class Bucket:
    """The rows whose value is at least `lower` and below `upper`."""

    lower: float
    upper: float
    rows: int
    is_whole: bool
    """Whether the values are whole numbers."""

    @property
    def label(self) -> str:
        """Its values.

        >>> Bucket(1, 2, 3, True).label, Bucket(1_000, 2_000, 3, True).label, Bucket(0.5, 1, 3, False).label
        ('1', '1,000–1,999', '0.5–1')
        """
        last = self.upper - 1 if self.is_whole else self.upper
        lower = format_compact(self.lower)
        return lower if self.is_whole and last <= self.lower else f"{lower}–{format_compact(last)}"


def bucket_bounds(lowest: float, highest: float, median: float, *, is_whole: bool) -> list[float]:
    """Return the bounds of buckets for values from `lowest` to `highest`, which is below the last one.

    >>> bucket_bounds(98, 101, 100, is_whole=True)
    [98.0, 99.0, 100.0, 101.0, 102.0]
    >>> bucket_bounds(1, 1_300, 2, is_whole=True)
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0]
    """
    if lowest >= 0 and highest >= _BUCKETS and highest > _SKEW * median:
        return _growing(lowest, highest, is_whole=is_whole)
    width = (highest - lowest) / _BUCKETS
    if is_whole:
        width = max(1.0, float(math.ceil((highest - lowest + 1) / _BUCKETS)))
    width = width or 1.0
    bounds = [float(lowest)]
    # Beyond 2^53 a bound plus 1 is the bound.
    while bounds[-1] <= highest and len(bounds) <= _BUCKETS + 1:
        bounds.append(max(lowest + len(bounds) * width, math.nextafter(bounds[-1], math.inf)))
    return bounds


def _growing(lowest: float, highest: float, *, is_whole: bool) -> list[float]:
    first = 1.0 if is_whole else max(lowest, highest / 10**_DECADES)
    steps: tuple[int, ...] = (1, 2, 5)
    if math.log10(highest / first) * len(steps) > _MOST:
        steps = (1,)
    start = math.floor(math.log10(first))
    all_bounds = (step * 10.0**power for power in range(start, math.ceil(math.log10(highest)) + 2) for step in steps)
    bounds = [round(bound, 12) for bound in all_bounds]
    first_above = next(n for n, bound in enumerate(bounds) if bound > highest)
    # From the last one that is not above the lowest.
    from_ = max((n for n, bound in enumerate(bounds) if bound <= lowest), default=0)
    below = [0.0] if lowest < bounds[0] else []
    return below + bounds[from_ : first_above + 1]


def has_growing_steps(buckets: Sequence[Bucket]) -> bool:
    """Whether the buckets grow."""
    widths = [each.upper - each.lower for each in buckets]
    return any(later > 1.5 * earlier for earlier, later in pairwise(widths))
