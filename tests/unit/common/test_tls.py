"""Mutual TLS: between gRPC services, and below the framed channel."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificates import Authority

from shoal_common.rpc.client import aio_channel
from shoal_common.rpc.server import create_server, serve
from shoal_common.service.healthcheck import check
from shoal_common.tls import VARIABLES, Tls, TlsError, TlsSocket

TOKEN = "a token"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def talk(authority: Authority) -> Iterator[Callable[[Tls, Tls], tuple[Speaker, Speaker]]]:
    """Connects a client and a server with these identities."""
    speakers: list[Speaker] = []

    def connect(client: Tls, server: Tls) -> tuple[Speaker, Speaker]:
        ours, theirs = socket.socketpair()
        speakers.append(Speaker(ours, client, server=False))
        speakers.append(Speaker(theirs, server, server=True))
        return speakers[-2], speakers[-1]

    yield connect
    for speaker in speakers:
        speaker.tls.close()


class Speaker:
    """One end, driven by poll() as the reactor does it: reads whatever comes."""

    def __init__(self, sock: socket.socket, tls: Tls, *, server: bool) -> None:
        self.tls = TlsSocket(sock, tls, server=server)
        self.received = bytearray()
        self.to_send = memoryview(b"")

    def turn(self) -> bool:
        """Whether anything moved."""
        moved = False
        if self.to_send:
            try:
                sent = self.tls.send(self.to_send)
                self.to_send = self.to_send[sent:]
                moved = True
            except BlockingIOError:
                pass
        if select.select([self.tls], [], [], 0)[0]:
            try:
                self.received += self.tls.recv(1 << 16)
            except BlockingIOError:
                pass
            moved = True
        return moved


def converse(*speakers: Speaker) -> None:
    while sum(speaker.turn() for speaker in speakers):
        pass


Talk = Callable[[Tls, Tls], tuple[Speaker, Speaker]]


def test_bytes_go_both_ways(authority: Authority, talk: Talk) -> None:
    client, server = talk(authority.issue(), authority.issue())
    hello, answer = b"hello" * 10, bytes(range(256)) * 40_000
    client.to_send = memoryview(hello)
    converse(client, server)
    assert bytes(server.received) == hello
    server.to_send = memoryview(answer)
    converse(client, server)
    assert bytes(client.received) == answer


def test_the_end_of_the_peer_reads_as_nothing(authority: Authority, talk: Talk) -> None:
    client, server = talk(authority.issue(), authority.issue())
    client.to_send = memoryview(b"x")
    converse(client, server)
    server.tls.close()
    assert client.tls.recv(1000) == b""


def test_a_certificate_of_another_authority_is_refused(authority: Authority, tmp_path: Path, talk: Talk) -> None:
    client, server = talk(Authority(tmp_path / "stranger").issue(), authority.issue())
    client.to_send = memoryview(b"hello")
    with pytest.raises(OSError, match=r"certificate verify failed|unknown ca"):
        converse(client, server)


def test_a_certificate_for_something_else_is_no_server(authority: Authority, talk: Talk) -> None:
    client, server = talk(authority.issue(), authority.issue("a-web-shop"))
    client.to_send = memoryview(b"hello")
    with pytest.raises(OSError, match="shoal"):
        converse(client, server)


async def ask(address: str, tls: Tls | None) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
    async with aio_channel(address, TOKEN, tls=tls) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        status: health_pb2.HealthCheckResponse.ServingStatus.ValueType = answer.status
        return status


async def test_grpc_serves_its_own_cluster_only(authority: Authority, tmp_path: Path) -> None:
    server = create_server(TOKEN)
    port = await serve(server, "127.0.0.1", 0, tls=authority.issue())
    address = f"127.0.0.1:{port}"
    try:
        assert await ask(address, authority.issue()) == health_pb2.HealthCheckResponse.SERVING
        for outsider in (None, Authority(tmp_path / "stranger").issue()):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ask(address, outsider)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(None)


async def test_a_health_check_has_the_certificate_of_its_environment(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = create_server(TOKEN)
    address = f"127.0.0.1:{await serve(server, '127.0.0.1', 0, tls=authority.issue())}"
    try:
        assert await asyncio.to_thread(check, address) == f"{address} does not answer: it closed the connection"
        for issuer, answer in ((authority, ""), (Authority(tmp_path / "stranger"), f"{address} does not answer: ")):
            tls = issuer.issue()
            for variable, path in zip(VARIABLES, (tls.ca, tls.cert, tls.key), strict=True):
                monkeypatch.setenv(variable, str(path))
            found = await asyncio.to_thread(check, address)
            assert found.startswith(answer) and bool(found) == bool(answer)
    finally:
        await server.stop(None)


def test_the_environment_names_the_files(authority: Authority, tmp_path: Path) -> None:
    tls = authority.issue()
    named = {"SHOAL_TLS_CA": str(tls.ca), "SHOAL_TLS_CERT": str(tls.cert), "SHOAL_TLS_KEY": str(tls.key)}
    assert Tls.from_environ({}) is None
    assert Tls.from_environ(named) == tls
    with pytest.raises(TlsError, match="SHOAL_TLS_KEY"):
        Tls.from_environ({"SHOAL_TLS_CA": str(tls.ca)})
    with pytest.raises(TlsError, match="absent"):
        Tls.from_environ({**named, "SHOAL_TLS_KEY": str(tmp_path / "absent.key")})
    with pytest.raises(TlsError, match=r"\.key"):
        Tls.from_environ({**named, "SHOAL_TLS_KEY": str(authority.issue().key)})
