"""Several objects are asked for in one go, and each answer is used once or given back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from shoal._net.reactor import Reactor
from shoal._store.local import LocalStore
from shoal._values.serialization import serialize
from shoal_common.channel import frames

A, B = b"a" * 24, b"b" * 24
VALUE = {"k": 1}


class Raylet:
    """Has every object, and notes what comes, by the go."""

    closed = False

    def __init__(self) -> None:
        serialized = serialize(VALUE)
        self.size = serialized.packed_size
        self.arena_fd = os.memfd_create("arena")
        os.ftruncate(self.arena_fd, 1 << 20)
        data = bytearray(self.size)
        serialized.write_packed(memoryview(data))
        os.pwrite(self.arena_fd, data, 0)
        self.reactor = Reactor()
        self.store = LocalStore(self.reactor, os.dup(self.arena_fd), 1 << 20, b"w")
        self.store.attach(self)  # type: ignore[arg-type]
        self.goes: list[list[Any]] = []
        self.pins: Counter[bytes] = Counter()

    def send(self, message: Any) -> None:
        self.send_together([message])

    def send_together(self, messages: Iterable[Any]) -> None:
        self.goes.append(list(messages))
        for message in self.goes[-1]:
            if isinstance(message, frames.ObjectUnpin):
                self.pins[message.object_id] -= 1
            else:
                self.pins[message.object_id] += 1
                self.store.on_answer(frames.ObjectLocated(message.request, 0, self.size))

    def close(self) -> None:
        self.store.close()
        os.close(self.arena_fd)
        self.reactor.stop()


@pytest.fixture
def raylet() -> Iterator[Raylet]:
    raylet = Raylet()
    yield raylet
    raylet.close()


def asked(raylet: Raylet) -> list[list[bytes]]:
    return [[message.object_id for message in go if isinstance(message, frames.ObjectGet)] for go in raylet.goes]


def test_one_go_for_all(raylet: Raylet) -> None:
    with raylet.store.asked_together({A: b"", B: b""}):
        assert [raylet.store.load(A), raylet.store.load(B), raylet.store.load(A)] == [VALUE] * 3
    assert asked(raylet) == [[A, B]] and raylet.pins == {A: 1, B: 1}


def test_an_answer_is_used_once(raylet: Raylet) -> None:
    with raylet.store.asked_together({A: b""}):
        raylet.store.load(A)
        raylet.store.uncache([A])
        assert raylet.pins[A] == 0
        assert raylet.store.load(A) == VALUE
    assert raylet.pins[A] == 1


def test_what_is_not_loaded_is_given_back(raylet: Raylet) -> None:
    with pytest.raises(KeyError), raylet.store.asked_together({A: b"", B: b""}):
        raylet.store.load(B)
        raise KeyError
    assert raylet.pins == {A: 0, B: 1}
    raylet.store.load(A)
    assert asked(raylet)[-1] == [A]


def test_pins_that_ended_are_told_in_one_go(raylet: Raylet) -> None:
    with raylet.store.asked_together({A: b"", B: b""}):
        raylet.store.load(A)
        raylet.store.load(B)
    raylet.store.uncache([A, B])
    assert {message.object_id for message in raylet.goes[-1]} == {A, B} and raylet.pins == {A: 0, B: 0}
