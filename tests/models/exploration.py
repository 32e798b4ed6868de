"""Explores every interleaving of a model's steps, breadth first, and reports the shortest one that breaks a promise.

A model is a function from a state to the states that one step leads to. States are values: equal ones are visited once.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

State = TypeVar("State", bound=Hashable)


class ViolationError(AssertionError):
    """A state, or a step to it, breaks a promise of the protocol."""


@dataclass(frozen=True)
class Explored:
    """How much was explored."""

    depth: int
    states: int
    steps: int


def explore(
    start: State,
    steps: Callable[[State], Iterable[tuple[str, State]]],
    check: Callable[[State], None],
    depth: int,
) -> Explored:
    """Take all steps from all states that are reached within `depth` steps, and check each state once.

    `steps` yields the name of each step and the state that it leads to. Raises `ViolationError`, which names the steps
    before it.
    """
    reached_by: dict[State, tuple[State | None, str]] = {start: (None, "")}
    taken = 0

    def history(state: State | None) -> list[str]:
        names: list[str] = []
        while state is not None:
            state, name = reached_by[state]
            names.append(name)
        return names[::-1][1:]

    level = [start]
    check(start)
    for _ in range(depth):
        next_level = []
        for state in level:
            current = state
            try:
                for name, reached in steps(state):
                    taken += 1
                    if reached not in reached_by:
                        reached_by[reached] = (state, name)
                        current = reached
                        check(reached)
                        next_level.append(reached)
                    current = state
            except ViolationError as error:
                raise ViolationError(f"{error}; after: {', '.join(history(current)) or 'nothing'}") from error
        level = next_level
    explored = Explored(depth, len(reached_by), taken)
    # Shown with -s.
    print(f" {explored.states} states, {explored.steps} steps to depth {explored.depth}")
    return explored
