"""Pieces of the arena: small objects that come one soon after the other are written without asking."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from shoal import exceptions
from shoal._net.reactor import Reactor
from shoal._store import pieces as pieces_module
from shoal._store.local import LocalStore
from shoal._store.pieces import MAX_BYTES, PIECE_BYTES
from shoal_common.channel import frames
from shoal_common.kinds import StoreErrorKind

OWNER = b"o" * 16
KB = 1024


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Raylet:
    """Gives pieces from the arena's begin on, and room for single objects behind them."""

    closed = False

    def __init__(self) -> None:
        self.arena_fd = os.memfd_create("arena")
        os.ftruncate(self.arena_fd, 16 * PIECE_BYTES)
        self.reactor = Reactor()
        self.store = LocalStore(self.reactor, os.dup(self.arena_fd), 16 * PIECE_BYTES, b"w")
        self.store.attach(self)  # type: ignore[arg-type]
        self.sent: list[Any] = []
        self.granted = 0
        self.refuses = False
        self.unsent = False

    def has_unsent(self) -> bool:
        return self.unsent

    def send(self, message: Any) -> None:
        self.sent.append(message)
        error = frames.StoreError(StoreErrorKind.STORE_FULL, "refused")
        if isinstance(message, frames.ObjectCreate):
            self.store.on_answer(frames.ObjectCreated(message.request, 8 * PIECE_BYTES))
        elif isinstance(message, frames.PieceGet) and (self.refuses or not message.size):
            self.store.on_answer(frames.ObjectCreated(message.request, 0, error))
        elif isinstance(message, frames.PieceGet):
            self.store.on_answer(frames.ObjectCreated(message.request, self.granted * PIECE_BYTES))
            self.granted += 1

    def send_together(self, messages: Iterable[Any]) -> None:
        for message in messages:
            self.send(message)

    def write(self, number: int, size: int = 200 * KB) -> list[Any]:
        """What is sent for it."""
        before = len(self.sent)
        object_id = number.to_bytes(24, "big")
        with self.store.create(object_id, size, OWNER) as view:
            view[:8] = number.to_bytes(8, "big")
        self.store.seal(object_id)
        return self.sent[before:]

    def read(self, offset: int) -> int:
        return int.from_bytes(os.pread(self.arena_fd, 8, offset), "big")

    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.sent]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pieces_module, "time", clock)
    return clock


@pytest.fixture
def raylet(clock: Clock) -> Iterator[Raylet]:
    raylet = Raylet()
    yield raylet
    raylet.store.close()
    os.close(raylet.arena_fd)
    raylet.reactor.stop()


def test_from_the_third_object_on_nothing_is_asked_but_the_next_piece(raylet: Raylet) -> None:
    raylet.write(1)
    raylet.write(2)
    assert raylet.kinds() == ["ObjectCreate", "ObjectSeal", "PieceGet", "ObjectCreate", "ObjectSeal"]
    for number in range(3, 40):
        *others, placed = raylet.write(number)
        assert isinstance(placed, frames.ObjectPlaced)
        assert all(isinstance(other, frames.PieceGet) for other in others)
        assert (placed.size, placed.owner, raylet.read(placed.offset)) == (200 * KB, OWNER, number)
    assert raylet.granted == 3, "one is held and the next one asked for when half of it is used"


def test_one_now_and_then_holds_nothing(raylet: Raylet, clock: Clock) -> None:
    for number in range(5):
        raylet.write(number)
        clock.now += 1
    assert "PieceGet" not in raylet.kinds()


def test_large_objects_are_asked_for(raylet: Raylet) -> None:
    for number in range(5):
        raylet.write(number, MAX_BYTES + 1)
    assert raylet.kinds() == ["ObjectCreate", "ObjectSeal"] * 5


def test_what_is_not_used_is_given_back(raylet: Raylet, clock: Clock) -> None:
    for number in range(3):
        raylet.write(number)
    assert raylet.store.tick(), "it holds a piece, and will have to be asked again"
    clock.now += 1
    assert not raylet.store.tick()
    assert raylet.sent[-1] == frames.PieceReturned(200 * KB, PIECE_BYTES - 200 * KB)


def test_others_need_room(raylet: Raylet) -> None:
    for number in range(3):
        raylet.write(number)
    raylet.store.on_uncache(frames.ObjectUncache([b"x" * 24]))
    assert isinstance(raylet.sent[-1], frames.ObjectPlaced), "that is about pins only"
    raylet.store.on_uncache(frames.ObjectUncache([]))
    assert raylet.sent[-1] == frames.PieceReturned(200 * KB, PIECE_BYTES - 200 * KB)


def test_scraps_are_given_back(raylet: Raylet) -> None:
    for number in range(30):
        raylet.write(number)
    raylet.store.tick()
    scrap = PIECE_BYTES % (200 * KB)
    assert raylet.sent[-1] == frames.PieceReturned(PIECE_BYTES - scrap, scrap)


def test_an_object_that_is_given_up_leaves_its_bytes(raylet: Raylet) -> None:
    for number in range(3):
        raylet.write(number)
    raylet.store.create(b"x" * 24, 100 * KB, OWNER).release()
    raylet.store.abort(b"x" * 24)
    assert raylet.sent[-1] == frames.PieceReturned(200 * KB, 100 * KB)


def test_after_a_refusal_nothing_is_asked_for_a_while(raylet: Raylet, clock: Clock) -> None:
    raylet.refuses = True
    for number in range(20):
        raylet.write(number)
    assert raylet.kinds().count("PieceGet") == 1
    clock.now += 2
    raylet.write(20)
    raylet.write(21)
    assert raylet.kinds().count("PieceGet") == 2


def test_what_the_kernel_has_not_taken_is_waited_for(raylet: Raylet) -> None:
    for number in range(3):
        raylet.write(number)
    raylet.unsent = True
    placed, question = raylet.write(3)
    assert isinstance(placed, frames.ObjectPlaced)
    assert isinstance(question, frames.PieceGet)
    assert question.size == 0


def test_a_raylet_that_dies_refuses(raylet: Raylet) -> None:
    raylet.write(1)
    raylet.closed = True
    raylet.send = raylet.sent.append  # type: ignore[method-assign]
    with pytest.raises(exceptions.LocalRayletDiedError):
        raylet.write(2)
