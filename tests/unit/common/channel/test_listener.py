"""Who comes in has a place and a time to prove itself, and strangers do not keep others out."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shoal_common.channel import listener as module
from shoal_common.channel import tcp
from shoal_common.channel.listener import MAX_NEWCOMERS, Listener


class Loop:
    """A poller whose time is in the test's hands."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readers: dict[int, Callable[[], Any]] = {}
        self.timers: list[tuple[float, Callable[[], Any]]] = []

    def add_reader(self, fd: int, callback: Callable[[], Any]) -> None:
        assert fd not in self.readers
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def call_later(self, delay: float, callback: Callable[[], Any]) -> None:
        self.timers.append((self.now + delay, callback))

    def turn(self) -> None:
        for callback in list(self.readers.values()):
            callback()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [callback for at, callback in self.timers if at <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for callback in due:
            callback()


class Newcomer:
    def __init__(self, sock: Any, place: Place) -> None:
        self.sock = sock
        self.place = place
        self.reason = ""

    def close(self, reason: str) -> None:
        self.reason = reason
        self.sock.close()
        self.place.listener.settled(self)


class Place:
    def __init__(self) -> None:
        self.loop = Loop()
        self.newcomers: list[Newcomer] = []
        self.errors: list[OSError] = []
        self.sock = tcp.listen("127.0.0.1", 0)
        self.clients: list[socket.socket] = []
        self.listener = Listener(self.sock, self.loop, None, self._accepted, self.errors.append, timeout_s=10.0)

    def _accepted(self, sock: Any, peer: str) -> Newcomer:
        assert peer == "127.0.0.1"
        self.newcomers.append(Newcomer(sock, self))
        return self.newcomers[-1]

    def connect(self, count: int = 1) -> None:
        for _ in range(count):
            self.clients.append(socket.create_connection(self.sock.getsockname(), timeout=30))

    def close(self) -> None:
        self.listener.close()
        for newcomer in self.newcomers:
            newcomer.sock.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place()
    monkeypatch.setattr(module.time, "monotonic", lambda: place.loop.now)
    yield place
    place.close()


def test_strangers_wait_in_the_kernel_and_give_way(place: Place) -> None:
    place.connect(MAX_NEWCOMERS + 5)
    place.loop.turn()
    assert len(place.newcomers) == MAX_NEWCOMERS
    assert not place.loop.readers
    place.loop.advance(1.0)  # nobody has proved itself
    assert all("others wait" in newcomer.reason for newcomer in place.newcomers)
    place.loop.turn()
    assert len(place.newcomers) == MAX_NEWCOMERS + 5


def test_who_proves_itself_makes_room_at_once_and_stays(place: Place) -> None:
    place.connect(MAX_NEWCOMERS + 1)
    place.loop.turn()
    honest = place.newcomers[3]
    place.listener.settled(honest)
    place.loop.turn()
    assert len(place.newcomers) == MAX_NEWCOMERS + 1
    place.loop.advance(20.0)
    assert not honest.reason


def test_the_handshake_has_its_time_and_no_more(place: Place) -> None:
    place.connect()
    place.loop.turn()
    place.loop.advance(6.0)
    place.connect()
    place.loop.turn()
    place.loop.advance(4.0)
    assert [newcomer.reason for newcomer in place.newcomers] == ["no handshake within 10 s", ""]
    place.loop.advance(6.0)
    assert place.newcomers[1].reason == "no handshake within 10 s"
    assert not place.loop.timers


def test_connections_that_come_and_go_leave_nothing_behind(place: Place) -> None:
    for _ in range(20):
        place.connect()
        place.loop.turn()
        place.newcomers[-1].close("gone")
    assert len(place.loop.timers) == 1


def test_without_descriptors_it_looks_away_for_a_while(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.connect()
    with monkeypatch.context() as patch:

        class Out:
            def accept(self) -> None:
                raise OSError(24, "Too many open files")

            def fileno(self) -> int:
                return place.sock.fileno()

        patch.setattr(place.listener, "sock", Out())
        place.loop.turn()
    assert [error.errno for error in place.errors] == [24]
    assert not place.loop.readers
    place.loop.advance(1.0)
    place.loop.turn()
    assert len(place.newcomers) == 1


def test_a_closed_listener_is_not_watched_again(place: Place) -> None:
    place.connect(MAX_NEWCOMERS + 1)
    place.loop.turn()
    place.listener.close()
    place.loop.advance(1.0)
    assert not place.loop.readers
