"""How the items of a generator travel: none waits for a later one, few messages for many, and pauses."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from shoal._executor import yielding
from shoal._executor.yielding import GATHER_S, Yielding
from shoal._net.waiter import Waiter
from shoal._wire.peer_frames import STREAMING, TaskPush, TaskYields
from shoal._wire.value_kinds import BYTES

CALLER, TASK = b"c" * 16, b"t" * 20


class Core:
    """A core worker that sends into a list, and whose timers go off when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(yielding, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.sent: list[TaskYields] = []
        self.timers: list[Callable[[], None]] = []
        self.paused: Callable[[], None] = lambda: None
        self.lock = threading.RLock()
        self.heard: Callable[[], object] = lambda: None
        self.borrowing = SimpleNamespace(send_after_acks=self._send)
        self.peers = SimpleNamespace(has_room=lambda _: True)
        self.reactor = SimpleNamespace(
            call_later=lambda delay, callback: self.timers.append(callback), finish=Waiter.finish, wait=self._wait
        )

    def _send(self, caller: bytes, message: TaskYields) -> None:
        self.sent.append(message)
        self.heard()

    @contextlib.contextmanager
    def blocking(self, lend_after: float) -> Iterator[None]:
        yield

    def _wait(self, waiter: Waiter) -> None:
        self.paused()
        assert waiter.done, "it would wait for ever"

    def numbers(self) -> list[list[int]]:
        """Of the items, message by message."""
        return [[int(value.payload) for value in message.values] for message in self.sent]

    def flat(self) -> list[int]:
        return [number for numbers in self.numbers() for number in numbers]


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    return Core(monkeypatch)


def push(backpressure: int = 0) -> TaskPush:
    return TaskPush(TASK, b"", "make", b"", num_returns=STREAMING, backpressure=backpressure)


def items(count: int, between: Callable[[int], object] = lambda _: None) -> Iterator[bytes]:
    for number in range(count):
        between(number)
        yield b"%d" % number


def test_the_first_goes_at_once_and_what_follows_together(core: Any) -> None:
    assert Yielding(core).iterate(CALLER, push(), items(5)) == (5, None)
    assert core.numbers() == [[0], [1, 2, 3, 4]]
    assert [message.first for message in core.sent] == [0, 1]
    assert core.sent[0].values[0].kind == BYTES


def test_an_item_is_sent_although_no_other_follows(core: Any) -> None:
    def between(number: int) -> None:
        if number == 3:
            (timer,) = core.timers
            timer()
            assert core.numbers() == [[0], [1, 2]]

    Yielding(core).iterate(CALLER, push(), items(4, between))


def test_a_slow_generator_sends_each_by_itself(core: Any) -> None:
    def between(number: int) -> None:
        core.now += GATHER_S

    Yielding(core).iterate(CALLER, push(), items(3, between))
    assert core.numbers() == [[0], [1], [2]]


def test_it_pauses_while_too_many_are_unread(core: Any) -> None:
    running = Yielding(core)
    read = []

    def reads() -> None:
        assert core.flat() == list(range(len(read) + 2)), "all are on their way"
        read.append(1)
        running.items_read(TASK, len(read))

    core.paused = reads
    assert running.iterate(CALLER, push(backpressure=2), items(5)) == (5, None)
    assert len(read) == 4


def test_it_is_closed_where_it_yields_next(core: Any) -> None:
    running = Yielding(core)
    closed = []

    def make() -> Iterator[bytes]:
        try:
            yield b"0"
            running.stop(TASK)
            yield b"1"
            raise AssertionError("it goes on")
        finally:
            closed.append(True)

    assert running.iterate(CALLER, push(), make()) == (2, None)
    assert closed


def test_it_is_closed_when_its_caller_has_gone(core: Any) -> None:
    running = Yielding(core)
    core.paused = lambda: running.caller_gone(CALLER)
    assert running.iterate(CALLER, push(backpressure=1), items(5)) == (1, None)


def test_what_it_raises_comes_behind_its_items(core: Any) -> None:
    def fails(number: int) -> None:
        if number == 2:
            raise ValueError

    count, error = Yielding(core).iterate(CALLER, push(), items(5, fails))
    assert count == 2 and isinstance(error, ValueError)
    assert core.numbers() == [[0], [1]]


def test_only_generators_are_streamed(core: Any) -> None:
    count, error = Yielding(core).iterate(CALLER, push(), [1, 2])
    assert count == 0 and isinstance(error, TypeError) and "returned a value of type list" in str(error)


def test_on_an_event_loop(core: Any) -> None:
    running = Yielding(core)

    async def make() -> Any:
        for number in range(4):
            yield b"%d" % number

    async def main() -> None:
        loop = asyncio.get_running_loop()
        core.heard = lambda: loop.call_soon(running.items_read, TASK, len(core.flat()))
        assert await running.iterate_async(CALLER, push(backpressure=1), make()) == (4, None)
        assert await running.iterate_async(CALLER, push(), items(2)) == (2, None)

    asyncio.run(main())
    assert core.flat() == [0, 1, 2, 3, 0, 1]
