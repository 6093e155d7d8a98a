"""Connections that this raylet makes to others: one a node for small messages, and the handshake for any other.

What a raylet tells or asks of its own accord goes over the connection that it has made itself, so that it stays in
order; only answers go the other way.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog

from shoal_common.channel import frames, handshake, tcp
from shoal_common.channel.frame_socket import AnySocket, FrameSocket
from shoal_common.channel.handshake import Connecting
from shoal_common.tls import Tls
from shoal_proto.v1 import gcs_pb2
from shoal_raylet.channel.connection import Connection

log = structlog.get_logger(__name__)


#: Messages that wait for a connection to be made, which takes CONNECT_TIMEOUT_S at most.
_MAX_HELD = 10_000


class LinkLost(Exception):
    """The other raylet cannot be reached, or has not answered in time; the text says why."""


class _Request(Protocol):
    request: int


class RayletLinks:
    """Belongs to one event loop. ``find`` knows where a living node is."""

    def __init__(
        self,
        token: str,
        tls: Tls | None,
        node_id: bytes,
        find: Callable[[bytes], Awaitable[gcs_pb2.NodeInfo | None]],
    ) -> None:
        self._token = token
        self._tls = tls
        self.node_id = node_id
        self._find = find
        self._links: dict[bytes, _Link] = {}

    async def ask(self, node_id: bytes, question: _Request, timeout_s: float) -> Any:
        """The answer to ``question``, whose ``request`` is filled in here. Raises: LinkLost."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._link(node_id).ask(question)
        except TimeoutError:
            raise LinkLost(f"node {node_id.hex()} has not answered in {timeout_s:g} s") from None

    def tell(self, node_id: bytes, message: frames.Message) -> None:
        """It is lost when the node cannot be reached."""
        self._link(node_id).tell(message)

    def node_lost(self, node_id: bytes) -> None:
        """The cluster has declared it dead: whoever waits for an answer waits no more."""
        link = self._links.get(node_id)
        if link is not None:
            link.close("the node is dead")

    async def dial(self, node_id: bytes) -> AnySocket:
        """A connection over which both sides have proved that they know the token. Raises: LinkLost."""
        node = await self._find(node_id)
        if node is None or not node.channel_port:
            raise LinkLost(f"node {node_id.hex()} is not in the cluster")
        where = f"node {node_id.hex()} at {node.host}:{node.channel_port}"
        try:
            async with asyncio.timeout(tcp.CONNECT_TIMEOUT_S):
                sock = tcp.dial(node.host, node.channel_port, self._tls)
                try:
                    await FrameSocket(sock).connect(Connecting(self._token, self.hello(), (node_id, b"")))
                except BaseException:
                    sock.close()
                    raise
                return sock
        except TimeoutError:
            raise LinkLost(f"{where} has not answered in {tcp.CONNECT_TIMEOUT_S:g} s") from None
        except (OSError, handshake.HandshakeError) as error:
            raise LinkLost(f"{where} cannot be reached: {error}") from error

    async def stop(self) -> None:
        links = list(self._links.values())
        for link in links:
            link.close("the node stops")
        await asyncio.gather(*(link.dialing for link in links), return_exceptions=True)

    def hello(self) -> frames.Hello:
        return handshake.hello("raylet", node_id=self.node_id)

    def _link(self, node_id: bytes) -> _Link:
        link = self._links.get(node_id)
        if link is None:
            link = self._links[node_id] = _Link(self, node_id)
        return link

    def _closed(self, link: _Link) -> None:
        if self._links.get(link.peer_id) is link:
            del self._links[link.peer_id]


class _Link:
    """One connection, or one on the way: what is sent before is kept until then."""

    def __init__(self, links: RayletLinks, peer_id: bytes) -> None:
        self._links = links
        self.peer_id = peer_id
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._held: list[frames.Message] = []
        self._requests = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._closed = False
        self.dialing = self._loop.create_task(self._dial())

    def tell(self, message: frames.Message) -> None:
        if self._connection is not None:
            self._connection.send(message)
        elif len(self._held) < _MAX_HELD:
            self._held.append(message)
        else:
            self._loop.call_soon(self.close, f"{_MAX_HELD} messages wait for the connection")

    async def ask(self, question: Any) -> Any:
        question.request = next(self._requests)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._answers[question.request] = answer
        try:
            self.tell(question)
            return await answer
        finally:
            self._answers.pop(question.request, None)

    def close(self, reason: str) -> None:
        """Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._links._closed(self)
        self.dialing.cancel()
        if self._connection is not None:
            self._connection.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LinkLost(f"the connection to node {self.peer_id.hex()} has ended: {reason}"))

    async def _dial(self) -> None:
        try:
            sock = await self._links.dial(self.peer_id)
        except LinkLost as error:
            log.info("raylet_not_reached", node_id=self.peer_id.hex(), reason=str(error))
            self.close(str(error))
            return
        self._connection = Connection(sock, self, self._loop, None)
        self._connection.hello = self._links.hello()
        held, self._held = self._held, []
        for message in held:
            self._connection.send(message)

    # --- the connection's handler ---

    def refuse(self, hello: frames.Hello, local: bool) -> str:
        return "this connection was made by this raylet"

    def connected(self, connection: Connection) -> None:
        pass

    def received(self, connection: Connection, message: frames.Message) -> None:
        answer = self._answers.get(getattr(message, "request", 0))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def closed(self, connection: Connection) -> None:
        self.close("the other side has closed it")
