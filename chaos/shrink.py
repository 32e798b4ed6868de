"""Finds a small part of a schedule that still fails: delta debugging."""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def smallest(events: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return a part of the events that fails, and of which no single event can be left out.

    `fails` is asked about a part once; the whole is taken to fail. This is Zeller's ddmin.

    >>> smallest(range(10), lambda part: {2, 7} <= set(part))
    [2, 7]
    """
    if not events or fails([]):
        return []
    known: dict[tuple[int, ...], bool] = {}

    def asked(positions: Sequence[int]) -> bool:
        key = tuple(positions)
        if key not in known:
            known[key] = fails([events[position] for position in positions])
        return known[key]

    positions, pieces = list(range(len(events))), 2
    while len(positions) > 1:
        parts = _split(positions, pieces)
        smaller = next((part for part in parts if asked(part)), None)
        if smaller is not None:
            positions, pieces = smaller, 2
            continue
        rests = [[each for each in positions if each not in part] for part in map(set, parts)]
        rest = next((rest for rest in rests if asked(rest)), None)
        if rest is not None:
            positions, pieces = rest, max(pieces - 1, 2)
        elif pieces < len(positions):
            pieces = min(2 * pieces, len(positions))
        else:
            break
    return [events[position] for position in positions]


def _split(positions: Sequence[int], pieces: int) -> list[list[int]]:
    bounds = [len(positions) * n // pieces for n in range(pieces + 1)]
    return [list(positions[begin:end]) for begin, end in itertools.pairwise(bounds)]
