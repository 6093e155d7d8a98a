"""The tasks of a job as a tree of functions: below each one those that its tasks have submitted. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shoal_dashboard.events.rows import ENDED, Calls

#: Rows of a tree; those of its greater branches come first, and nothing is deeper than ``MAX_DEPTH``.
MAX_ROWS, MAX_DEPTH = 200, 12


@dataclass(frozen=True, slots=True)
class Branch:
    """``depth``: 0 = a driver has submitted them."""

    depth: int
    calls: Calls
    #: It is above itself: what it calls stands there.
    repeated: bool

    @property
    def mean_ms(self) -> float | None:
        """Of those that have ended; None = none has."""
        ended = sum(self.calls.states.get(state, 0) for state in ENDED)
        return self.calls.run_ms / ended if ended else None


def call_tree(calls: Iterable[Calls]) -> tuple[list[Branch], int]:
    """In the order in which they are read, and how many rows are left out at least. Below a function stands what all of
    its tasks have submitted, whoever has submitted those."""
    below: dict[str, list[Calls]] = {}
    for each in sorted(calls, key=lambda each: (-each.count, each.function)):
        below.setdefault(each.caller, []).append(each)
    branches: list[Branch] = []
    left_out = 0

    def add(caller: str, path: tuple[str, ...]) -> None:
        nonlocal left_out
        for each in below.get(caller, ()):
            if len(branches) == MAX_ROWS:
                left_out += 1
                continue
            repeated = each.function in path
            branches.append(Branch(len(path), each, repeated))
            if not repeated and len(path) < MAX_DEPTH - 1:
                add(each.function, (*path, each.function))

    add("", ())
    return branches, left_out
