"""The framed channel over TCP: who may come in, and what happens to connections that do not come about."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.clusters import ProcessCluster
from support.processes import eventually

from shoal._net import connection as channel
from shoal._net.connection import Connection, Identity
from shoal._net.reactor import Reactor
from shoal._wire.peer_frames import GetValue, PeerMessage
from shoal_common.channel import frames, handshake, tcp
from shoal_common.channel.frames import WorkerAddress
from shoal_common.rpc.client import sync_channel
from shoal_proto.v1 import gcs_pb2, gcs_pb2_grpc


@pytest.fixture(scope="module")
def cluster() -> Iterator[ProcessCluster]:
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=1)
        yield cluster


@pytest.fixture(scope="module")
def raylet(cluster: ProcessCluster) -> tuple[str, int]:
    """Where its framed channel listens for other nodes."""
    grpc_channel = sync_channel(cluster.address, cluster.token)
    (node,) = gcs_pb2_grpc.NodeServiceStub(grpc_channel).ListNodes(gcs_pb2.ListNodesRequest()).nodes
    grpc_channel.close()
    return node.host, node.channel_port


def identity(token: str, role: str) -> Identity:
    worker_id = os.urandom(16)
    address = WorkerAddress(b"n" * 16, worker_id, "")
    return Identity(token=token, role=role, node_id=b"n" * 16, worker_id=worker_id, job_id=b"job1", address=address)


def shake_hands(at: tuple[str, int], who: Identity) -> tuple[frames.HelloReply, int]:
    with socket.create_connection(at) as sock:
        return channel.authenticate_blocking(sock, who)


def test_an_owner_of_another_node_comes_in_without_shared_memory(
    cluster: ProcessCluster, raylet: tuple[str, int]
) -> None:
    reply, arena_fd = shake_hands(raylet, identity(cluster.token, "owner"))
    assert reply.node_id.hex() == cluster.nodes[0].node_id
    assert (reply.arena_size, arena_fd) == (0, -1)


@pytest.mark.parametrize("role", ["driver", "worker"])
def test_processes_of_a_node_come_over_its_unix_socket(
    cluster: ProcessCluster, raylet: tuple[str, int], role: str
) -> None:
    with pytest.raises(handshake.HandshakeError, match="Unix socket"):
        shake_hands(raylet, identity(cluster.token, role))


def test_a_wrong_token_is_found_out(raylet: tuple[str, int]) -> None:
    with pytest.raises(handshake.HandshakeError, match="wrong token"):
        shake_hands(raylet, identity("another token", "owner"))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, b"\x04\x00\x00\x00abcd"])
def test_garbage_ends_the_connection_and_nothing_else(raylet: tuple[str, int], garbage: bytes) -> None:
    with socket.create_connection(raylet) as sock:
        sock.settimeout(30)
        sock.sendall(garbage)
        try:
            assert sock.recv(4096) == b""
        except ConnectionResetError:
            pass  # it has not read all of it


class Side:
    """One process's half of a connection between peers."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.received: list[Any] = []
        self.closed: list[str] = []

    def connection(
        self, sock: socket.socket, who: Identity, connecting: bool, expects: tuple[bytes, bytes] | None = None
    ) -> Connection:
        return Connection(
            self.reactor,
            sock,
            who.connecting(expects) if connecting else who.accepting(),
            PeerMessage,
            lambda _, messages: self.received.extend(messages),
            lambda _, reason: self.closed.append(reason),
        )


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    reactor.start()
    yield reactor
    reactor.stop()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with tcp.listen("127.0.0.1", 0) as listener:
        yield listener


def test_what_is_sent_before_the_handshake_arrives_after_it(reactor: Reactor, listener: socket.socket) -> None:
    accepting, connecting = Side(reactor), Side(reactor)
    theirs = identity("token", "worker")
    outgoing = connecting.connection(
        tcp.dial(*listener.getsockname(), None), identity("token", "driver"), True, (theirs.node_id, theirs.worker_id)
    )
    messages = [question(i) for i in range(1000)]
    for message in messages:
        outgoing.send(message)
    eventually(lambda: accept(listener, accepting, theirs), "it connects")
    eventually(lambda: len(accepting.received) == 1000, "everything has arrived")
    assert accepting.received == messages
    assert outgoing.authenticated
    outgoing.close("")


def test_another_process_at_the_address_is_not_taken_for_the_peer(reactor: Reactor, listener: socket.socket) -> None:
    accepting, connecting = Side(reactor), Side(reactor)
    outgoing = connecting.connection(
        tcp.dial(*listener.getsockname(), None), identity("token", "driver"), True, (b"n" * 16, b"whoever is dead.")
    )
    outgoing.send(question(1))
    eventually(lambda: accept(listener, accepting, identity("token", "worker")), "it connects")
    eventually(lambda: connecting.closed, "the connection ends")
    assert connecting.closed == ["another process has its address by now"]
    assert not outgoing.authenticated and accepting.received == []


def test_nobody_there(reactor: Reactor, listener: socket.socket) -> None:
    at = listener.getsockname()
    listener.close()
    side = Side(reactor)
    outgoing = side.connection(tcp.dial(*at, None), identity("token", "driver"), True)
    eventually(lambda: side.closed, "it fails")
    assert "refused" in side.closed[0] and not outgoing.authenticated


def question(number: int) -> GetValue:
    return GetValue(number.to_bytes(24, "big"))


def accept(listener: socket.socket, side: Side, who: Identity) -> bool:
    try:
        sock, _ = listener.accept()
    except BlockingIOError:
        return False
    side.connection(sock, who, False)
    return True
