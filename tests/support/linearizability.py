"""Whether a history of operations is linearizable: Wing and Gong's search ("Testing and Verifying Concurrent Objects",
1993), with Lowe's memory of what was tried (2017).

Each operation took effect at one moment between its call and its return, so that all of them one after the other, in
the order of those moments, are what the object does alone. One that never returned may have taken effect at any moment
after its call, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Operation:
    what: Any
    #: By one clock of all clients, in seconds. ``returned`` infinite: nobody knows what came of it.
    called: float
    returned: float = inf
    result: Any = None


class Linearization(Generic[S]):
    """The search for an order, for an object whose states can be compared."""

    def __init__(self, begin: S, step: Callable[[S, Any], tuple[S, Any]]) -> None:
        """``step(state, what)``: the next state, and the result."""
        self._begin = begin
        self._step = step

    def order(self, history: Sequence[Operation]) -> list[Operation] | None:
        """An order that explains the history; None = there is none. What took no effect is left out."""
        seen: set[tuple[frozenset[int], S]] = set()
        todo: list[tuple[frozenset[int], S, list[Operation]]] = [(frozenset(range(len(history))), self._begin, [])]
        while todo:
            left, state, done = todo.pop()
            if all(history[index].returned == inf for index in left):
                return done
            if (left, state) in seen:
                continue
            seen.add((left, state))
            # What was called after another had returned comes after it.
            first_return = min(history[index].returned for index in left)
            for index in left:
                operation = history[index]
                if operation.called > first_return:
                    continue
                after, result = self._step(state, operation.what)
                if operation.returned == inf or result == operation.result:
                    todo.append((left - {index}, after, [*done, operation]))
        return None
