"""The port for clients outside of the cluster: ``shoal.init("shoal://host:port")`` of theirs is a session here.

A session outlives its connection for a while, so that a client whose network was cut finds everything as it was.
"""

from __future__ import annotations

import asyncio
import socket

import structlog

from shoal_common.channel import tcp
from shoal_common.channel.frame_socket import AnySocket
from shoal_common.channel.gateway_handshake import SESSION_ID_BYTES, Greeting, SessionOpen, SessionOpened
from shoal_common.channel.handshake import HANDSHAKE_TIMEOUT_S, HandshakeError
from shoal_common.service.background import Background
from shoal_common.tls import Tls
from shoal_raylet.gateway.session import GatewaySession, Inside

log = structlog.get_logger(__name__)

#: Clients at a time.
MAX_SESSIONS = 512
#: Connections in the handshake at a time.
_MAX_GREETINGS = 256
_ACCEPT_PAUSE_S = 0.5


class Gateway:
    """Belongs to one event loop."""

    def __init__(self, host: str, port: int, *, token: str, tls: Tls | None, grace_s: float) -> None:
        """``port``: 0 takes a free one. ``grace_s``: a session without a connection ends after it, in seconds."""
        self._host = host
        #: The TCP port, once started.
        self.port = port
        self._token = token
        self._tls = tls
        self._grace_s = grace_s
        self._listener: socket.socket | None = None
        self._sessions: dict[bytes, GatewaySession] = {}
        self._greetings = Background()

    def listen(self) -> None:
        """Take the port; clients wait until ``start``. Raises: OSError when it is in use."""
        self._loop = asyncio.get_running_loop()
        self._listener = tcp.listen(self._host, self.port)
        self.port = self._listener.getsockname()[1]

    def start(self, inside: Inside) -> None:
        assert self._listener is not None
        self._inside = inside
        self._loop.add_reader(self._listener.fileno(), self._accept)
        log.info("gateway_started", host=self._host, port=self.port)

    async def stop(self, reason: str) -> None:
        """End all sessions; the clients are told why. Idempotent."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        await self._greetings.stop()
        await asyncio.gather(*(session.finish(reason) for session in list(self._sessions.values())))

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors: the listener stays readable, so look away for a while instead of spinning.
                log.error("gateway_accept_failed", reason=str(error))
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(_ACCEPT_PAUSE_S, self._resume_accepting)
                return
            if len(self._greetings) >= _MAX_GREETINGS:
                sock.close()
                continue
            sock.setblocking(False)
            self._greetings.spawn(self._greet(sock, peer[0]))

    def _resume_accepting(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    async def _greet(self, accepted: socket.socket, peer: str) -> None:
        sock: AnySocket = accepted
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                sock = tcp.accepted(accepted, self._tls)
                greeting = Greeting(sock)
                hello, wanted = await greeting.authenticate(self._token, self._inside.node_id)
                session = self._find(hello.worker_id, wanted)
                if isinstance(session, str):
                    await greeting.answer(SessionOpened(node_id=self._inside.node_id, error=session))
                    raise HandshakeError(session)
                await greeting.answer(
                    SessionOpened(
                        received=session.detach(),
                        grace_s=self._grace_s,
                        address=session.address,
                        node_id=self._inside.node_id,
                        session_dir=str(self._inside.sockets_dir.parent),
                    )
                )
        except (OSError, HandshakeError) as error:  # a timeout is an OSError too
            log.info("client_refused", peer=peer, reason=str(error) or "no handshake in time")
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        session.attach(sock, wanted.received, greeting.rest)

    def _find(self, worker_id: bytes, wanted: SessionOpen) -> GatewaySession | str:
        """The session, begun if need be, or why there is none."""
        session_id = wanted.session_id
        session = self._sessions.get(session_id)
        if session is not None:
            return session
        if wanted.resumes:
            return (
                f"the session is over: the gateway ends one that has no connection for {self._grace_s:g} s, or it has "
                "been restarted"
            )
        if len(session_id) != SESSION_ID_BYTES or not worker_id:
            return "malformed handshake"
        if len(self._sessions) >= MAX_SESSIONS:
            return f"this gateway serves {MAX_SESSIONS} clients already: connect to another node's"

        def forget() -> None:
            del self._sessions[session_id]

        try:
            session = GatewaySession(worker_id, self._inside, self._grace_s, forget)
        except OSError as error:
            return f"the gateway cannot listen for the client: {error}"
        self._sessions[session_id] = session
        return session
