"""Before an object counts as unknown, what the holders of pieces have sent is read."""

from __future__ import annotations

import asyncio
from typing import Any

from shoal_common.channel import frames
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.transfer.news import News

HOLDER, NODE, OBJECT = b"holder", b"n" * 16, b"job1" + bytes(20)


class Connection:
    closed = False


class Node:
    """A holder has placed an object, and the raylet has not read that yet."""

    def __init__(self) -> None:
        self.index = ObjectIndex(1 << 20, NODE, 10.0, "/files")
        self.index.grant_piece(HOLDER, 1, 4096)
        self.news = News(self.index, NODE, self.catch_up)
        self.handled: list[tuple[Any, bool]] = []
        self.handle = self.news.first(self._handle)
        #: Arrives while the holder's socket is read.
        self.crossing: list[tuple[Any, Any]] = []
        self.reads = 0

    def catch_up(self, peer: bytes) -> None:
        assert peer == HOLDER
        self.reads += 1
        if self.reads == 1:
            self.index.place(HOLDER, OBJECT, 0, 1024, HOLDER, 0.0)
        for connection, message in self.crossing:
            self.handle(connection, message)
        self.crossing.clear()

    def _handle(self, connection: Any, message: Any) -> None:
        object_ids = message.object_ids if isinstance(message, frames.ObjectFree) else [message.object_id]
        self.handled.append((message, all(map(self.index.find, object_ids))))


async def turns(node: Node, number: int) -> None:
    """Of the loop, in which so many messages are handled."""
    for _ in range(4):
        await asyncio.sleep(0)
    assert len(node.handled) == number


def test_what_names_a_placed_object_is_handled_when_that_has_been_read() -> None:
    async def scenario() -> None:
        node = Node()
        messages = [frames.ObjectGet(1, OBJECT), frames.ObjectFree([OBJECT], NODE), frames.ObjectLocate(1, OBJECT)]
        for message in messages:
            node.handle(Connection(), message)
        assert node.handled == []
        await turns(node, 3)
        assert node.handled == [(message, True) for message in messages]
        assert node.reads == 1

    asyncio.run(scenario())


def test_what_comes_while_that_is_read_has_it_read_again() -> None:
    async def scenario() -> None:
        node = Node()
        unknown = frames.ObjectGet(2, b"job1" + bytes(19) + b"x")
        node.crossing.append((Connection(), unknown))
        node.handle(Connection(), frames.ObjectGet(1, OBJECT))
        await turns(node, 2)
        assert node.handled[1] == (unknown, False)
        assert node.reads == 2

    asyncio.run(scenario())


def test_nothing_waits_that_needs_no_news() -> None:
    async def scenario() -> None:
        node = Node()
        elsewhere = frames.ObjectGet(1, OBJECT, b"m" * 16)
        node.handle(Connection(), elsewhere)
        assert node.handled == [(elsewhere, False)]
        node.index.place(HOLDER, OBJECT, 0, 1024, HOLDER, 0.0)
        node.handle(Connection(), frames.ObjectGet(2, OBJECT))
        node.index.give_back(HOLDER, 1024, 3072, 0.0)
        node.handle(Connection(), frames.ObjectGet(3, b"job1" + bytes(19) + b"x"))
        assert len(node.handled) == 3
        assert node.reads == 0

    asyncio.run(scenario())


def test_who_has_gone_meanwhile_gets_nothing() -> None:
    async def scenario() -> None:
        node, gone = Node(), Connection()
        node.handle(gone, frames.ObjectGet(1, OBJECT))
        gone.closed = True
        node.handle(Connection(), frames.ObjectGet(2, OBJECT))
        await turns(node, 1)
        assert [message.request for message, _ in node.handled] == [2]

    asyncio.run(scenario())
