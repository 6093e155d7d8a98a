"""Values as futures of asyncio: one wake-up, and one message, for many."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest
from support.processes import PATIENCE_S, eventually

from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._net.reactor import Reactor
from shoal._net.waiter import Waiter
from shoal._owner.objects.event_loops import EventLoops
from shoal._owner.objects.values import NotReady, Values
from shoal._owner.objects.waiting import CallbackWatcher, Waiting
from shoal._owner.process import Process
from shoal._wire.value_kinds import BYTES


class World:
    """A process, its objects and what is asked of it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.flushes = 0
        self.watchers: list[tuple[ObjectEntry, Any]] = []
        self.lost: set[bytes] = set()
        self.watched = asyncio.Event()
        self.closed = False
        #: Its background thread is not started.
        self.reactor = Reactor()
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
        thread = threading.Thread(target=self.come, args=(payload,))
        thread.start()
        thread.join()

    def come(self, payload: bytes = b"value") -> None:
        with self.lock:
            watchers, self.watchers = self.watchers, []
            for entry, watcher in watchers:
                entry.state, entry.payload = BYTES, payload
                watcher.ready(entry)


class Wire:
    """Each byte that is written to ``end`` brings all that is awaited."""

    def __init__(self, world: World) -> None:
        self.read_by: list[int] = []
        self._world = world
        self._begin, self.end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        world.reactor.register(self._begin, self._read)

    def _read(self, mask: int) -> None:
        os.read(self._begin, 1)
        self.read_by.append(threading.get_ident())
        self._world.come()

    def close(self) -> None:
        self._world.reactor.stop()
        os.close(self._begin)
        os.close(self.end)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def wire(world: World) -> Iterator[Wire]:
    wire = Wire(world)
    yield wire
    wire.close()


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
        futures = [world.loops.future(ref) for ref in refs(50)]
        ready = [world.loops.future(ref, with_value=False) for ref in refs(50)]
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
    ref._entry.state, ref._entry.payload = BYTES, b"here"

    async def run() -> None:
        assert world.loops.future(ref).result() == b"here"

    asyncio.run(run())
    assert world.flushes == 0


def test_errors_and_those_who_no_longer_wait() -> None:
    world = World()

    async def run() -> None:
        failed, cancelled = [world.loops.future(ref) for ref in refs(2)]
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
        future = world.loops.future(ref)
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
        world.loops.future(refs(1)[0])

    loop.run_until_complete(begin())
    loop.close()
    world.settle()
    over = weakref.ref(loop)
    del loop
    gc.collect()
    assert over() is None


def test_a_loop_that_waits_reads_itself(world: World, wire: Wire) -> None:
    async def run() -> None:
        for _ in range(3):
            future = world.loops.future(refs(1)[0])
            threading.Thread(target=os.write, args=(wire.end, b"x")).start()
            assert await asyncio.wait_for(future, PATIENCE_S) == b"value"

    asyncio.run(run())
    assert wire.read_by == [threading.get_ident()] * 3
    asyncio.run(run())
    assert wire.read_by == [threading.get_ident()] * 6, "another loop"


def test_a_loop_that_is_busy_has_another_thread_read(world: World, wire: Wire) -> None:
    world.reactor.start()
    done = threading.Event()

    async def run() -> None:
        world.loops.future(refs(1)[0])
        await asyncio.sleep(0)
        future = world.loops.future(refs(1)[0])
        world.watch(ObjectEntry(b"another"), CallbackWatcher(done.set))
        os.write(wire.end, b"x")
        assert done.wait(PATIENCE_S), "while this turn lasts"
        assert await asyncio.wait_for(future, PATIENCE_S) == b"value"

    asyncio.run(run())
    assert threading.get_ident() not in wire.read_by


def test_a_loop_leaves_the_sockets_to_a_thread_that_waits(world: World, wire: Wire) -> None:
    waiter = Waiter()
    thread = threading.Thread(target=world.reactor.wait, args=(waiter,))
    thread.start()
    eventually(lambda: world.reactor.led, "it waits")

    async def run() -> None:
        for _ in range(3):
            future = world.loops.future(refs(1)[0])
            os.write(wire.end, b"x")
            assert await asyncio.wait_for(future, PATIENCE_S) == b"value"

    asyncio.run(run())
    world.reactor.finish(waiter)
    thread.join()
    assert wire.read_by == [thread.ident] * 3


def test_a_loop_reads_nothing_once_nothing_is_awaited(world: World, wire: Wire) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        future = world.loops.future(refs(1)[0])
        await asyncio.sleep(0)
        [side] = world.loops._sides.values()
        assert world.reactor.has_loop(side)
        os.write(wire.end, b"x")
        await future
        for _ in range(3):  # it looks once more whether there is something left
            await asyncio.sleep(0)
        assert not world.reactor.has_loop(side)
        assert not loop._selector.get_map().keys() - before  # type: ignore[attr-defined]

    loop = asyncio.new_event_loop()
    before = set(loop._selector.get_map())  # type: ignore[attr-defined]
    loop.run_until_complete(run())
    loop.close()
