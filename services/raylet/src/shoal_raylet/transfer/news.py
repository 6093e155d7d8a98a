"""Messages that name an object of which this node has not heard.

Who places an object in a piece of the arena tells the raylet, and then whoever waits for the object, without waiting
for an answer. So what those ask over their own connections can be read first. Before an object counts as unknown, all
is read that the holders of pieces have sent: word of it was in their sockets before anybody could ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from shoal_common.channel import frames
from shoal_raylet.channel.connection import Connection
from shoal_raylet.objects.index import ObjectIndex

Handler = Callable[[Connection, Any], None]


class News:
    """Belongs to one event loop. ``catch_up(peer)`` handles what a process has sent so far."""

    def __init__(self, index: ObjectIndex, node_id: bytes, catch_up: Callable[[bytes], None]) -> None:
        self._index = index
        self._read = catch_up
        self._node_id = node_id
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Handler, Connection, Any]] = []

    def first(self, handler: Handler) -> Handler:
        """Of ``ObjectGet``, ``ObjectFree`` or ``ObjectLocate``: it gets each message when the news has been read."""

        def handle(connection: Connection, message: Any) -> None:
            if not self._index.holders or all(map(self._index.find, self._named(message))):
                handler(connection, message)
                return
            # Not from here: a message of one of the holders may just be handled.
            if not self._waiting:
                self._loop.call_soon(self._catch_up)
            self._waiting.append((handler, connection, message))

        return handle

    def _named(self, message: Any) -> list[bytes]:
        """Objects of this node."""
        if isinstance(message, frames.ObjectLocate):
            return [message.object_id]
        if message.home not in (b"", self._node_id):
            return []
        return message.object_ids if isinstance(message, frames.ObjectFree) else [message.object_id]

    def _catch_up(self) -> None:
        # What is added meanwhile may name what is placed meanwhile.
        waiting, self._waiting = self._waiting, []
        for peer in self._index.holders:
            self._read(peer)
        for handler, connection, message in waiting:
            if not connection.closed:
                handler(connection, message)
