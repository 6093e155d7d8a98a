"""A profile: how much of something each stack has taken. Pure: what a raylet has answered goes in.

Source of the form: Brendan Gregg's "folded" stacks, a line each: ``outermost;...;innermost count``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: Frames of one stack that are told apart; recursion may be without end.
MAX_DEPTH = 400


@dataclass(frozen=True, slots=True)
class StackCount:
    """``frames``: the outermost first, as "function (file:line)"."""

    frames: tuple[str, ...]
    count: int


def parse(folded: bytes) -> list[StackCount]:
    """A line that is none is left out."""
    found = []
    for line in folded.decode("utf-8", "replace").splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdecimal():
            found.append(StackCount(tuple(stack.split(";")[:MAX_DEPTH]), int(count)))
    return found


@dataclass(slots=True)
class Node:
    """A frame below those above it. ``count``: of it and all that it has called."""

    name: str
    count: int = 0
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def own(self) -> int:
        return self.count - sum(child.count for child in self.children.values())


def tree(stacks: Sequence[StackCount]) -> Node:
    """Whose root, named "all", has every stack below it."""
    root = Node("all")
    for stack in stacks:
        root.count += stack.count
        node = root
        for frame in stack.frames:
            node = node.children.setdefault(frame, Node(frame))
            node.count += stack.count
    return root
