"""The raylet's end of a framed channel: a defect over one peer's message is that peer's end, and no other's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from shoal_common.channel import codec, frames
from shoal_raylet.channel.connection import Connection

PATIENCE_S = 10.0
#: As it is handled, the handler fails; the other one is answered.
FAILS, ANSWERED = frames.Blocked(), frames.FunctionGet(7, b"f")
ANSWER = frames.FunctionData(7, b"code")


class Handler:
    def __init__(self) -> None:
        self.handled: list[Any] = []
        self.closed_ones: list[Connection] = []
        self.ended = asyncio.Event()

    def refuse(self, hello: frames.Hello, local: bool) -> str:
        return ""

    def connected(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, message: frames.Message) -> None:
        self.handled.append(message)
        if message == FAILS:
            raise KeyError("a defect")
        connection.send(ANSWER)

    def closed(self, connection: Connection) -> None:
        self.closed_ones.append(connection)
        self.ended.set()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(handler: Handler, stack: ExitStack) -> tuple[Connection, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    connection = Connection(ours, handler, asyncio.get_running_loop(), None)
    stack.callback(theirs.close)
    stack.callback(connection.close)
    return connection, theirs


async def receive(sock: socket.socket) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.get_running_loop().sock_recv(sock, 1 << 16)


async def test_what_cannot_be_handled_ends_its_connection_only(stack: ExitStack) -> None:
    handler = Handler()
    broken, theirs = connect(handler, stack)
    _, others = connect(handler, stack)
    theirs.send(b"".join(map(codec.encode_frame, (ANSWERED, FAILS, ANSWERED))))
    async with asyncio.timeout(PATIENCE_S):
        await handler.ended.wait()
    assert handler.closed_ones == [broken]
    # What came before was answered, what came behind it was not looked at.
    assert await receive(theirs) == codec.encode_frame(ANSWER)
    assert await receive(theirs) == b""
    assert handler.handled == [ANSWERED, FAILS]
    others.send(codec.encode_frame(ANSWERED))
    assert await receive(others) == codec.encode_frame(ANSWER)


@pytest.mark.parametrize("unread", [0, 1 << 20])
async def test_the_last_words_of_a_peer_that_is_gone_are_heard_although_it_cannot_be_answered(
    stack: ExitStack, unread: int
) -> None:
    """``unread``: bytes that are still on their way to it."""
    handler = Handler()
    connection, theirs = connect(handler, stack)
    if unread:
        connection.send_bytes(b"", memoryview(bytes(unread)))
        await asyncio.sleep(0)
    words = [frames.FunctionGet(number, b"f" * 50) for number in range(1_000)]
    theirs.send(b"".join(map(codec.encode_frame, words)))
    theirs.close()
    if not unread:
        connection.send(ANSWER)
    async with asyncio.timeout(PATIENCE_S):
        await handler.ended.wait()
    assert handler.handled == words and handler.closed_ones == [connection]
