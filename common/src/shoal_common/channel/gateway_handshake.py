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

from typing import TypeAlias

import msgspec

from shoal_common.channel.frame_socket import FrameSocket
from shoal_common.channel.frames import Hello, Message, WorkerAddress
from shoal_common.channel.handshake import Accepting, Connecting, HandshakeError

DEFAULT_PORT = 10001
#: Role of a client in its ``Hello``.
ROLE = "client"
SESSION_ID_BYTES = 32


class SessionOpen(Message, tag=80):
    """Client -> gateway: a new session, or one that lost its connection."""

    session_id: bytes
    #: False: a new one. True: it must be there.
    resumes: bool
    #: Bytes that have arrived at the client.
    received: int
    #: The node of the gateway that has the session; empty for a new one.
    node_id: bytes = b""


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
    #: Non-empty: refused. The connection closes after it.
    error: str = ""
    #: Nobody has the session any more. Else, refused, it may still be at the gateway where it began.
    over: bool = False


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


class Greeting(FrameSocket):
    """One side of the handshake."""

    async def request(self, token: str, hello: Hello, session: SessionOpen) -> SessionOpened:
        """The client's side. Raises: HandshakeError (refused, or the other side is no gateway of ours), OSError."""
        await self.connect(Connecting(token, hello))
        await self.write(session)
        return await self.read(SessionOpened)

    async def authenticate(self, token: str, node_id: bytes) -> tuple[Hello, SessionOpen]:
        """The gateway's side, up to what the client wants. Raises: HandshakeError, OSError."""
        side = Accepting(token, node_id)
        hello = await self.introduced(side)
        if hello.role != ROLE:
            error = f"this is the port for clients, and a {hello.role} connects to its raylet's own"
            await self.refuse(side, error)
            raise HandshakeError(error)
        await self.accept(side)
        return hello, await self.read(SessionOpen)

    async def answer(self, opened: SessionOpened) -> None:
        """Raises: OSError."""
        await self.write(opened)
