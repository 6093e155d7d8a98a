"""``ActorPool``: values go to whichever actor of a fixed set is free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import shoal
from shoal import exceptions
from shoal._api.actor_handles import ActorHandle
from shoal._core.object_ref import ObjectRef

#: Calls one method of the actor with the value; a list of refs when the method has several results.
Submit = Callable[[ActorHandle, Any], "ObjectRef[Any] | list[ObjectRef[Any]]"]


class ActorPool:
    """Each actor works on one value at a time; further values wait here until one is free.

    An actor that has died is left out. Not thread-safe.
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle = list(actors)
        #: What runs, by the order of submission: its refs, whether ``fn`` gave a list, its actor.
        self._running: dict[int, tuple[list[ObjectRef[Any]], bool, ActorHandle]] = {}
        self._waiting: deque[tuple[Submit, Any]] = deque()
        self._submitted = 0
        self._next_return = 0

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Call ``fn(actor, value)`` for all values; results in the order of the values.

        Submits at once. Results of earlier submissions that nobody has taken are dropped.
        """
        self._drop_results()
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """As ``map``, but results come as they are ready."""
        self._drop_results()
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next_unordered)

    def _drop_results(self) -> None:
        """What was submitted before runs on, but nobody gets its results."""
        while self._running:
            _, _, actor = self._running.pop(next(iter(self._running)))
            self._give_back(actor)
        self._next_return = self._submitted

    def _results(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def submit(self, fn: Submit, value: Any) -> None:
        """Call ``fn(actor, value)`` as soon as an actor is free; ``fn`` returns a ref, or a list of refs."""
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.pop()
        result = fn(actor, value)
        refs = result if isinstance(result, list) else [result]
        self._running[self._submitted] = (refs, refs is result, actor)
        self._submitted += 1

    def has_next(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._running)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of the oldest submission; waits for it, at most ``timeout`` seconds (None = for ever).

        With ``ignore_if_timedout`` a submission that has timed out is given up; its actor gets the next value.

        Raises: StopIteration (no more results), TimeoutError, ValueError (after ``get_next_unordered`` took a later
        one), and what the call raised.
        """
        if not self.has_next():
            raise StopIteration("No more results to get")
        if self._next_return not in self._running:
            raise ValueError("It is not allowed to call get_next() after get_next_unordered().")
        index = self._next_return
        refs = self._running[index][0]
        # Without a limit ``get`` waits: one wait less for each value.
        ready = timeout is None or len(shoal.wait(refs, num_returns=len(refs), timeout=timeout)[0]) == len(refs)
        return self._take(index, ready, ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Any result, the first that is ready; parameters and errors as in ``get_next``.

        With ``ignore_if_timedout`` it is the oldest submission that is given up.
        """
        if not self.has_next():
            raise StopIteration("No more results to get")
        # The last ref of a call stands for all of them: they become ready together.
        waiting = {refs[-1]: index for index, (refs, _, _) in self._running.items()}
        ready, _ = shoal.wait(list(waiting), num_returns=1, timeout=timeout)
        index = waiting[ready[0]] if ready else next(iter(waiting.values()))
        return self._take(index, bool(ready), ignore_if_timedout)

    def _take(self, index: int, ready: bool, ignore_if_timedout: bool) -> Any:
        refs, several, actor = self._running[index]
        if not ready:
            if not ignore_if_timedout:
                raise TimeoutError("Timed out waiting for result")
            self._taken(index)
            self._give_back(actor)
            raise TimeoutError(f"Timed out waiting for result. The task {refs[0]} has been ignored.")
        try:
            result = shoal.get(refs if several else refs[0])  # an interrupt leaves it to be taken again
        except exceptions.ActorDiedError:
            self._taken(index)
            self._start_waiting()
            raise
        except Exception:
            self._taken(index)
            self._give_back(actor)
            raise
        self._taken(index)
        self._give_back(actor)
        return result

    def _taken(self, index: int) -> None:
        del self._running[index]
        self._next_return = max(self._next_return, index + 1)

    def _give_back(self, actor: ActorHandle) -> None:
        self._idle.append(actor)
        self._start_waiting()

    def _start_waiting(self) -> None:
        if self._waiting and self._idle:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """Whether an actor is idle and no value waits."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle | None:
        """Take an idle actor out of the pool; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Add an actor. Raises: ValueError if it belongs to the pool already."""
        if actor in self._idle or any(actor == busy for _, _, busy in self._running.values()):
            raise ValueError("Actor already belongs to current ActorPool")
        self._give_back(actor)
