"""The raylet asks for objects back, at whatever moment of a read: none is kept that it has asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from shoal._net.reactor import Reactor
from shoal._store import local
from shoal._store.local import LocalStore
from shoal._values.serialization import serialize
from shoal_common.channel import frames

OBJECT = b"a" * 24
VALUE = np.arange(1000)


class Raylet:
    """Has one object, until it is freed: whoever has pinned it by then is asked for it back, once."""

    closed = False

    def __init__(self, arena_fd: int) -> None:
        serialized = serialize(VALUE)
        self.size = serialized.packed_size
        data = bytearray(self.size)
        serialized.write_packed(memoryview(data))
        os.pwrite(arena_fd, data, 0)
        self.pins = self.asked = 0
        self.store = LocalStore(Reactor(), arena_fd, 1 << 20, b"w")
        self.store.attach(self)  # type: ignore[arg-type]
        #: Happens when the answer has arrived.
        self.then: Callable[[], None] = lambda: None

    def free(self) -> None:
        self.store.on_uncache(frames.ObjectUncache([OBJECT]))

    def send(self, message: Any) -> None:
        assert isinstance(message, frames.ObjectGet)
        self.pins += 1
        self.asked += 1
        self.store.on_answer(frames.ObjectLocated(message.request, 0, self.size))
        self.then()

    def send_together(self, messages: Any) -> None:
        for message in messages:
            if isinstance(message, frames.ObjectUnpin):
                self.pins -= 1
            else:
                self.send(message)


@pytest.fixture
def raylet() -> Iterator[Raylet]:
    fd = os.memfd_create("arena")
    os.ftruncate(fd, 1 << 20)
    raylet = Raylet(fd)
    yield raylet
    raylet.store.close()
    raylet.store._reactor.stop()


def read(raylet: Raylet) -> None:
    assert (raylet.store.load(OBJECT) == VALUE).all()
    raylet.store.release_unpinned()


def test_before_its_answer_is_used(raylet: Raylet) -> None:
    raylet.then = raylet.free
    read(raylet)
    assert raylet.pins == 0 and not raylet.store.is_here(OBJECT), "the next read asks"


def test_before_the_answer_to_a_question_asked_ahead_is_used(raylet: Raylet) -> None:
    with raylet.store.asked_together({OBJECT: b""}):
        raylet.free()
        read(raylet)
    assert raylet.pins == 0


def test_while_it_is_unpacked(raylet: Raylet, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(view: memoryview) -> Any:
        raylet.free()
        return unpack_(view)

    unpack_ = local.unpack
    monkeypatch.setattr(local, "unpack", unpack)
    read(raylet)
    assert raylet.pins == 0


def test_while_its_value_is_used_and_read_again(raylet: Raylet) -> None:
    value = raylet.store.load(OBJECT)
    raylet.free()
    read(raylet)
    assert raylet.asked == 1 and raylet.pins == 1, "it is here as long as its value is"
    del value
    raylet.store.release_unpinned()
    assert raylet.pins == 0


def test_what_is_asked_for_afterwards_is_kept(raylet: Raylet) -> None:
    raylet.free()
    read(raylet)
    read(raylet)
    assert raylet.asked == 1 and raylet.pins == 1
