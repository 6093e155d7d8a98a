"""The items of running generators, on their way to their callers.

An item is sent at once when the last one was sent a while ago. What follows within a millisecond is sent together: when
that is over, when it fills a message, or with an item that lies in the object store. So no item waits for a later one,
and a fast generator costs few messages.

A generator pauses, between two items, while its caller has left too many of them unread (``backpressure``) or leaves
its connection unread. It is closed there when nobody wants any more of it.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal._core.batches import MESSAGE_BYTES
from shoal._executor.replies import item_value
from shoal._net.interrupts import GuardedLock
from shoal._net.waiter import Waiter
from shoal._wire.peer_frames import TaskPush, TaskYields, Value
from shoal._wire.value_kinds import STORED

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

#: Items are held back to be sent together for so many seconds at most.
GATHER_S = 0.001
#: A paused generator lends its CPU after so many seconds.
LEND_AFTER_S = 0.1


class Yields:
    """Of one generator. ``put`` and the waits are for the thread, or event loop, that runs it; ``items_read``, ``stop``
    and the flush of what was held back come from the leading thread."""

    def __init__(self, core: CoreWorker, caller: bytes, push: TaskPush) -> None:
        self.caller = caller
        self._core = core
        self._push = push
        self._lock = GuardedLock()
        #: Not sent yet.
        self._values: list[Value] = []
        self._bytes = 0
        self._sent_at = 0.0
        #: Items before ``_values``.
        self._sent = 0
        self._read = 0
        #: Nobody wants more of it.
        self._stopped = False
        #: Told when ``must_wait`` may have changed.
        self._wake: Callable[[], object] | None = None

    @property
    def count(self) -> int:
        """Items so far."""
        return self._sent + len(self._values)

    @property
    def stopped(self) -> bool:
        return self._stopped

    def put(self, value: Value) -> None:
        """The next item."""
        with self._lock:
            self._values.append(value)
            self._bytes += len(value.payload)
            now = time.monotonic()
            if value.kind == STORED or self._bytes >= MESSAGE_BYTES or now - self._sent_at >= GATHER_S:
                self._send(now)
            elif len(self._values) == 1:
                self._core.reactor.call_later(GATHER_S, self.flush)

    def flush(self) -> None:
        """Send what was held back."""
        with self._lock:
            if self._values:
                self._send(time.monotonic())

    def _send(self, now: float) -> None:
        values, self._values = self._values, []
        message = TaskYields(self._push.task_id, self._push.attempt, self._sent, values)
        self._sent += len(values)
        self._bytes, self._sent_at = 0, now
        with self._core.lock:
            self._core.borrowing.send_after_acks(self.caller, message)

    # -- pauses -------------------------------------------------------------------------------------

    @property
    def must_wait(self) -> bool:
        if self._stopped:
            return False
        limit = self._push.backpressure
        return (limit > 0 and self.count - self._read >= limit) or not self._core.peers.has_room(self.caller)

    def wait(self) -> None:
        """Until it may go on. Its CPU is lent meanwhile, so that whoever is to read gets one."""
        self.flush()
        assert self._core.blocking is not None
        with self._core.blocking(LEND_AFTER_S):
            while True:
                waiter = Waiter()
                self._wake = partial(self._core.reactor.finish, waiter)
                if not self._still_waits():
                    break
                self._core.reactor.wait(waiter)
        self._wake = None

    async def wait_async(self) -> None:
        """As ``wait``, on an event loop."""
        self.flush()
        loop = asyncio.get_running_loop()
        while True:
            event = asyncio.Event()
            self._wake = partial(loop.call_soon_threadsafe, event.set)
            if not self._still_waits():
                break
            await event.wait()
        self._wake = None

    def _still_waits(self) -> bool:
        """If so, ``_wake`` will be called."""
        with self._core.lock:
            if self.must_wait and not self._core.peers.has_room(self.caller):
                return self._core.peers.when_drained(self.caller, self, self._look_again) or self.must_wait
            return self.must_wait

    def _look_again(self) -> None:
        if self._wake is not None:
            self._wake()

    def items_read(self, count: int) -> None:
        self._read = max(self._read, count)
        self._look_again()

    def stop(self) -> None:
        self._stopped = True
        self._look_again()


class Yielding:
    """All generators that run in this worker."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._running: dict[bytes, Yields] = {}

    def iterate(self, caller: bytes, push: TaskPush, generator: Any) -> tuple[int, Exception | None]:
        """A generator until its end, until it raises or until nobody wants more of it. How many items it has yielded,
        all of which are on their way; and what it raised, or what was wrong with an item."""
        yields = self._begin(caller, push)
        try:
            _check_generator(push, generator)
            for item in generator:
                yields.put(item_value(self._core, caller, push, yields.count, item))
                del item
                if yields.must_wait:
                    yields.wait()
                if yields.stopped:
                    generator.close()
                    break
        except Exception as error:  # its caller gets it as an item
            return yields.count, error
        finally:
            self._end(push, yields)
        return yields.count, None

    async def iterate_async(self, caller: bytes, push: TaskPush, generator: Any) -> tuple[int, Exception | None]:
        """As ``iterate``, on an event loop, where a plain generator lets others run after each item."""
        yields = self._begin(caller, push)
        is_async = inspect.isasyncgen(generator)
        try:
            if not is_async:
                _check_generator(push, generator)
            async for item in generator if is_async else _in_turns(generator):
                yields.put(item_value(self._core, caller, push, yields.count, item))
                del item
                if yields.must_wait:
                    await yields.wait_async()
                if yields.stopped:
                    if is_async:
                        await generator.aclose()
                    else:
                        generator.close()
                    break
        except Exception as error:  # its caller gets it as an item
            return yields.count, error
        finally:
            self._end(push, yields)
        return yields.count, None

    def _begin(self, caller: bytes, push: TaskPush) -> Yields:
        yields = self._running[push.task_id] = Yields(self._core, caller, push)
        return yields

    def _end(self, push: TaskPush, yields: Yields) -> None:
        self._running.pop(push.task_id, None)
        yields.flush()

    def items_read(self, task_id: bytes, count: int) -> None:
        yields = self._running.get(task_id)
        if yields is not None:
            yields.items_read(count)

    def stop(self, task_id: bytes) -> None:
        """It is closed where it yields next."""
        yields = self._running.get(task_id)
        if yields is not None:
            yields.stop()

    def caller_gone(self, worker_id: bytes) -> None:
        for yields in list(self._running.values()):
            if yields.caller == worker_id:
                yields.stop()


def _check_generator(push: TaskPush, result: Any) -> None:
    """Raises: TypeError."""
    if not inspect.isgenerator(result):
        raise TypeError(
            f"{push.name} is to stream its results, but returned a value of type {type(result).__name__}: only "
            "generators can be streamed"
        )


async def _in_turns(generator: Any) -> AsyncIterator[Any]:
    for item in generator:
        yield item
        await asyncio.sleep(0)
