"""Values as futures of asyncio: one wake-up, and one message, for many."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any, cast

import pytest
from support.processes import PATIENCE_S

from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._owner.event_loops import EventLoops
from shoal._owner.process import Process
from shoal._owner.values import NotReady, Values
from shoal._owner.waiting import Waiting
from shoal._wire.value_kinds import INLINE


class World:
    """A process, its objects and what is asked of it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.flushes = 0
        self.watchers: list[tuple[ObjectEntry, Any]] = []
        self.lost: set[bytes] = set()
        self.watched = asyncio.Event()
        self.loops = EventLoops(cast(Process, self), cast(Waiting, self), cast(Values, self))

    def flush(self) -> None:
        self.flushes += 1

    def watch(self, entry: ObjectEntry, watcher: Any) -> None:
        self.watchers.append((entry, watcher))
        self.watched.set()

    def value_now(self, entry: ObjectEntry) -> bytes:
        if entry.object_id in self.lost:
            self.lost.discard(entry.object_id)
            entry.state = 0
            raise NotReady
        if entry.payload == b"error":
            raise ValueError("no")
        return entry.payload

    def settle(self, payload: bytes = b"value") -> None:
        """All that is awaited, from another thread."""

        def come() -> None:
            with self.lock:
                watchers, self.watchers = self.watchers, []
                for entry, watcher in watchers:
                    entry.state, entry.payload = INLINE, payload
                    watcher.ready(entry)

        thread = threading.Thread(target=come)
        thread.start()
        thread.join()


def refs(count: int) -> list[ObjectRef[Any]]:
    return [ObjectRef(ObjectEntry(bytes([number]))) for number in range(count)]


def test_many_wake_their_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    wakes: list[Any] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def count(*call: Any) -> None:
            wakes.append(call)
            wake(*call)

        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        futures = [world.loops.value(ref) for ref in refs(50)]
        ready = [world.loops.ready(ref) for ref in refs(50)]
        await asyncio.sleep(0)
        world.settle()
        assert await asyncio.gather(*futures) == [b"value"] * 50
        assert await asyncio.gather(*ready) == [None] * 50

    asyncio.run(run())
    assert len(wakes) == 1
    assert world.flushes == 1


def test_what_is_there_needs_no_wait() -> None:
    world = World()
    [ref] = refs(1)
    ref._entry.state, ref._entry.payload = INLINE, b"here"

    async def run() -> None:
        assert world.loops.value(ref).result() == b"here"

    asyncio.run(run())
    assert world.flushes == 0


def test_errors_and_those_who_no_longer_wait() -> None:
    world = World()

    async def run() -> None:
        failed, cancelled = [world.loops.value(ref) for ref in refs(2)]
        cancelled.cancel()
        world.settle(b"error")
        with pytest.raises(ValueError, match="no"):
            await failed

    asyncio.run(run())


def test_what_is_lost_is_waited_for_again() -> None:
    world = World()
    [ref] = refs(1)
    world.lost.add(ref.binary())

    async def run() -> None:
        future = world.loops.value(ref)
        world.watched.clear()
        world.settle()
        await asyncio.wait_for(world.watched.wait(), PATIENCE_S)
        world.settle(b"made again")
        assert await future == b"made again"

    asyncio.run(run())


def test_a_loop_that_is_over_is_forgotten() -> None:
    world = World()
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        world.loops.value(refs(1)[0])

    loop.run_until_complete(begin())
    loop.close()
    world.settle()
    over = weakref.ref(loop)
    del loop
    gc.collect()
    assert over() is None
