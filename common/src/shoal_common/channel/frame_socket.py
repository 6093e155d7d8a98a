"""Single frames over a non-blocking socket: for the handshakes before a connection has its own way to read."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, TypeAlias, TypeVar

import msgspec

from shoal_common.channel import codec, handshake
from shoal_common.channel.frames import Hello, Message
from shoal_common.channel.handshake import Accepting, Connecting, HandshakeError
from shoal_common.tls import TlsSocket

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

    async def connect(self, side: Connecting) -> None:
        """The connecting side of the handshake, to its end. Raises: HandshakeError, OSError."""
        event = None
        while event is None:
            await self._send(side.to_send())
            event = side.receive(await self._receive())
        await self._send(side.to_send())
        self.rest = event.rest

    async def introduced(self, side: Accepting) -> Hello:
        """Who is at the other end; then ``accept`` or ``refuse`` it. Raises: HandshakeError, OSError."""
        try:
            while (event := side.receive(await self._receive())) is None:
                pass
        finally:
            await self._send(side.to_send())  # why it was refused
        assert isinstance(event, handshake.Introduced)
        return event.hello

    async def accept(self, side: Accepting) -> None:
        """Answer who has introduced itself, and await its proof. Raises: HandshakeError, OSError."""
        side.accept()
        await self._send(side.to_send())
        while (event := side.receive(await self._receive())) is None:
            pass
        assert isinstance(event, handshake.Authenticated)
        self.rest = event.rest

    async def refuse(self, side: Accepting, reason: str) -> None:
        """Raises: OSError."""
        side.refuse(reason)
        await self._send(side.to_send())

    async def read(self, kind: type[M]) -> M:
        """One small frame behind the handshake. Raises: HandshakeError for anything else, OSError."""
        decoder = codec.Decoder(kind, codec.MAX_HANDSHAKE_FRAME_BYTES)
        data, self.rest = self.rest, b""
        try:
            while not (messages := decoder.feed(data, most=1)):
                data = await self._receive()
        except msgspec.DecodeError as error:
            raise HandshakeError(f"the other side does not follow the handshake: {error}") from error
        self.rest = decoder.rest
        message: M = messages[0]
        return message

    async def write(self, message: Message) -> None:
        """Raises: OSError."""
        await self._send(codec.encode_frame(message))

    async def _receive(self) -> bytes:
        while True:
            try:
                data = self.sock.recv(codec.READ_BYTES)
            except BlockingIOError:
                await self._wait(self._loop.add_reader, self._loop.remove_reader)
                continue
            if not data:
                raise ConnectionResetError("the other side closed the connection during the handshake")
            return data

    async def _send(self, data: bytes | bytearray) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self.sock.send(left) :]
            except BlockingIOError:
                await self._wait(self._loop.add_writer, self._loop.remove_writer)

    async def _wait(self, add: Any, remove: Any) -> None:
        ready = asyncio.Event()
        fd = self.sock.fileno()
        add(fd, ready.set)
        try:
            await ready.wait()
        finally:
            remove(fd)
