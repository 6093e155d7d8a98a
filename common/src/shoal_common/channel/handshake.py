"""How two processes come to trust a framed channel, without I/O.

Both sides prove that they hold the cluster token before either decodes anything but these three frames: the proof is
an HMAC over both nonces and the prover's role, so it can be neither replayed nor reflected. The token itself never
travels.

    Connecting                        Accepting
    Hello(nonce_c, ...)        --->
                               <---   HelloReply(nonce_s, proof_s)   [+ arena descriptor]
    HelloProof(proof_c)        --->

Each side is an object: ``receive`` takes what has come and returns what it means, ``to_send`` gives what is to go out
now, also after ``receive`` has raised. Both take no more than a frame of ``MAX_HANDSHAKE_FRAME_BYTES`` from a peer that
has not proved itself, and keep what comes behind the handshake undecoded.
"""

from __future__ import annotations

import hmac
import os
import sys
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from shoal_common.channel import codec, frames
from shoal_common.channel.frames import Hello, HelloProof, HelloReply, Message, WorkerAddress

NONCE_BYTES = 32
#: The peer must complete the handshake in this time, in seconds.
HANDSHAKE_TIMEOUT_S = 10.0
#: What the side that connects sends.
FromConnecting = Hello | HelloProof

M = TypeVar("M", bound=Message)


class HandshakeError(Exception):
    """The peer was refused, or refused us; the message says why and is safe to show."""

    def __reduce__(self) -> tuple[type[HandshakeError], tuple[str]]:
        return type(self), (str(self),)


class WrongTokenError(HandshakeError):
    """The peer does not have the token that this process has."""


@dataclass(frozen=True, slots=True)
class Introduced:
    """The peer has said who it is and proved nothing yet: ``accept`` or ``refuse`` it."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Both sides have the token, and the handshake is over once ``to_send`` has gone out."""

    #: What has come behind it, undecoded.
    rest: bytes


def python_minor() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def hello(
    role: str,
    *,
    node_id: bytes = b"",
    worker_id: bytes = b"",
    job_id: bytes = b"",
    address: WorkerAddress | None = None,
) -> Hello:
    """What this process says of itself, with a nonce of its own: one for each connection."""
    return Hello(
        version=frames.PROTOCOL_VERSION,
        nonce=os.urandom(NONCE_BYTES),
        role=role,
        node_id=node_id,
        worker_id=worker_id,
        job_id=job_id,
        pid=os.getpid(),
        python=python_minor(),
        address=address,
    )


class Connecting:
    """The side that connects."""

    def __init__(self, token: str, hello: Hello, expects: tuple[bytes, bytes] | None = None) -> None:
        """``expects``: node id and worker id of whom it must reach, as a port may have another process by now; None =
        anybody with the token."""
        self._token = token
        self._nonce = hello.nonce
        self._expects = expects
        self._decoder = codec.Decoder(HelloReply, codec.MAX_HANDSHAKE_FRAME_BYTES)
        self._out = bytearray(codec.encode_frame(hello))
        #: What the peer says of itself; believed once it is authenticated.
        self.reply: HelloReply | None = None

    def to_send(self) -> bytes:
        """What goes out now; b"" = nothing."""
        return _take(self._out)

    def receive(self, data: bytes) -> Authenticated | None:
        """None = more is to come. Raises: HandshakeError, RuntimeError when the handshake is over."""
        if self.reply is not None:
            raise RuntimeError("the handshake is over: what comes belongs to the connection")
        reply = _next(self._decoder, data, HelloReply)
        if reply is None:
            return None
        self.reply = reply
        self.check(reply)
        self._out += codec.encode_frame(HelloProof(prove(self._token, b"connecting", self._nonce, reply.nonce)))
        return Authenticated(self._decoder.rest)

    def check(self, reply: HelloReply) -> None:
        """Raises: HandshakeError when the peer has refused us, lacks the token, or is not whom we meant."""
        if reply.error:
            raise HandshakeError(reply.error)
        proof = prove(self._token, b"accepting", self._nonce, reply.nonce)
        if not hmac.compare_digest(reply.proof, proof):
            raise WrongTokenError("wrong token: the peer's proof does not match; use the cluster's own token")
        if self._expects is not None and self._expects != (reply.node_id, reply.worker_id):
            raise HandshakeError("another process has its address by now")


class Accepting:
    """The side that was connected to."""

    def __init__(self, token: str, node_id: bytes, worker_id: bytes = b"") -> None:
        """``node_id``, ``worker_id``: this process's."""
        self._token = token
        self._node_id = node_id
        self._worker_id = worker_id
        self._nonce = os.urandom(NONCE_BYTES)
        self._decoder = codec.Decoder(FromConnecting, codec.MAX_HANDSHAKE_FRAME_BYTES)
        self._out = bytearray()
        #: It was accepted, and has to prove that it has the token.
        self._challenged = False
        self._over = False
        #: What the peer says of itself; believed once it is authenticated.
        self.hello: Hello | None = None

    def to_send(self) -> bytes:
        """What goes out now; b"" = nothing."""
        return _take(self._out)

    def receive(self, data: bytes) -> Introduced | Authenticated | None:
        """None = more is to come. Raises: HandshakeError; RuntimeError when the handshake is over, or the peer was
        neither accepted nor refused."""
        if self._over or (self.hello is not None and not self._challenged):
            raise RuntimeError("the handshake is over, or waits for accept() or refuse()")
        if self.hello is None:
            hello = _next(self._decoder, data, Hello)
            if hello is None:
                return None
            self.hello = hello
            if error := _mismatch(hello):
                self.refuse(error)
                raise HandshakeError(error)
            return Introduced(hello)
        proof = _next(self._decoder, data, HelloProof)
        if proof is None:
            return None
        self._over = True
        if not hmac.compare_digest(proof.proof, prove(self._token, b"connecting", self.hello.nonce, self._nonce)):
            raise WrongTokenError("wrong token: the connecting process does not know this cluster's token")
        return Authenticated(self._decoder.rest)

    def accept(self, arena_size: int = 0) -> None:
        """Answer who has introduced itself. ``arena_size``: bytes of the arena whose descriptor goes along with what is
        to be sent; 0 = none does. Raises: RuntimeError when nobody waits for it."""
        hello = self._waiting()
        proof = prove(self._token, b"accepting", hello.nonce, self._nonce)
        reply = HelloReply(self._nonce, proof, self._node_id, self._worker_id, arena_size=arena_size)
        self._out += codec.encode_frame(reply)
        self._challenged = True

    def refuse(self, reason: str) -> None:
        """Tell who has introduced itself why it is not served; the connection closes then. Raises: RuntimeError when
        nobody waits for it."""
        self._waiting()
        # Nothing is proved to it, and nothing said of this process.
        self._out += codec.encode_frame(HelloReply(b"", b"", b"", b"", reason))
        self._over = True

    def _waiting(self) -> Hello:
        if self.hello is None or self._challenged or self._over:
            raise RuntimeError("no peer waits to be accepted or refused")
        return self.hello


def _next(decoder: codec.Decoder, data: bytes, kind: type[M]) -> M | None:
    """The next message, which must be of that kind; None = it is not complete. Raises: HandshakeError."""
    try:
        messages: list[Any] = decoder.feed(data, most=1)
    except msgspec.DecodeError as error:
        raise HandshakeError(
            f"the other side does not speak Shoal's protocol: is that the right port? ({error})"
        ) from error
    if not messages:
        return None
    if type(messages[0]) is not kind:
        raise HandshakeError("the other side does not follow the handshake")
    message: M = messages[0]
    return message


def _take(out: bytearray) -> bytes:
    data = bytes(out)
    out.clear()
    return data


def prove(token: str, side: bytes, nonce_c: bytes, nonce_s: bytes) -> bytes:
    """``side``: b"connecting" or b"accepting", who proves."""
    return hmac.digest(token.encode(), side + nonce_c + nonce_s, "sha256")


def _mismatch(hello: Hello) -> str:
    """Why this process and that one cannot understand each other, or ""."""
    if hello.version != frames.PROTOCOL_VERSION:
        return (
            f"protocol version {hello.version} does not match version {frames.PROTOCOL_VERSION}: "
            "install the same Shoal release on both sides"
        )
    if hello.python != python_minor():
        return (
            f"Python {hello.python} cannot join a cluster that runs Python {python_minor()}: "
            "functions travel as bytecode, which differs between minor versions"
        )
    if len(hello.nonce) != NONCE_BYTES:
        return "malformed handshake"
    return ""
