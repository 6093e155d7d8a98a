"""One framed channel to a peer: handshake, sending from any thread, receiving by the reactor's leader."""

from __future__ import annotations

import copy
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from shoal._net.reactor import Reactor
from shoal_common.channel import codec, frames, handshake, tcp
from shoal_common.channel.codec import Decoder, encode_frame
from shoal_common.channel.frames import Hello, HelloProof, HelloReply, WorkerAddress

if TYPE_CHECKING:
    from shoal_common.tls import TlsSocket

#: Whoever connects by TCP must have shown the token by then, in seconds. Long, because a process whose Python code is
#: held up by a C function answers late.
ACCEPT_TIMEOUT_S = 60.0


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

    def hello(self, nonce: bytes) -> Hello:
        return Hello(
            version=frames.PROTOCOL_VERSION,
            nonce=nonce,
            role=self.role,
            node_id=self.node_id,
            worker_id=self.worker_id,
            job_id=self.job_id,
            pid=os.getpid(),
            python=handshake.python_minor(),
            address=self.address,
        )

    def with_role(self, role: str) -> Identity:
        identity = copy.copy(self)
        identity.role = role
        return identity


class Connection:
    """An authenticated connection, or one on the way to it: what is sent before is kept until then.

    ``sock`` may still be connecting. ``expects`` are the node id and the worker id of whom it should reach: a TCP
    port may have another process by now.

    ``on_messages(connection, messages)`` and ``on_close(connection, reason)`` run in the leading thread.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket | TlsSocket,
        identity: Identity,
        union: Any,
        on_messages: Callable[[Connection, list[Any]], None],
        on_close: Callable[[Connection, str], None],
        *,
        connecting: bool,
        authenticated: bool = False,
        expects: tuple[bytes, bytes] | None = None,
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self._fd = sock.fileno()
        self._identity = identity
        self._decoder = Decoder(union)
        self._on_messages = on_messages
        self._on_close = on_close
        self._connecting = connecting
        self._expects = expects
        #: Nobody gets or sends anything but the handshake before this is true.
        self.authenticated = authenticated
        self._lock = threading.Lock()
        self._out: deque[memoryview] = deque()
        #: What was sent before the handshake has ended.
        self._held: list[bytes | bytearray] = []
        self._write_error = ""
        self._watching_writes = False
        self._nonce = handshake.new_nonce()
        self._peer_nonce = b""
        self.closed = False
        #: The peer was gone already when something was sent.
        self.undelivered = False
        #: The peer's ids; empty until its side of the handshake has been seen.
        self.peer_worker_id = expects[1] if expects is not None else b""
        self.peer_address: WorkerAddress | None = None
        sock.setblocking(False)
        reactor.register(self._fd, self._on_event)
        if connecting and not authenticated:
            self._write(encode_frame(identity.hello(self._nonce)))
            if self._out:
                reactor.call_later(tcp.CONNECT_TIMEOUT_S, self._check_connected)

    # -- sending ------------------------------------------------------------------------------------

    def send(self, message: frames.Message) -> None:
        self.send_bytes(encode_frame(message))

    def send_bytes(self, data: bytes | bytearray) -> None:
        """Queue or send encoded frames, in order. Silently dropped on a closed connection: ``on_close`` tells."""
        if not self.authenticated:
            with self._lock:
                if not self.authenticated:
                    self._held.append(data)
                    return
        self._write(data)

    def _write(self, data: bytes | bytearray) -> None:
        with self._lock:
            if self.closed:
                return
            if self._out:
                self._out.append(memoryview(data))
                return
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.undelivered = True
                self._write_error = str(error)
                return  # the reactor sees the same error on reading and closes
            if sent < len(data):
                self._out.append(memoryview(data)[sent:])
                self._watch_writes(True)

    def _flush(self) -> None:
        with self._lock:
            while self._out:
                chunk = self._out[0]
                try:
                    sent = self._sock.send(chunk)
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    self._write_error = str(error)
                    return
                if sent < len(chunk):
                    self._out[0] = chunk[sent:]
                    self._watch_writes(True)
                    return
                self._out.popleft()
            self._watch_writes(False)

    def _check_connected(self) -> None:
        if self._out and not self.authenticated:
            self.close(f"no connection within {tcp.CONNECT_TIMEOUT_S:g} s")

    def require_proof(self) -> None:
        """Close it unless the peer has shown in time that it knows the token."""

        def check() -> None:
            if not self.authenticated:
                self.close(f"no handshake within {ACCEPT_TIMEOUT_S:g} s")

        self._reactor.call_later(ACCEPT_TIMEOUT_S, check)

    def _watch_writes(self, on: bool) -> None:
        if on != self._watching_writes and not self.closed:
            self._watching_writes = on
            self._reactor.modify(self._fd, on)

    # -- receiving (leading thread) -------------------------------------------------------------------

    def _on_event(self, mask: int) -> None:
        if mask & 4:  # EPOLLOUT
            self._flush()
            if not mask & ~4:
                return
        try:
            data = self._sock.recv(codec.READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(self._write_error or str(error))
            return
        if not data:
            self.close(self._write_error or "the peer closed the connection")
            return
        try:
            messages = self._decoder.feed(data)
            if not self.authenticated:
                messages = self._shake_hands(messages)
        except (msgspec.DecodeError, handshake.HandshakeError) as error:
            self.close(str(error))
            return
        if messages:
            self._on_messages(self, messages)

    def _shake_hands(self, messages: list[Any]) -> list[Any]:
        """Consumes the handshake frames; returns what came behind them."""
        while messages and not self.authenticated:
            message = messages.pop(0)
            if self._connecting and type(message) is HelloReply:
                handshake.check_reply(self._identity.token, self._nonce, message)
                if self._expects is not None and self._expects != (message.node_id, message.worker_id):
                    raise handshake.HandshakeError("another process has its address by now")
                self.peer_worker_id = message.worker_id
                proof = handshake.prove(self._identity.token, b"connecting", self._nonce, message.nonce)
                self._become_authenticated(encode_frame(HelloProof(proof)))
            elif not self._connecting and type(message) is Hello and not self._peer_nonce:
                self._answer(message)
            elif not self._connecting and type(message) is HelloProof and self._peer_nonce:
                handshake.check_proof(self._identity.token, self._peer_nonce, self._nonce, message)
                self._become_authenticated(b"")
            else:
                raise handshake.HandshakeError("the peer did not follow the handshake")
        return messages

    def _answer(self, hello: Hello) -> None:
        error = handshake.check_hello(hello)
        self._peer_nonce = hello.nonce
        self.peer_worker_id = hello.worker_id
        self.peer_address = hello.address
        proof = b"" if error else handshake.answer_hello(self._identity.token, hello, self._nonce)
        reply = HelloReply(self._nonce, proof, self._identity.node_id, self._identity.worker_id, error)
        with self._lock:
            self._sock.send(encode_frame(reply))
        if error:
            raise handshake.HandshakeError(error)

    def _become_authenticated(self, proof: bytes | bytearray) -> None:
        with self._lock:
            held = b"".join(self._held)
            self._held.clear()
            if proof or held:
                self._out.append(memoryview(proof + held))
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
            self._reactor.unregister(self._fd)
            self._sock.close()
            return True

    def detach(self) -> None:
        """In a forked child: close the copied descriptor without touching the shared poller."""
        self.closed = True
        self._sock.close()


def authenticate_blocking(sock: socket.socket, identity: Identity, union: Any) -> tuple[HelloReply, int]:
    """Shake hands with this process's raylet in the calling thread; returns its reply and the arena's descriptor
    (-1 = none). Raises: HandshakeError, OSError; then the socket is closed."""
    arena_fd = -1
    try:
        sock.settimeout(handshake.HANDSHAKE_TIMEOUT_S)
        nonce = handshake.new_nonce()
        sock.sendall(encode_frame(identity.hello(nonce)))
        decoder = Decoder(union)
        messages: list[Any] = []
        while not messages:
            data, fds, _, _ = socket.recv_fds(sock, 4096, 1)
            if fds:
                arena_fd = fds[0]
            if not data:
                raise handshake.HandshakeError("the raylet closed the connection during the handshake")
            messages = decoder.feed(data)
        reply = messages[0]
        if not isinstance(reply, HelloReply) or len(messages) > 1:
            raise handshake.HandshakeError("the raylet did not follow the handshake")
        handshake.check_reply(identity.token, nonce, reply)
        sock.sendall(encode_frame(HelloProof(handshake.prove(identity.token, b"connecting", nonce, reply.nonce))))
        return reply, arena_fd
    except BaseException:
        sock.close()
        if arena_fd >= 0:
            os.close(arena_fd)
        raise
