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
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from shoal_common.channel import codec, frames, handshake, unix
from shoal_common.channel.frame_socket import AnySocket
from shoal_common.channel.handshake import Accepting, Authenticated, Introduced

log = structlog.get_logger(__name__)

#: So much goes out in one turn of the loop, a fraction of a millisecond: others want to be served too.
_STEP_BYTES = 1024 * 1024
#: By then all has been read that a socket's buffer held: the peer may go on sending for ever.
_CATCH_UP_READS = 64


class ChannelHandler(Protocol):
    """What is done with a peer. All calls come from the event loop's thread. A peer is given up when one of them raises
    over what it has sent: it might wait for an answer for ever."""

    def refuse(self, hello: frames.Hello, local: bool) -> str:
        """Why this peer cannot be served, or "". Called before the peer has proved that it knows the token.

        ``local``: it came over the Unix socket, and so is of this node."""

    def connected(self, connection: Connection) -> None: ...
    def received(self, connection: Connection, message: frames.Message) -> None: ...
    def closed(self, connection: Connection) -> None:
        """``connection.ready`` tells whether it ever was connected."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What this raylet proves and tells of itself in handshakes."""

    token: str
    node_id: bytes
    #: Handed to the processes of the node.
    arena_fd: int = -1
    #: In bytes.
    arena_size: int = 0


class Connection:
    """A driver's, worker's or raylet's end of the channel, as this raylet sees it."""

    def __init__(
        self,
        sock: AnySocket,
        handler: ChannelHandler,
        loop: asyncio.AbstractEventLoop,
        side: Accepting | None,
        *,
        local: bool = False,
        arena: Identity | None = None,
    ) -> None:
        """``side``: the handshake to come; None = this raylet has made the connection, and its handshake is over.
        ``local``: a Unix socket, by which the kernel tells the peer's user, and the descriptor of its
        ``arena`` travels, if it gets one."""
        self.hello: frames.Hello | None = None
        self.local = local
        self.shares_arena = arena is not None
        self.ready = side is None
        self._sock = sock
        self._handler = handler
        self._loop = loop
        self._side = side
        self._arena = arena
        self._fd = sock.fileno()
        self._decoder = codec.Decoder(frames.RayletMessage)
        self._out: deque[memoryview] = deque()
        self._out_bytes = 0
        self._closed = False
        self._reads = 0
        #: Answers made while a batch of requests is worked off go out in one write.
        self._corked: list[bytearray] | None = None
        loop.add_reader(self._fd, self._read)

    @property
    def role(self) -> str:
        return self.hello.role if self.hello else ""

    @property
    def worker_id(self) -> bytes:
        return self.hello.worker_id if self.hello else b""

    @property
    def closed(self) -> bool:
        return self._closed

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

    def catch_up(self) -> None:
        """Read what the peer has sent until now. Not while a message of its is handled."""
        for _ in range(_CATCH_UP_READS):
            before = self._reads
            if self._closed:
                return
            self._read()
            if self._reads == before:
                return

    def drain(self, reason: str = "") -> None:
        """The peer is gone: read what it had sent, then close."""
        while not self._closed:
            before = self._reads
            self._read()
            if self._reads == before:
                self.close(reason)

    def close(self, reason: str = "") -> None:
        """Idempotent. Tells the handler once."""
        if self._closed:
            return
        self._closed = True
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
            if self._side is None:
                self._receive(data)
            else:
                self._shake_hands(self._side, data)
        except (msgspec.DecodeError, handshake.HandshakeError) as error:
            self.close(str(error))
        except Exception as error:
            log.exception("channel_defect", role=self.role, worker_id=self.worker_id.hex())
            self.close(f"a defect: {type(error).__name__}: {error}")

    def _receive(self, data: bytes) -> None:
        received = self._handler.received
        corked: list[bytearray] = []
        self._corked = corked
        try:
            for message in self._decoder.feed(data):
                try:
                    received(self, message)
                except Exception as error:
                    error.add_note(f"While it handled {type(message).__name__}.")
                    raise
                if self._closed:
                    return
        finally:
            self._corked = None
            if corked and not self._closed:
                self._write(b"".join(corked))

    def _shake_hands(self, side: Accepting, data: bytes) -> None:
        """Raises: HandshakeError, msgspec.DecodeError."""
        try:
            event = side.receive(data)
        except handshake.HandshakeError:
            self._answer(side.to_send())  # why, where that may be said
            raise
        if isinstance(event, Introduced):
            self.hello = event.hello
            if error := self._peer_uid_error() or self._handler.refuse(event.hello, self.local):
                side.refuse(error)
                self._answer(side.to_send())
                raise handshake.HandshakeError(f"refused: {error}")
            side.accept(self._arena.arena_size if self._arena is not None else 0)
            self._answer(side.to_send(), self._arena)
        elif isinstance(event, Authenticated):
            self._side = None
            self.ready = True
            self._handler.connected(self)
            if event.rest and not self._closed:
                self._receive(event.rest)

    def _answer(self, data: bytes, arena: Identity | None = None) -> None:
        """Raises: HandshakeError."""
        if not data:
            return
        try:
            if arena is None:
                sent = self._sock.send(data)
            else:
                assert isinstance(self._sock, socket.socket)
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [arena.arena_fd]))]
                sent = self._sock.sendmsg([data], rights)
        except OSError as error:
            raise handshake.HandshakeError(f"the handshake's answer could not be sent: {error}") from error
        # A fresh socket's buffer takes these few hundred bytes whole, or the peer is not worth serving.
        if sent != len(data):
            raise handshake.HandshakeError("the handshake's answer did not fit in the socket's buffer")

    def _peer_uid_error(self) -> str:
        if not self.local:
            return ""
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
                # Its last words are still to be read. Not from here: that would re-enter the caller's loops.
                self._loop.call_soon(self.drain, f"write failed: {error}")
                return
            if sent == len(data):
                return
            self._loop.add_writer(self._fd, self._flush)
            data_left = memoryview(data)[sent:]
        else:
            data_left = memoryview(data)
        self._out.append(data_left)
        self._out_bytes += len(data_left)
        if self._out_bytes > codec.MAX_UNREAD_BYTES:
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
                self.drain(f"write failed: {error}")
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
