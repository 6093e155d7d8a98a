"""Single frames over a non-blocking socket: for the handshakes before a connection has its own way to read."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, TypeAlias, TypeVar

import msgspec

from shoal_common.channel import codec, handshake
from shoal_common.channel.frames import Hello, HelloProof, HelloReply, Message
from shoal_common.channel.handshake import HandshakeError
from shoal_common.tls import TlsSocket

#: None of these frames is longer.
_MAX_FRAME_BYTES = 64 * 1024

#: What is written and read without blocking.
AnySocket: TypeAlias = socket.socket | TlsSocket
M = TypeVar("M", bound=Message)


class FrameSocket:
    """In the running event loop; ``sock`` may still be connecting, and stays its maker's to close."""

    def __init__(self, sock: AnySocket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        #: What has come behind the last frame.
        self.rest = b""

    async def introduce(self, token: str, hello: Hello, node_id: bytes = b"") -> None:
        """The connecting side of the handshake. ``node_id``: who must answer; empty = anybody with the token.

        Raises: HandshakeError, OSError.
        """
        await self.write(hello)
        reply = await self.read(HelloReply)
        handshake.check_reply(token, hello.nonce, reply)
        if node_id not in (b"", reply.node_id):
            raise HandshakeError("another node has its address by now")
        await self.write(HelloProof(handshake.prove(token, b"connecting", hello.nonce, reply.nonce)))

    async def read(self, kind: type[M]) -> M:
        """Raises: HandshakeError for anything else, OSError."""
        while len(self.rest) < codec.LENGTH.size or len(self.rest) < self._frame_end():
            try:
                data = self.sock.recv(_MAX_FRAME_BYTES)
            except BlockingIOError:
                await self._wait(self._loop.add_reader, self._loop.remove_reader)
                continue
            if not data:
                raise ConnectionResetError("the other side closed the connection during the handshake")
            self.rest += data
        end = self._frame_end()
        body, self.rest = self.rest[codec.LENGTH.size : end], self.rest[end:]
        try:
            return msgspec.msgpack.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise HandshakeError(f"the other side does not follow the handshake: {error}") from error

    async def write(self, message: Message) -> None:
        """Raises: OSError."""
        data = memoryview(codec.encode_frame(message))
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                await self._wait(self._loop.add_writer, self._loop.remove_writer)

    def _frame_end(self) -> int:
        (length,) = codec.LENGTH.unpack_from(self.rest)
        if length > _MAX_FRAME_BYTES:
            raise HandshakeError("the other side does not speak Shoal's protocol: is that the right port?")
        return int(codec.LENGTH.size + length)

    async def _wait(self, add: Any, remove: Any) -> None:
        ready = asyncio.Event()
        fd = self.sock.fileno()
        add(fd, ready.set)
        try:
            await ready.wait()
        finally:
            remove(fd)
