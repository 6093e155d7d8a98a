"""Connections to peers, over real sockets: whoever is called is told of its end, however early that comes."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shoal._net import connection as connection_module
from shoal._net import peers as peers_module
from shoal._net.connection import Connection, Identity, authenticate_blocking
from shoal._net.interrupts import GuardedLock
from shoal._net.peers import Peers
from shoal._net.reactor import Reactor
from shoal._wire.peer_frames import PeerMessage, ValuePending
from shoal_common.channel.codec import Decoder, encode_frame
from shoal_common.channel.frames import WorkerAddress
from shoal_common.channel.handshake import Accepting, Authenticated, Introduced

#: Only a failure takes so long, in seconds.
LONG = 10.0
NODE = b"n" * 16
ME, OTHER = WorkerAddress(NODE, b"m" * 16, ""), WorkerAddress(NODE, b"o" * 16, "")


class Dialer:
    """``ends`` are those of all connections that were made: the peer's, and ours."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []
        self.dials: Callable[[socket.socket], None] = lambda theirs: None

    def peer(self, address: WorkerAddress) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.ends += [theirs, ours]
        self.dials(theirs)
        return ours


class Rig:
    def __init__(self) -> None:
        self.dialer, self.lock, self.reactor = Dialer(), GuardedLock(), Reactor()
        self.gone: list[tuple[bytes, str]] = []
        self.told, self.heard = threading.Event(), threading.Event()
        identity = Identity(token="t", role="driver", node_id=NODE, worker_id=ME.worker_id, job_id=b"j", address=ME)
        dialer: Any = self.dialer
        self.peers = Peers(self.reactor, identity, self.lock, dialer, [], None, self._on_messages, self._on_gone)

    def dialled_by_other(self) -> socket.socket:
        """The peer's end of a connection that it has made, and by which something has come here."""
        ours, theirs = socket.socketpair()
        self.dialer.ends += [theirs, ours]
        self.heard.clear()
        self.peers._accept(ours, "")
        other = Identity(token="t", role="worker", node_id=NODE, worker_id=OTHER.worker_id, job_id=b"j", address=OTHER)
        authenticate_blocking(theirs, other)
        theirs.sendall(encode_frame(ValuePending(b"object")))
        assert self.heard.wait(LONG)
        return theirs

    def _on_messages(self, connection: Connection, messages: list[Any]) -> None:
        with self.lock:
            self.peers.known(connection)
        self.heard.set()

    def _on_gone(self, worker_id: bytes, reason: str) -> None:
        assert self.lock.held()
        self.gone.append((worker_id, reason))
        self.told.set()

    def close(self) -> None:
        self.reactor.stop()
        self.peers.close()
        for sock in self.dialer.ends:
            sock.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def test_one_connection_a_peer(rig: Rig) -> None:
    with rig.lock:
        assert rig.peers.connect(OTHER) is rig.peers.connect(OTHER)
    assert len(rig.dialer.ends) == 2


def test_a_refused_connection_that_ends_before_its_peer_is_named_is_told_of(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reactor's thread sees the end while the thread that connects, with the lock, has just made it."""
    rig.dialer.dials = lambda theirs: theirs.close()
    ending = threading.Event()
    make = rig.peers._make

    def make_and_dawdle(*args: Any) -> Connection:
        connection = make(*args)
        assert ending.wait(LONG)
        return connection

    monkeypatch.setattr(rig.peers, "_make", make_and_dawdle)
    monkeypatch.setattr(rig.peers, "_settled", lambda connection: ending.set())
    rig.reactor.start()
    with rig.lock:
        assert rig.peers.connect(OTHER) is not None
        assert not rig.gone
    assert rig.told.wait(LONG)
    assert [worker_id for worker_id, _ in rig.gone] == [OTHER.worker_id]
    assert rig.peers.address_of(OTHER.worker_id) is None


def test_after_its_end_a_peer_is_dialled_anew(rig: Rig) -> None:
    with rig.lock:
        first = rig.peers.connect(OTHER)
    rig.dialer.ends[0].close()
    rig.reactor.start()
    assert rig.told.wait(LONG)
    with rig.lock:
        assert rig.peers.connect(OTHER) is not first
    assert len(rig.gone) == 1


class Unreachable:
    """A socket whose connecting fails after a while."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: bytes) -> int:
        raise BlockingIOError

    def recv(self, size: int) -> bytes:
        raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EMFILE], ids=["no route", "no descriptor"])
def test_a_peer_to_which_there_is_no_way_just_now_is_dialled_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(connection_module, "DIAL_AGAIN_S", 0.0)
    monkeypatch.setattr(peers_module, "raise_open_files", lambda: False)
    reached = threading.Event()
    dial = rig.dialer.peer
    tries = 0

    def peer(address: WorkerAddress) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError(number, os.strerror(number))
        sock = dial(address)
        if tries == 2:
            rig.dialer.ends[0].close()
            return Unreachable(sock)
        reached.set()
        return sock

    monkeypatch.setattr(rig.dialer, "peer", peer)
    rig.reactor.start()
    with rig.lock:
        connection = rig.peers.connect(OTHER)
        assert connection is not None
        connection.send(ValuePending(b"object"))
    assert reached.wait(LONG)
    theirs = rig.dialer.ends[2]
    theirs.settimeout(LONG)
    accepting = Accepting("t", NODE, OTHER.worker_id)
    event = None
    while not isinstance(event, Authenticated):
        event = accepting.receive(theirs.recv(4096))
        if isinstance(event, Introduced):
            accepting.accept()
        theirs.sendall(accepting.to_send())
    rest = event.rest or theirs.recv(4096)
    assert Decoder(PeerMessage).feed(rest) == [ValuePending(b"object")]
    assert not rig.gone


def test_a_peer_to_which_there_is_no_way_is_lost_in_the_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "DIAL_AGAIN_S", 0.01)
    monkeypatch.setattr(connection_module.tcp, "LOST_AFTER_S", 0.05)

    def peer(address: WorkerAddress) -> Any:
        raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))

    monkeypatch.setattr(rig.dialer, "peer", peer)
    rig.reactor.start()
    with rig.lock:
        assert rig.peers.connect(OTHER) is not None
    assert rig.told.wait(LONG)
    assert [worker_id for worker_id, _ in rig.gone] == [OTHER.worker_id]


def test_a_peer_that_connects_again_has_lost_its_connection_and_is_answered_over_the_new_one(rig: Rig) -> None:
    """Only one side may have been told of its end."""
    rig.reactor.start()
    rig.dialled_by_other()
    again = rig.dialled_by_other()
    assert rig.gone == [(OTHER.worker_id, "the peer has lost it, and has connected again")]
    rig.peers.send(OTHER.worker_id, ValuePending(b"answer"))
    again.settimeout(LONG)
    assert b"answer" in again.recv(1000)


def test_with_its_node_a_peer_is_gone(rig: Rig) -> None:
    with rig.lock:
        rig.peers.connect(OTHER)
        rig.peers.node_lost(b"another node....", "")
        assert not rig.gone
        rig.peers.node_lost(NODE, "its node is lost")
    assert rig.gone == [(OTHER.worker_id, "its node is lost")]


def test_who_cannot_be_reached_is_dead(rig: Rig) -> None:
    def refuse(theirs: socket.socket) -> None:
        raise ConnectionRefusedError

    rig.dialer.dials = refuse
    with rig.lock:
        assert rig.peers.connect(OTHER) is None
        assert rig.peers.address_of(OTHER.worker_id) is None
