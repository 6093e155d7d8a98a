"""Values as futures of asyncio.

What an event loop has awaited in one of its turns is sent together at the end of that, and while it waits, it reads
the sockets itself (see ``reactor``). What another thread has read wakes it once for all the values that have come when
it gets there. One by one, each costs a message, a wake-up and a change of threads, which was 14,000 awaited calls of an
actor a second, for 1,000 at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._owner.objects.values import NotReady, Values
from shoal._owner.objects.waiting import Waiting
from shoal._values.serialization import loads
from shoal._wire.value_kinds import INLINE, PENDING

if TYPE_CHECKING:
    from shoal._owner.process import Process


#: An event loop that has found another thread reading leaves it to that for so many of its turns.
PASSES_AFTER_VAIN = 16
#: The background thread has let go of the sockets by then, in seconds.
AGAIN_S = 0.001


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


def _no_loop() -> None:
    return None


class _LoopSide:
    """What is on its way to one event loop. ``came`` with the process's lock, the others on that loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        process: Process,
        waiting: Waiting,
        resolve: Callable[[_Awaited], None],
    ) -> None:
        self._loop = weakref.ref(loop)  # which is the key under which this is found
        self._process = process
        self._waiting = waiting
        self._resolve = resolve
        self._flushes = False
        #: So many are not here yet.
        self._missing = 0
        #: They are here: the loop has been woken for them, or takes them when it has read.
        self._ready: list[_Awaited] = []
        #: Readable once for whatever comes, so that the loop does not turn around what another thread is reading. It is
        #: None while the loop reads nothing.
        self._alert: select.epoll | None = None
        #: It reads now.
        self._reading = False
        #: Another thread read the last time: so many turns more nothing is read here.
        self._turns_left = 0

    def watch(self, awaited: _Awaited) -> bool:
        """False: it is there."""
        entry = awaited.ref._entry
        with self._process.lock:
            if entry.state != PENDING:
                return False
            self._missing += 1
            self._waiting.watch(entry, awaited)
        if not self._flushes:
            self._flushes = True
            awaited.future.get_loop().call_soon(self._end_turn)
        return True

    def _end_turn(self) -> None:
        """It will wait: what it has submitted by now goes out."""
        self._flushes = False
        self._process.flush()
        reactor = self._process.reactor
        if self._turns_left:
            self._turns_left -= 1
        elif not reactor.has_loop(self) and not reactor.led and not self._process.closed:
            self._begin_reading()

    def came(self, awaited: _Awaited) -> None:
        self._missing -= 1
        self._ready.append(awaited)
        loop = self._loop()
        if len(self._ready) > 1 or self._reading or loop is None:
            return
        try:
            if asyncio._get_running_loop() is loop:
                loop.call_soon(self._take)
            else:
                loop.call_soon_threadsafe(self._take)
        except RuntimeError:
            self._ready.clear()  # the loop is closed: nobody awaits any more

    def _take(self) -> None:
        with self._process.lock:
            ready, self._ready = self._ready, []
        for awaited in ready:
            if not awaited.future.done():
                self._resolve(awaited)

    # -- reading ----------------------------------------------------------------------------------------

    def _begin_reading(self) -> None:
        reactor, loop = self._process.reactor, self._loop()
        if self._alert is None and loop is not None:
            alert = select.epoll()
            alert.register(reactor.fileno(), select.EPOLLIN | select.EPOLLET)
            try:
                loop.add_reader(alert.fileno(), self._read)
            except NotImplementedError:  # an event loop of another kind: other threads read
                alert.close()
                self._turns_left = sys.maxsize
                return
            self._alert = alert
        reactor.begin_loop(self)

    def stop_reading(self) -> None:
        self._process.reactor.end_loop(self)
        alert, self._alert = self._alert, None
        loop = self._loop()
        if alert is not None:
            if loop is not None and not loop.is_closed():
                loop.remove_reader(alert.fileno())
            alert.close()

    def _read(self) -> None:
        if self._alert is None:
            return
        self._alert.poll(0)
        self._reading = True
        try:
            found = self._process.reactor.poll_now()
        finally:  # also when a handler of a signal has raised
            with self._process.lock:
                self._reading = False
            self._take()
        loop = asyncio.get_running_loop()
        if found:
            loop.call_soon(self._read)  # it is not alerted again to what is still there
        elif found is None and self._process.reactor.led:
            self.stop_reading()
            self._turns_left = PASSES_AFTER_VAIN
        elif found is None:
            loop.call_later(AGAIN_S, self._read)  # the background thread lets go
        elif not self._missing:
            self.stop_reading()


class EventLoops:
    """Of one process."""

    def __init__(self, process: Process, waiting: Waiting, values: Values) -> None:
        self._process = process
        self._waiting = waiting
        self._values = values
        self._sides: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopSide] = weakref.WeakKeyDictionary()
        #: The one that has awaited something last: in most processes there is no other.
        self._last: tuple[Callable[[], asyncio.AbstractEventLoop | None], _LoopSide | None] = (_no_loop, None)

    def close(self) -> None:
        """The session ends. Its loops may live on."""
        for loop, side in list(self._sides.items()):
            with contextlib.suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(side.stop_reading)

    def future(self, ref: ObjectRef[Any], with_value: bool = True) -> asyncio.Future[Any]:
        """Of the running loop: the value of the object, or its error. Without ``with_value`` it is None, and done when
        the object is ready, whatever that is."""
        loop = asyncio.get_running_loop()
        last, side = self._last
        if side is None or last() is not loop:
            side = self._side(loop)
            self._last = weakref.ref(loop), side
        awaited = _Awaited(side, ref, loop.create_future(), with_value)
        if ref._entry.state != PENDING or not side.watch(awaited):
            self._resolve(awaited)
        return awaited.future

    def _side(self, loop: asyncio.AbstractEventLoop) -> _LoopSide:
        side = self._sides.get(loop)
        if side is None:
            side = self._sides[loop] = _LoopSide(loop, self._process, self._waiting, self._resolve)
        return side

    def _resolve(self, awaited: _Awaited) -> None:
        future, entry = awaited.future, awaited.ref._entry
        if not awaited.with_value:
            future.set_result(None)
            return
        try:
            plain = entry.state == INLINE and entry.contained is None
            value = loads(entry.payload) if plain else self._values.value_now(entry)
        except NotReady:
            if not awaited._side.watch(awaited):  # it was lost, and is being made again
                self._resolve(awaited)
        except BaseException as error:  # the future carries whatever the task raised
            future.set_exception(error)
        else:
            future.set_result(value)
