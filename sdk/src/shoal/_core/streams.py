"""The items of a generator task, as its owner knows them and hands them to whoever reads.

A generator makes its objects one after the other: its item *i* is the object behind the task's return *i + 1*, and
return 0 stands for the task as a whole (``completed()``). Items come in order, each as soon as it is yielded. When the
generator runs again (its worker has died, or an item is lost), the same items come once more under the same ids: what
has come before is not counted twice. A run that ends with another number of items than have come cannot be a repetition
of the same one.

An error takes the place of the item that failed, behind all items that have come; nothing follows it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Any

from shoal._core.object_ref import ObjectRef

#: Number of returns, beside ``STREAMING``, of a generator that has one object for its caller, a
#: ``DynamicObjectRefGenerator`` of its items. For its worker it is a streaming one.
DYNAMIC = -2
#: A paused generator whose items nobody reads any more runs on to its end: as if so many had been read.
ALL = 1 << 62


class Arrival(Enum):
    """What an item is that has come."""

    NEW = auto()
    #: It had come before: of another run.
    AGAIN = auto()
    #: The generator had ended before it, the first time.
    SURPLUS = auto()


class DynamicObjectRefGenerator:
    """The items of a task with ``num_returns="dynamic"``. Iterating over it takes them out."""

    def __init__(self, refs: deque[ObjectRef[Any]]) -> None:
        self._refs = deque(refs)

    def __iter__(self) -> Any:
        while self._refs:
            yield self._refs.popleft()

    def __len__(self) -> int:
        return len(self._refs)

    def __reduce__(self) -> tuple[Any, ...]:
        return DynamicObjectRefGenerator, (self._refs,)


class Stream:
    """Of one generator task. Not thread-safe: the process's lock protects it, except that ``take`` is for the one
    thread that reads."""

    __slots__ = ("ahead", "arrived", "closing", "connection", "dynamic", "end", "limit", "read", "ready", "wanted")

    def __init__(self, limit: int = 0, *, dynamic: bool = False) -> None:
        """``limit``: the generator pauses while so many items are unread; 0 = it does not."""
        self.limit = limit
        self.dynamic = dynamic
        #: All items before this one have come.
        self.arrived = 0
        #: All before this one have been handed to the reader.
        self.read = 0
        #: Items in all, an error among them; None = not known yet.
        self.end: int | None = None
        #: All and only items that have come and were not read, in order. Empty when nobody will read them.
        self.ready: deque[ObjectRef[Any]] = deque()
        #: The next item, which is pending and for which somebody waits or has waited.
        self.ahead: ObjectRef[Any] | None = None
        #: Somebody may read.
        self.wanted = True
        #: Its generator is to be closed, as nobody wants more of it.
        self.closing = False
        #: To the worker that runs it, as far as is known.
        self.connection: Any = None

    # -- the generator ------------------------------------------------------------------------------------

    def arrive(self, index: int) -> Arrival:
        """An item has come. Of a new one ``add`` follows."""
        if index < self.arrived:
            return Arrival.AGAIN
        if self.end is not None:
            return Arrival.SURPLUS
        assert index == self.arrived, "items come in order"
        self.arrived += 1
        return Arrival.NEW

    def add(self, ref: ObjectRef[Any]) -> None:
        """A new item, or the error in its place."""
        if self.wanted:
            self.ready.append(ref)

    def take_ahead(self) -> ObjectRef[Any] | None:
        """Whoever waits for the next item has it, or the end, from now on."""
        ahead, self.ahead = self.ahead, None
        return ahead

    def complete(self, items: int) -> bool:
        """A run has ended well, after so many items. False when that cannot be: ``fail`` follows."""
        if items != self.arrived:
            return False
        if self.end is None:
            self.end = items
        return True

    def fail(self) -> int | None:
        """A run has failed for good: which item is the error. None when the stream had ended already."""
        if self.end is not None:
            return None
        self.end = self.arrived + 1
        return self.arrived

    # -- whoever reads ------------------------------------------------------------------------------------

    def take(self) -> ObjectRef[Any] | None:
        """The next item, if it has come."""
        try:
            ref = self.ready.popleft()
        except IndexError:
            return None
        self.read += 1
        return ref

    @property
    def finished(self) -> bool:
        """All has been read."""
        return self.end is not None and self.read >= self.end

    def drop(self) -> None:
        """Nobody will read any more."""
        self.wanted = False
        self.ready.clear()
        self.ahead = None

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        assert self.end is None or self.arrived <= self.end <= self.arrived + 1
        if self.wanted:
            known = self.arrived if self.end is None else self.end
            assert self.read + len(self.ready) == known, "each item is read once"
        else:
            assert not self.ready
        assert self.ahead is None or not self.ready, "the next item has come, or is awaited"
        assert self.ahead is None or self.end is None, "who waits is told"
