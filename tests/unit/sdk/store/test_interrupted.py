"""What the object store gives is given back, at whatever moment an exception out of a signal's handler comes."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import pytest

from shoal._net import interrupts
from shoal._net.reactor import Reactor
from shoal._store.client import StoreClient
from shoal._store.local import LocalStore
from shoal._store.remote import RemoteStore
from shoal._values.serialization import serialize
from shoal_common.channel import frames

OBJECT = b"o" * 24
VALUE = list(range(1000))
ARENA_BYTES = 1 << 20


class Raylet:
    """Has one object. Answers at once, or when the store polls its sockets."""

    closed = False

    def __init__(self, reactor: Reactor, at_once: bool) -> None:
        self.store: StoreClient
        self.pins: Counter[bytes] = Counter()
        serialized = serialize(VALUE, "")
        self.size = serialized.packed_size
        self.arena_fd = os.memfd_create("arena")
        os.ftruncate(self.arena_fd, ARENA_BYTES)
        data = bytearray(self.size)
        serialized.write_packed(memoryview(data))
        self.data = bytes(data)
        os.pwrite(self.arena_fd, self.data, 0)
        self._at_once = at_once
        self._answers: list[Any] = []
        self._reactor = reactor
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        reactor.add_reader(self._bell, self._answer)

    def send(self, message: Any) -> None:
        match message:
            case frames.ObjectGet():
                self._say(frames.ObjectLocated(message.request, 0, self.size))
            case frames.ObjectRead():
                part = self.data[message.offset : message.offset + message.length]
                self._say(frames.ObjectPart(message.request, part))
            case frames.ObjectUnpin():
                self.pins[message.object_id] -= 1

    def send_together(self, messages: Iterable[Any]) -> None:
        for message in messages:
            self.send(message)

    def _say(self, answer: Any) -> None:
        self._answers.append(answer)
        if self._at_once:
            with interrupts.uncut():
                self._answer()
        else:
            os.eventfd_write(self._bell, 1)

    def _answer(self) -> None:
        while self._answers:
            answer = self._answers.pop()
            if isinstance(answer, frames.ObjectLocated):
                self.pins[OBJECT] += 1
            self.store.on_answer(answer)

    def settle(self) -> None:
        """Everything that is on its way arrives."""
        self._answer()
        self._reactor.poll_now()

    def close(self) -> None:
        self._reactor.remove_reader(self._bell)
        os.close(self._bell)


class Struck(Exception):
    pass


def strike(signum: int, frame: object) -> None:
    raise Struck


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, strike)
    interrupts.take_over()
    yield
    interrupts.give_back()
    signal.signal(signal.SIGUSR1, before)


def passes(run: Callable[[], object], strike_at: int) -> tuple[int, bool]:
    """How many byte codes ``run`` passes in Shoal, struck at one of them, and whether that cut it short."""
    passed = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_globals.get("__name__", "").startswith("shoal."):
            return None
        frame.f_trace_opcodes = True
        return at_opcode

    def at_opcode(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal passed
        if event == "opcode":
            passed += 1
            if passed == strike_at:
                signal.raise_signal(signal.SIGUSR1)
        return at_opcode

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for one such frame when tracing begins
    sys.settrace(trace)
    try:
        run()
    except Struck:
        return passed, True
    finally:
        sys.settrace(before)
    return passed, False


def load(store: StoreClient, timeout: float | None) -> Any:
    return store.load(OBJECT, b"", timeout)


def load_asked(store: StoreClient, timeout: float | None) -> Any:
    with store.asked_together({OBJECT: b""}):
        return store.load(OBJECT, b"", timeout)


def ask_only(store: StoreClient, timeout: float | None) -> None:
    with store.asked_together({OBJECT: b""}):
        pass


@pytest.mark.parametrize("way", [load, load_asked, ask_only])
@pytest.mark.parametrize(
    ("at_once", "timeout"),
    [(True, None), (False, None), (False, 0.0)],
    ids=["answered at once", "answered later", "answered too late"],
)
@pytest.mark.parametrize("shared", [True, False], ids=["local", "remote"])
def test_every_pin_ends(
    shared: bool, at_once: bool, timeout: float | None, way: Callable[[StoreClient, float | None], Any]
) -> None:
    reactor = Reactor()
    raylet = Raylet(reactor, at_once)

    def new_store() -> StoreClient:
        store = LocalStore(reactor, os.dup(raylet.arena_fd), ARENA_BYTES, b"w") if shared else RemoteStore(reactor)
        store.attach(raylet)  # type: ignore[arg-type]
        raylet.store = store
        return store

    def load_and_forget(strike_at: int) -> tuple[int, bool]:
        store = new_store()
        result = passes(lambda: way(store, timeout), strike_at)
        raylet.settle()
        store.uncache([OBJECT])
        gc.collect(0)
        store.release_unpinned()
        store.close()
        return result

    try:
        assert new_store().load(OBJECT) == VALUE
        raylet.pins.clear()
        length, _ = load_and_forget(0)
        assert raylet.pins[OBJECT] == 0
        cut_short = 0
        for at in range(1, length + 1):
            _, cut = load_and_forget(at)
            cut_short += cut
            assert raylet.pins[OBJECT] == 0, at
        assert cut_short > length / 3
    finally:
        raylet.close()
        os.close(raylet.arena_fd)
        reactor.stop()
