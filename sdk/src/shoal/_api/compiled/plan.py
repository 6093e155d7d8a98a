"""What a compiled graph is made of: which actor runs which methods in which order, and which value goes to whom.

Each value of the graph (an input, or what a method returns) is a *wire*. One that another process needs goes through
a ring; an actor hands the others to itself. Every actor runs its methods in the order in which they were bound. As a
node can only be bound to nodes that exist, that is an order in which everything can run: nobody ever waits in a circle.

Pure. Who makes one is ``planning``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

#: Among the readers of a wire.
DRIVER = -1


class Argument(NamedTuple):
    """Of a method: the value of a wire, or where that is None, always the same value."""

    wire: int | None
    value: Any = None


class Step(NamedTuple):
    """One call of a method in each execution."""

    method: str
    args: list[Argument]
    kwargs: dict[str, Argument]
    #: What becomes of the result: the wires that it goes to, and which of several values it is; None = the whole.
    results: list[tuple[int, int | None]]


class Plan(msgspec.Struct):
    """``readers``: of each wire that goes through a ring, the actors (by number) and ``DRIVER``."""

    #: Handles, by number.
    actors: list[Any]
    #: By the actor's number.
    steps: list[list[Step]]
    readers: dict[int, list[int]]
    #: What the driver writes: the wire, and which part of the arguments; None = the one argument there is.
    inputs: list[tuple[int, int | str | None]]
    #: What it reads, in the order of the results.
    outputs: list[int]
    #: Whether an execution gives a list.
    returns_list: bool
    positional: int
    names: list[str]

    def written(self, actor: int) -> list[int]:
        """Rings that an actor writes."""
        return [wire for step in self.steps[actor] for wire, _ in step.results if wire in self.readers]

    def read(self, actor: int) -> list[int]:
        """Rings that an actor, or the driver, reads."""
        return [wire for wire, readers in self.readers.items() if actor in readers]
