"""What is sent to a peer that reads slowly, or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shoal._net import connection as module
from shoal._net.connection import Connection
from shoal._net.reactor import Reactor
from shoal_common.channel import codec, frames

#: Only a failure takes so long, in seconds.
LONG = 10.0
MESSAGE = frames.FunctionData(1, b"x" * 50_000)


class Timers:
    """Of a reactor, in the test's hands."""

    def __init__(self, reactor: Reactor, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Callable[[], Any]]] = []
        patch.setattr(reactor, "call_later", lambda delay, callback: self._timers.append((self.now + delay, callback)))
        patch.setattr(module.time, "monotonic", lambda: self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [callback for at, callback in self._timers if at <= self.now]
        self._timers = [timer for timer in self._timers if timer[0] > self.now]
        for callback in due:
            callback()


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.stop()


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(LONG)
        yield ours, theirs


@pytest.fixture
def peer(sockets: tuple[socket.socket, socket.socket]) -> socket.socket:
    return sockets[1]


@pytest.fixture
def closed() -> list[str]:
    return []


@pytest.fixture
def connection(
    reactor: Reactor, sockets: tuple[socket.socket, socket.socket], closed: list[str]
) -> Iterator[Connection]:
    connection = Connection(
        reactor, sockets[0], None, frames.RayletMessage, lambda *_: None, lambda _, reason: closed.append(reason)
    )
    yield connection
    connection.close_quietly()


def read(peer: socket.socket, count: int) -> list[Any]:
    decoder = codec.Decoder(frames.RayletMessage)
    messages: list[Any] = []
    while len(messages) < count:
        messages += decoder.feed(peer.recv(codec.READ_BYTES))
    return messages


def test_a_socket_that_comes_after_the_end_of_the_session_is_closed(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """Left to the garbage collector, it warns in the middle of something else."""
    reactor = Reactor()
    reactor.stop()
    with pytest.raises(ValueError, match="closed"):
        Connection(reactor, sockets[0], None, frames.RayletMessage, lambda *_: None, lambda *_: None)
    assert sockets[0].fileno() == -1


def test_a_peer_that_reads_slowly_gets_everything(
    reactor: Reactor, connection: Connection, peer: socket.socket, closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.codec, "MAX_UNREAD_BYTES", 100_000)
    timers = Timers(reactor, monkeypatch)
    for _ in range(40):
        connection.send(MESSAGE)
    received = 0
    while received < 40 * 50_000:
        data = peer.recv(1_000_000)  # all that the kernel has: it tells of room when most of that is gone
        assert data
        received += len(data)
        reactor.poll_now()
        timers.advance(module.STALLED_S * 0.9)
    assert not closed


def test_a_peer_that_reads_nothing_is_given_up(
    reactor: Reactor, connection: Connection, closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.codec, "MAX_UNREAD_BYTES", 100_000)
    timers = Timers(reactor, monkeypatch)
    for _ in range(40):
        connection.send(MESSAGE)
    timers.advance(module.STALLED_S / 2)
    assert not closed
    timers.advance(module.STALLED_S)
    (reason,) = closed
    assert "bytes unread" in reason and "read nothing for 10 s" in reason
    connection.send(MESSAGE)  # dropped


def test_a_peer_that_is_owed_little_may_take_its_time(
    reactor: Reactor, connection: Connection, closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = Timers(reactor, monkeypatch)
    for _ in range(40):
        connection.send(MESSAGE)
    timers.advance(3600.0)
    assert not closed


def test_who_waits_for_room_is_called_when_the_peer_has_read(
    reactor: Reactor, connection: Connection, peer: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOM_BYTES", 100_000)
    assert connection.has_room()
    assert not connection.when_drained("a", lambda: pytest.fail("there is room"))
    for _ in range(40):
        connection.send(MESSAGE)
    assert not connection.has_room()
    drained = threading.Event()
    calls: list[str] = []
    assert connection.when_drained("a", lambda: calls.append("an earlier one of the same"))
    assert connection.when_drained("a", lambda: calls.append("a"))
    assert connection.when_drained("b", drained.set)
    reactor.start()
    assert read(peer, 40) == [MESSAGE] * 40
    assert drained.wait(LONG)
    assert calls == ["a"]
    assert connection.has_room()


def test_what_cannot_be_handled_ends_the_connection_and_no_other(
    reactor: Reactor,
    connection: Connection,
    peer: socket.socket,
    closed: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(connection: Connection, messages: list[Any]) -> None:
        raise KeyError("a defect")

    reasons: list[str] = []
    ours, theirs = socket.socketpair()
    other = Connection(reactor, ours, None, frames.RayletMessage, fails, lambda _, reason: reasons.append(reason))
    with theirs:
        for sock in (theirs, peer):
            sock.sendall(codec.encode_frame(MESSAGE))
        reactor.poll_now()
        assert theirs.recv(1) == b""
    assert other.defect
    (reason,) = reasons
    assert "a defect in Shoal" in reason and "KeyError" in reason
    assert "Traceback" in caplog.text
    assert not closed and not connection.defect


def test_what_cannot_be_encoded_leaves_the_connection_as_it_was(
    reactor: Reactor, connection: Connection, peer: socket.socket
) -> None:
    with pytest.raises(UnicodeEncodeError):
        connection.send(frames.ExitIntent("kind", "\udcff"))
    connection.send(MESSAGE)
    assert read(peer, 1) == [MESSAGE]


def test_connections_that_share_their_memory_mix_nothing_up(reactor: Reactor) -> None:
    """Messages come in pieces, in turn, over two of them; what has come stays as it was."""
    memory = memoryview(bytearray(1000))
    received: list[bytes] = []

    def keep(_: Connection, messages: list[Any]) -> None:
        received.extend(message.data for message in messages)

    pairs = [socket.socketpair() for _ in range(2)]
    connections = [
        Connection(reactor, ours, None, frames.RayletMessage, keep, lambda *_: None, read_into=memory)
        for ours, _ in pairs
    ]
    sent = [bytes([65 + at]) * (50 + 700 * at) for at in range(4)]
    streams = [b"".join(codec.encode_frame(frames.FunctionData(1, data)) for data in sent[at::2]) for at in range(2)]
    for at in range(0, max(map(len, streams)), 333):
        for (_, theirs), stream in zip(pairs, streams, strict=True):
            theirs.sendall(stream[at : at + 333])
            reactor.poll_now()
    assert sorted(received) == sent
    for connection, (_, theirs) in zip(connections, pairs, strict=True):
        connection.close_quietly()
        theirs.close()


def test_what_is_sent_together_leaves_in_its_order_at_the_end(connection: Connection, peer: socket.socket) -> None:
    short = [frames.FunctionData(number, b"") for number in range(3)]
    peer.setblocking(False)
    with connection.together():
        for message in short:
            connection.send(message)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
    peer.settimeout(LONG)
    assert read(peer, 3) == short


def test_long_messages_do_not_gather(connection: Connection, peer: socket.socket) -> None:
    messages = [frames.FunctionData(number, b"x" * size) for number, size in enumerate((0, 70_000, 0, 40_000, 40_000))]
    with connection.together():
        for message in messages:
            connection.send(message)
        assert read(peer, len(messages)) == messages
