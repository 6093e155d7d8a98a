"""How a client outside of the cluster and a gateway begin: the framed channel's handshake, then the session.

    client                            gateway
    Hello(role "client") ...  --->
                              <---    HelloReply ...
    HelloProof, SessionOpen   --->
                              <---    SessionOpened
    (the bytes of a ``Tunnel`` both ways)

The session's id is the client's secret: resuming needs it and the token. It is sent only after the gateway has proved
that it knows the token.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, TypeAlias, TypeVar

import msgspec

from shoal_common import frames, handshake
from shoal_common.frames import Hello, HelloProof, HelloReply, Message, WorkerAddress
from shoal_common.handshake import HandshakeError
from shoal_common.tls import TlsSocket

DEFAULT_PORT = 10001
#: Role of a client in its ``Hello``.
ROLE = "client"
SESSION_ID_BYTES = 32
#: None of these frames is longer.
_MAX_FRAME_BYTES = 64 * 1024

#: What is written and read without blocking.
AnySocket: TypeAlias = socket.socket | TlsSocket
M = TypeVar("M", bound=Message)


class SessionOpen(Message, tag=80):
    """Client -> gateway: a new session, or one that lost its connection."""

    session_id: bytes
    #: False: a new one. True: it must be there.
    resumes: bool
    #: Bytes that have arrived at the client.
    received: int


class SessionOpened(Message, tag=81):
    """Gateway -> client; the bytes of the tunnel follow at once."""

    #: Bytes that have arrived at the gateway.
    received: int = 0
    #: The session ends when it has no connection for so long, in seconds.
    grace_s: float = 0.0
    #: Where others in the cluster reach the client: the gateway listens there for it.
    address: WorkerAddress | None = None
    node_id: bytes = b""
    session_dir: str = ""
    #: Non-empty: refused, or the session is over. The connection closes after it.
    error: str = ""


class ToRaylet(Message, tag=82):
    """A stream to the gateway's own raylet."""


class ToGcs(Message, tag=83):
    """A stream to the GCS."""


class ToPath(Message, tag=84):
    """A stream to a process of the gateway's node."""

    path: str


class ToPort(Message, tag=85):
    """A stream to a process of another node."""

    #: Numeric.
    host: str
    port: int


Target: TypeAlias = ToRaylet | ToGcs | ToPath | ToPort
_decode_target = msgspec.msgpack.Decoder(Target).decode
_encode = msgspec.msgpack.Encoder().encode


def encode_target(target: Target) -> bytes:
    return _encode(target)


def decode_target(data: bytes) -> Target:
    """Raises: msgspec.DecodeError."""
    target: Target = _decode_target(data)
    return target


class Greeting:
    """One side of a handshake, over a non-blocking socket and in the running event loop."""

    def __init__(self, sock: AnySocket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        #: What has come behind the last frame.
        self.rest = b""

    async def request(self, token: str, hello: Hello, session: SessionOpen) -> SessionOpened:
        """The client's side. Raises: HandshakeError (refused, or the other side is no gateway of ours), OSError."""
        await self._write(hello)
        reply = await self._read(HelloReply)
        handshake.check_reply(token, hello.nonce, reply)
        await self._write(HelloProof(handshake.prove(token, b"connecting", hello.nonce, reply.nonce)))
        await self._write(session)
        return await self._read(SessionOpened)

    async def authenticate(self, token: str, node_id: bytes) -> tuple[Hello, SessionOpen]:
        """The gateway's side, up to what the client wants. Raises: HandshakeError, OSError."""
        hello = await self._read(Hello)
        error = handshake.check_hello(hello)
        if not error and hello.role != ROLE:
            error = f"this is the port for clients, and a {hello.role} connects to its raylet's own"
        if error:
            await self._write(HelloReply(b"", b"", b"", b"", error))
            raise HandshakeError(error)
        nonce = handshake.new_nonce()
        await self._write(HelloReply(nonce, handshake.answer_hello(token, hello, nonce), node_id, b""))
        handshake.check_proof(token, hello.nonce, nonce, await self._read(HelloProof))
        return hello, await self._read(SessionOpen)

    async def answer(self, opened: SessionOpened) -> None:
        """Raises: OSError."""
        await self._write(opened)

    async def _read(self, kind: type[M]) -> M:
        while len(self.rest) < frames.LENGTH.size or len(self.rest) < self._frame_end():
            try:
                data = self.sock.recv(_MAX_FRAME_BYTES)
            except BlockingIOError:
                await self._wait(self._loop.add_reader, self._loop.remove_reader)
                continue
            if not data:
                raise ConnectionResetError("the other side closed the connection during the handshake")
            self.rest += data
        end = self._frame_end()
        body, self.rest = self.rest[frames.LENGTH.size : end], self.rest[end:]
        try:
            return msgspec.msgpack.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise HandshakeError(f"the other side does not follow the handshake: {error}") from error

    def _frame_end(self) -> int:
        (length,) = frames.LENGTH.unpack_from(self.rest)
        if length > _MAX_FRAME_BYTES:
            raise HandshakeError("the other side does not speak Shoal's protocol: is that the gateway's port?")
        return int(frames.LENGTH.size + length)

    async def _write(self, message: Message) -> None:
        data = memoryview(frames.encode_frame(message))
        while data:
            try:
                data = data[self.sock.send(data) :]
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
