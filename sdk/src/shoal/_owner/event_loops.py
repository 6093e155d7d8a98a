"""Values as futures of asyncio.

An event loop is woken once for all the values that have come when it gets there, and what it has awaited in one of its
turns is sent together at the end of that: one by one, each costs a message, a wake-up and a change of threads, which
was 14,000 awaited calls of an actor a second, for 1,000 at once.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._owner.values import NotReady, Values
from shoal._owner.waiting import Waiting
from shoal._wire.value_kinds import PENDING

if TYPE_CHECKING:
    from shoal._owner.process import Process


class _Awaited:
    """A watcher: one future of one event loop."""

    __slots__ = ("_side", "future", "ref", "with_value")

    def __init__(self, side: _LoopSide, ref: ObjectRef[Any], future: asyncio.Future[Any], with_value: bool) -> None:
        self._side = side
        self.ref = ref
        self.future = future
        self.with_value = with_value

    def ready(self, entry: ObjectEntry) -> None:
        self._side.came(self)


class _LoopSide:
    """What is on its way to one event loop. ``came`` with the process's lock, the others on that loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, process: Process, resolve: Callable[[_Awaited], None]) -> None:
        self._loop = weakref.ref(loop)  # which is the key under which this is found
        self._process = process
        self._resolve = resolve
        self._flushes = False
        #: The loop has been woken for them.
        self._ready: list[_Awaited] = []

    def awaits(self, loop: asyncio.AbstractEventLoop) -> None:
        """It will wait: what it has submitted by then goes out."""
        if not self._flushes:
            self._flushes = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushes = False
        self._process.flush()

    def came(self, awaited: _Awaited) -> None:
        self._ready.append(awaited)
        if len(self._ready) == 1:
            loop = self._loop()
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._take)
            except RuntimeError:
                self._ready.clear()  # the loop is closed: nobody awaits any more

    def _take(self) -> None:
        with self._process.lock:
            ready, self._ready = self._ready, []
        for awaited in ready:
            if not awaited.future.done():
                self._resolve(awaited)


class EventLoops:
    """Of one process."""

    def __init__(self, process: Process, waiting: Waiting, values: Values) -> None:
        self._process = process
        self._waiting = waiting
        self._values = values
        self._sides: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopSide] = weakref.WeakKeyDictionary()

    def value(self, ref: ObjectRef[Any]) -> asyncio.Future[Any]:
        """Of the running loop: the value of the object, or its error."""
        return self._future(ref, with_value=True)

    def ready(self, ref: ObjectRef[Any]) -> asyncio.Future[None]:
        """Of the running loop: done when the object is ready, whatever it is."""
        return self._future(ref, with_value=False)

    def _future(self, ref: ObjectRef[Any], *, with_value: bool) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        side = self._sides.get(loop)
        if side is None:
            side = self._sides[loop] = _LoopSide(loop, self._process, self._resolve)
        awaited = _Awaited(side, ref, loop.create_future(), with_value)
        self._watch(side, awaited)
        return awaited.future

    def _watch(self, side: _LoopSide, awaited: _Awaited) -> None:
        entry = awaited.ref._entry
        if entry.state == PENDING:
            with self._process.lock:
                pending = entry.state == PENDING
                if pending:
                    self._waiting.watch(entry, awaited)
            side.awaits(awaited.future.get_loop())
            if pending:
                return
        self._resolve(awaited)

    def _resolve(self, awaited: _Awaited) -> None:
        future = awaited.future
        if not awaited.with_value:
            future.set_result(None)
            return
        try:
            value = self._values.value_now(awaited.ref._entry)
        except NotReady:
            self._watch(awaited._side, awaited)  # it was lost, and is being made again
        except BaseException as error:  # the future carries whatever the task raised
            future.set_exception(error)
        else:
            future.set_result(value)
