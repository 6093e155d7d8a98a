"""One accepted connection of the framed channel: handshake, then messages both ways.

It works on the raw non-blocking socket with ``add_reader`` instead of an asyncio transport: the handshake
needs SO_PEERCRED and SCM_RIGHTS, and an answer must go out in the same turn of the loop that read the
request (a request and its answer are on every ``put`` and ``get`` of a large object).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from shoal_common.channel import codec, frames, handshake, unix
from shoal_common.tls import TlsSocket

log = structlog.get_logger(__name__)

#: Nothing but Hello and HelloProof comes before authentication, and both are small.
_MAX_HANDSHAKE_BYTES = 64 * 1024
#: A peer that lets this much pile up does not read any more: its connection ends.
MAX_QUEUED_BYTES = 256 * 1024 * 1024
#: So much goes out in one turn of the loop, a fraction of a millisecond: others want to be served too.
_STEP_BYTES = 1024 * 1024

_decode_hello = msgspec.msgpack.Decoder(frames.Hello).decode
_decode_proof = msgspec.msgpack.Decoder(frames.HelloProof).decode


@dataclass(frozen=True, slots=True)
class Identity:
    """What this raylet proves and tells of itself in handshakes."""

    token: str
    node_id: bytes
    #: Handed to the processes of the node.
    arena_fd: int = -1
    #: In bytes.
    arena_size: int = 0


class ChannelHandler(Protocol):
    """What the raylet does with its peers. All calls come from the event loop's thread."""

    def refuse(self, hello: frames.Hello, local: bool) -> str:
        """Why this peer cannot be served, or "". Called before the peer has proved that it knows the token.

        ``local``: it came over the Unix socket, and so is of this node."""

    def connected(self, connection: Connection) -> None: ...
    def received(self, connection: Connection, message: frames.Message) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Connection:
    """A driver's, worker's or raylet's end of the channel, as this raylet sees it."""

    def __init__(
        self,
        sock: socket.socket | TlsSocket,
        identity: Identity,
        handler: ChannelHandler,
        loop: asyncio.AbstractEventLoop,
        *,
        local: bool,
        shares_arena: bool,
    ) -> None:
        """``local``: a Unix socket, by which the kernel tells the peer's user; the arena's descriptor travels by it if
        ``shares_arena``."""
        self.hello: frames.Hello | None = None
        self.local = local
        self.shares_arena = shares_arena
        self.ready = False
        self._sock = sock
        self._identity = identity
        self._handler = handler
        self._loop = loop
        self._fd = sock.fileno()
        self._decoder = codec.Decoder(frames.RayletMessage)
        self._early = b""
        self._nonce = handshake.new_nonce()
        self._out: deque[memoryview] = deque()
        self._out_bytes = 0
        self._closed = False
        self._reads = 0
        #: Answers made while a batch of requests is worked off go out in one write.
        self._corked: list[bytearray] | None = None
        self._on_frame: Callable[[bytes], None] = self._on_hello
        self._deadline = loop.call_later(handshake.HANDSHAKE_TIMEOUT_S, self.close, "handshake timed out")
        loop.add_reader(self._fd, self._read)

    @classmethod
    def dialed(
        cls,
        sock: socket.socket | TlsSocket,
        identity: Identity,
        handler: ChannelHandler,
        loop: asyncio.AbstractEventLoop,
        hello: frames.Hello,
    ) -> Connection:
        """A connection that this raylet has made, its handshake done. ``hello`` is this raylet's own."""
        connection = cls(sock, identity, handler, loop, local=False, shares_arena=False)
        connection._deadline.cancel()
        connection.hello = hello
        connection.ready = True
        return connection

    @property
    def role(self) -> str:
        return self.hello.role if self.hello else ""

    @property
    def worker_id(self) -> bytes:
        return self.hello.worker_id if self.hello else b""

    def send(self, message: frames.Message) -> None:
        """Never blocks; a message to a connection that has ended is dropped."""
        if self._closed:
            return
        frame = codec.encode_frame(message)
        if self._corked is None:
            self._write(frame)
        else:
            self._corked.append(frame)

    def send_bytes(self, header: bytes, body: memoryview | None = None) -> None:
        """What is no frame, to a peer that expects it. ``body`` is not copied, and must not change until it is sent."""
        if self._closed:
            return
        if body is None:
            self._write(header)
            return
        if not self._out:
            self._loop.add_writer(self._fd, self._flush)
        self._out += (memoryview(header), body)
        self._out_bytes += len(header) + len(body)

    def drain(self) -> None:
        """The peer's process is dead: read what it had sent, then close."""
        while not self._closed:
            before = self._reads
            self._read()
            if self._reads == before:
                self.close()

    def close(self, reason: str = "") -> None:
        """Idempotent. Tells the handler once, if the handshake had succeeded."""
        if self._closed:
            return
        self._closed = True
        self._deadline.cancel()
        self._loop.remove_reader(self._fd)
        if self._out:
            self._loop.remove_writer(self._fd)
            self._out.clear()
        self._sock.close()
        if reason:
            log.info("channel_closed", role=self.role, worker_id=self.worker_id.hex(), reason=reason)
        self._handler.closed(self)

    # --- reading ---

    def _read(self) -> None:
        try:
            data = self._sock.recv(codec.READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(f"read failed: {error}")
            return
        self._reads += 1
        if not data:
            self.close()
            return
        try:
            if self.ready:
                self._receive(data)
            else:
                self._read_handshake(data)
        except (msgspec.DecodeError, handshake.HandshakeError) as error:
            self.close(str(error))

    def _receive(self, data: bytes) -> None:
        received = self._handler.received
        corked: list[bytearray] = []
        self._corked = corked
        try:
            for message in self._decoder.feed(data):
                received(self, message)
                if self._closed:
                    return
        finally:
            self._corked = None
            if corked and not self._closed:
                self._write(b"".join(corked))

    def _read_handshake(self, data: bytes) -> None:
        """Cut single frames: what follows the proof may be any message, and is decoded only after it."""
        self._early += data
        while not self.ready and not self._closed and len(self._early) >= 4:
            (length,) = codec.LENGTH.unpack_from(self._early)
            if length > _MAX_HANDSHAKE_BYTES:
                raise handshake.HandshakeError(f"a handshake frame of {length} bytes: not a Shoal process")
            if len(self._early) < 4 + length:
                return
            body, self._early = self._early[4 : 4 + length], self._early[4 + length :]
            self._on_frame(body)
        if self.ready and self._early and not self._closed:
            rest, self._early = self._early, b""
            self._receive(rest)

    def _on_hello(self, body: bytes) -> None:
        hello = _decode_hello(body)
        error = (
            (self._peer_uid_error() if self.local else "")
            or handshake.check_hello(hello)
            or self._handler.refuse(hello, self.local)
        )
        self.hello = hello
        identity = self._identity
        if error:
            self._write(
                codec.encode_frame(frames.HelloReply(nonce=b"", proof=b"", node_id=b"", worker_id=b"", error=error))
            )
            self.close(f"refused: {error}")
            return
        reply = frames.HelloReply(
            nonce=self._nonce,
            proof=handshake.answer_hello(identity.token, hello, self._nonce),
            node_id=identity.node_id,
            worker_id=b"",
            arena_size=identity.arena_size if self.shares_arena else 0,
        )
        frame = codec.encode_frame(reply)
        # A fresh socket's buffer takes these few hundred bytes whole, or the peer is not worth serving.
        if self._send_reply(frame) != len(frame):
            raise handshake.HandshakeError("the handshake's answer did not fit in the socket's buffer")
        self._on_frame = self._on_proof

    def _send_reply(self, frame: bytearray) -> int:
        if not self.shares_arena:
            return self._sock.send(frame)
        assert isinstance(self._sock, socket.socket)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self._identity.arena_fd]))]
        return self._sock.sendmsg([frame], rights)

    def _on_proof(self, body: bytes) -> None:
        assert self.hello is not None
        handshake.check_proof(self._identity.token, self.hello.nonce, self._nonce, _decode_proof(body))
        self._deadline.cancel()
        self.ready = True
        self._handler.connected(self)

    def _peer_uid_error(self) -> str:
        assert isinstance(self._sock, socket.socket)
        uid = unix.user_of(self._sock)
        if uid in (os.getuid(), 0):
            return ""
        return f"user {uid} may not join a node that runs as user {os.getuid()}: run both as the same user"

    # --- writing ---

    def _write(self, data: bytes | bytearray) -> None:
        if not self._out:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                # The reader sees the end too, in its own turn: closing here would re-enter the caller's loops.
                self._loop.call_soon(self.close, f"write failed: {error}")
                return
            if sent == len(data):
                return
            self._loop.add_writer(self._fd, self._flush)
            data_left = memoryview(data)[sent:]
        else:
            data_left = memoryview(data)
        self._out.append(data_left)
        self._out_bytes += len(data_left)
        if self._out_bytes > MAX_QUEUED_BYTES:
            self._loop.call_soon(self.close, f"the peer left {self._out_bytes} bytes unread")

    def _flush(self) -> None:
        room = _STEP_BYTES
        while self._out and room > 0:
            head = self._out[0]
            try:
                sent = self._sock.send(head[:room])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.close(f"write failed: {error}")
                return
            room -= sent
            self._out_bytes -= sent
            if sent == len(head):
                self._out.popleft()
            else:
                self._out[0] = head[sent:]
        if not self._out:
            with contextlib.suppress(OSError):
                self._loop.remove_writer(self._fd)
