"""One framed channel to a peer: handshake, sending from any thread, receiving by the reactor's leader."""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import msgspec

from shoal._net.interrupts import GuardedLock
from shoal._net.reactor import Reactor
from shoal._values import kept_memory
from shoal_common.channel import codec, frames, handshake, tcp
from shoal_common.channel.codec import Decoder, encode_frame
from shoal_common.channel.frame_socket import AnySocket
from shoal_common.channel.frames import Hello, HelloReply, WorkerAddress
from shoal_common.channel.handshake import Accepting, Authenticated, Connecting, Introduced

logger = logging.getLogger("shoal")

#: A peer that has left less than this unread gets more without being asked.
ROOM_BYTES = 32 * 1024 * 1024
#: So much is gathered at most, to be sent in one go.
GATHERED_BYTES = 64 * 1024
#: A peer that has left more than ``MAX_UNREAD_BYTES`` unread and reads nothing for so long is given up, in seconds.
STALLED_S = 10.0
#: There is no way to a peer just now (a route is missing, or a descriptor here), which says nothing about the peer:
#: it is dialled again, as TCP itself tries again where nothing answers. ENOTCONN: connecting had failed at once.
_NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOTCONN, errno.EMFILE, errno.ENFILE)
#: After so many seconds, ``tcp.LOST_AFTER_S`` long.
DIAL_AGAIN_S = 1.0


class Identity:
    """Who this process is towards its peers."""

    def __init__(
        self, *, token: str, role: str, node_id: bytes, worker_id: bytes, job_id: bytes, address: WorkerAddress
    ) -> None:
        self.token = token
        self.role = role
        self.node_id = node_id
        self.worker_id = worker_id
        self.job_id = job_id
        self.address = address

    def connecting(self, expects: tuple[bytes, bytes] | None = None) -> Connecting:
        """This process's side of a connection that it makes."""
        hello = handshake.hello(
            self.role, node_id=self.node_id, worker_id=self.worker_id, job_id=self.job_id, address=self.address
        )
        return Connecting(self.token, hello, expects)

    def accepting(self) -> Accepting:
        """This process's side of a connection that it accepts."""
        return Accepting(self.token, self.node_id, self.worker_id)

    def with_role(self, role: str) -> Identity:
        identity = copy.copy(self)
        identity.role = role
        return identity


class Connection:
    """An authenticated connection, or one on the way to it: what is sent before is kept until then.

    ``sock`` may still be connecting. In its place there may be what dials the peer, again and again while there is no
    way to it. ``side`` is the handshake to come; None = it is over.

    ``on_messages(connection, messages)``, ``on_authenticated(connection)`` and ``on_close(connection, reason)`` run in
    the leading thread. When one of the first two raises, the connection is closed: what was asked over it may never be
    answered otherwise.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: AnySocket | Callable[[], AnySocket],
        side: Connecting | Accepting | None,
        union: Any,
        on_messages: Callable[[Connection, list[Any]], None],
        on_close: Callable[[Connection, str], None],
        on_authenticated: Callable[[Connection], None] = lambda _: None,
        read_into: memoryview | None = None,
    ) -> None:
        """``read_into``: the leading thread's memory for what is received, where no message of ``union`` has views of
        that: large messages come in fewer reads, and most are decoded where they were received.

        Raises: OSError when dialling fails for good."""
        self._reactor = reactor
        self._dial = sock if callable(sock) else None
        self._sock: AnySocket
        #: -1 = there is no socket now.
        self._fd = -1
        self._side = side
        #: The peer has made it.
        self.accepted = isinstance(side, Accepting)
        self._decoder = Decoder(union)
        self._read_into = read_into
        self._on_messages = on_messages
        self._on_close = on_close
        self._on_authenticated = on_authenticated
        #: Nobody gets or sends anything but the handshake before this is true.
        self.authenticated = side is None
        self._lock = GuardedLock()
        self._out: deque[memoryview] = deque()
        #: What was sent before the handshake has ended.
        self._held: list[bytes | bytearray] = []
        #: What is sent within ``together``; None = nobody is in there.
        self._gathered: bytearray | None = None
        #: Bytes of both.
        self._unread = 0
        self._suspected = False
        self._progress_at = 0.0
        self._when_drained: dict[Hashable, Callable[[], None]] = {}
        self._write_error: OSError | None = None
        self._watching_writes = False
        self.closed = False
        #: The peer was gone already when something was sent.
        self.undelivered = False
        #: It was closed because what came over it could not be handled.
        self.defect = False
        #: Whom it reaches, as far as that is known.
        self.peer_worker_id = b""
        self.peer_address: WorkerAddress | None = None
        #: Called in the leading thread when the handshake has ended well.
        self.then: Callable[[], None] | None = None
        self._hello = side.to_send() if isinstance(side, Connecting) else b""
        if not callable(sock):
            self._use(sock)
        else:
            self._dial_peer(sock)
        if self._hello and (self._out or self._fd < 0):
            reactor.call_later(tcp.LOST_AFTER_S, self._check_connected)

    # -- its socket ---------------------------------------------------------------------------------

    def _use(self, sock: AnySocket) -> None:
        sock.setblocking(False)
        with self._lock:
            if self.closed:
                sock.close()
                return
            self._sock, self._fd = sock, sock.fileno()
            try:
                self._reactor.register(self._fd, self._on_event)
            except ValueError:  # the session has ended meanwhile, and its poller is closed
                self._fd = -1
                sock.close()
                raise
        if self._hello:
            self._write(self._hello)

    def _dial_peer(self, dial: Callable[[], AnySocket]) -> None:
        """Raises: OSError when it fails for good."""
        try:
            sock = dial()
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise
            self._reactor.call_later(DIAL_AGAIN_S, self._dial_again)
        else:
            self._use(sock)

    def _dial_again(self) -> None:
        if self._dial is not None and not self.closed:
            try:
                self._dial_peer(self._dial)
            except OSError as error:
                self.close(str(error))

    def _no_way(self, error: OSError) -> bool:
        """The peer was not reached, and is dialled again in a while."""
        if self._dial is None or error.errno not in _NO_WAY or not isinstance(self._side, Connecting):
            return False
        with self._lock:
            if self.closed or self._side.reply is not None:
                return False
            self._let_go_of_socket()
            self._unread -= sum(map(len, self._out))
            self._out.clear()
            self._watching_writes = False
            self._write_error = None
            self.undelivered = False
        self._reactor.call_later(DIAL_AGAIN_S, self._dial_again)
        return True

    def _let_go_of_socket(self) -> None:
        """Caller holds the lock."""
        if self._fd >= 0:
            self._reactor.unregister(self._fd)
            self._sock.close()
            self._fd = -1

    # -- sending ------------------------------------------------------------------------------------

    def send(self, message: frames.Message) -> None:
        self.send_bytes(encode_frame(message))

    def send_together(self, messages: Iterable[frames.Message]) -> None:
        """In their order, in one go: the peer wakes once for all of them."""
        self.send_bytes(b"".join(map(encode_frame, messages)))

    def send_bytes(self, data: bytes | bytearray) -> None:
        """Queue or send encoded frames, in order. Silently dropped on a closed connection: ``on_close`` tells. So it
        does when the peer leaves too much unread for too long."""
        if not self.authenticated:
            with self._lock:
                if not self.authenticated:
                    self._held.append(data)
                    self._count_unread(len(data))
                    return
        self._write(data)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is sent within it goes out in one go at its end, or before when it is long: the peer wakes once for all.
        Nobody may wait in it for what that brings about. Entered by the leading thread alone."""
        self._gathered = bytearray()
        try:
            yield
        finally:
            with self._lock:
                gathered, self._gathered = self._gathered, None
                if gathered:
                    self._write(gathered)

    def _write(self, data: bytes | bytearray) -> None:
        with self._lock:
            if self.closed:
                return
            if self._gathered is not None:
                if len(self._gathered) + len(data) < GATHERED_BYTES:
                    self._gathered += data
                    return
                gathered, self._gathered = self._gathered, None
                self._write(gathered)
                self._gathered = bytearray()
            if self._out:
                self._out.append(memoryview(data))
                self._count_unread(len(data))
                return
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.undelivered = True
                self._write_error = error
                return  # the reactor sees the same error on reading and closes
            if sent < len(data):
                self._out.append(memoryview(data)[sent:])
                self._count_unread(len(data) - sent)
                self._watch_writes(True)

    def _count_unread(self, size: int) -> None:
        """Caller holds the lock."""
        self._unread += size
        if self._unread > codec.MAX_UNREAD_BYTES and not self._suspected:
            self._suspected = True
            self._reactor.call_later(STALLED_S, self._check_stalled)

    def _check_stalled(self) -> None:
        """A peer that is slow may be owed much; one that reads nothing at all is given up."""
        left = self._progress_at + STALLED_S - time.monotonic()
        if self._unread <= codec.MAX_UNREAD_BYTES:
            self._suspected = False
        elif left > 0:
            self._reactor.call_later(left, self._check_stalled)
        else:
            self.close(f"the peer has left {self._unread} bytes unread and has read nothing for {STALLED_S:g} s")

    def has_room(self) -> bool:
        """The peer has left little unread: more may be sent to it without being asked."""
        return self._unread <= ROOM_BYTES

    def has_unsent(self) -> bool:
        """The kernel has not taken all that was sent."""
        return bool(self._out)

    def when_drained(self, asker: Hashable, callback: Callable[[], None]) -> bool:
        """Call back once, in the leading thread, when the peer has read everything; the last callback of an ``asker``
        counts. False = it has room by now, and nobody is called."""
        with self._lock:
            if self._unread > ROOM_BYTES:
                self._when_drained[asker] = callback
                return True
            return False

    def _flush(self) -> None:
        with self._lock:
            while self._out:
                chunk = self._out[0]
                try:
                    sent = self._sock.send(chunk)
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    self._write_error = error
                    return
                if sent:
                    self._unread -= sent
                    self._progress_at = time.monotonic()
                if sent < len(chunk):
                    self._out[0] = chunk[sent:]
                    self._watch_writes(True)
                    return
                self._out.popleft()
            self._watch_writes(False)
            drained, self._when_drained = self._when_drained, {}
        for callback in drained.values():
            callback()

    def _check_connected(self) -> None:
        if (self._out or self._fd < 0) and not self.authenticated:
            self.close(f"no connection within {tcp.LOST_AFTER_S:g} s")

    def _watch_writes(self, on: bool) -> None:
        if on != self._watching_writes and not self.closed:
            self._watching_writes = on
            self._reactor.modify(self._fd, on)

    # -- receiving (leading thread) -------------------------------------------------------------------

    def _on_event(self, mask: int) -> None:
        try:
            self._read(mask)
        except (msgspec.DecodeError, handshake.HandshakeError) as error:
            self.close(str(error))
        except Exception as error:
            logger.exception("A defect in Shoal; the connection is closed")
            self.defect = True
            self.close(f"a defect in Shoal, of which the log tells more: {type(error).__name__}: {error}")

    def _read(self, mask: int) -> None:
        """Raises: HandshakeError, msgspec.DecodeError, whatever handlers raise."""
        if mask & 4:  # EPOLLOUT
            self._flush()
            if not mask & ~4:
                return
        try:
            if self._read_into is None or self._side is not None or not isinstance(self._sock, socket.socket):
                data: bytes | memoryview = self._sock.recv(codec.READ_BYTES)
            else:
                data = self._read_into[: self._sock.recv_into(self._read_into)]
        except BlockingIOError:
            return
        except OSError as error:
            # The first one tells: the system forgets it then.
            if not self._no_way(self._write_error or error):
                self.close(str(self._write_error or error))
            return
        if not data:
            if self._write_error is None or not self._no_way(self._write_error):
                self.close(str(self._write_error or "the peer closed the connection"))
            return
        if len(data) >= kept_memory.LONG_BYTES:
            kept_memory.made()  # of values, or of many
        messages = self._decoder.feed(data) if self._side is None else self._shake_hands(self._side, bytes(data))
        if messages:
            self._on_messages(self, messages)

    def _shake_hands(self, side: Connecting | Accepting, data: bytes) -> list[Any]:
        """Returns what came behind the handshake. Raises: HandshakeError, msgspec.DecodeError."""
        event: Introduced | Authenticated | None = None
        try:
            event = side.receive(data)
            if isinstance(event, Introduced):
                assert isinstance(side, Accepting)
                side.accept()
        finally:
            # First, before what was held.
            answer = side.to_send()
            if answer and not isinstance(event, Authenticated):
                self._write(answer)
        if not isinstance(event, Authenticated):
            return []
        peer = side.hello if isinstance(side, Accepting) else side.reply
        assert peer is not None
        self.peer_worker_id = peer.worker_id
        if isinstance(peer, Hello):
            self.peer_address = peer.address
        self._side = None
        self._become_authenticated(answer)
        self._on_authenticated(self)
        if self.then is not None:
            self.then()
        return self._decoder.feed(event.rest)

    def _become_authenticated(self, proof: bytes) -> None:
        with self._lock:
            held = b"".join(self._held)
            self._held.clear()
            if proof or held:
                self._out.append(memoryview(proof + held))
                self._unread += len(proof)
            self.authenticated = True
        self._flush()

    # -- end ----------------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """Idempotent; tells ``on_close`` once."""
        if self.close_quietly():
            self._on_close(self, reason)

    def close_quietly(self) -> bool:
        """Close without telling; False when it was closed already."""
        with self._lock:
            if self.closed:
                return False
            self.closed = True
            self._out.clear()
            self._held.clear()
            self._let_go_of_socket()
            return True

    def detach(self) -> None:
        """In a forked child: close the copied descriptor without touching the shared poller."""
        self.closed = True
        if self._fd >= 0:
            self._sock.close()


def authenticate_blocking(sock: socket.socket, identity: Identity) -> tuple[HelloReply, int]:
    """Shake hands with this process's raylet in the calling thread; returns its reply and the arena's descriptor
    (-1 = none). Raises: HandshakeError, OSError; then the socket is closed."""
    arena_fd = -1
    try:
        sock.settimeout(handshake.HANDSHAKE_TIMEOUT_S)
        side = identity.connecting()
        event = None
        while event is None:
            sock.sendall(side.to_send())
            data, fds, _, _ = socket.recv_fds(sock, 4096, 1)
            if fds:
                arena_fd = fds[0]
            if not data:
                raise handshake.HandshakeError("the raylet closed the connection during the handshake")
            event = side.receive(data)
        sock.sendall(side.to_send())
        assert side.reply is not None
        if event.rest:
            raise handshake.HandshakeError("the raylet did not follow the handshake")
        return side.reply, arena_fd
    except BaseException:
        sock.close()
        if arena_fd >= 0:
            os.close(arena_fd)
        raise
