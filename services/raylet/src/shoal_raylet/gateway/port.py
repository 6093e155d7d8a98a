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
from shoal_common.channel.listener import Listener
from shoal_common.service.background import Background
from shoal_common.tls import Tls
from shoal_raylet.gateway.session import GatewaySession, Inside

log = structlog.get_logger(__name__)

#: Clients at a time.
MAX_SESSIONS = 512


class _Greeting(Greeting):
    """A client until it has a session."""

    task: asyncio.Task[None]

    def __init__(self, sock: AnySocket, peer: str) -> None:
        super().__init__(sock)
        self.peer = peer

    def close(self, reason: str) -> None:
        log.info("client_refused", peer=self.peer, reason=reason)
        self.task.cancel()


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
        self._sock: socket.socket | None = None
        self._listener: Listener | None = None
        self._sessions: dict[bytes, GatewaySession] = {}
        self._greetings = Background()

    def listen(self) -> None:
        """Take the port; clients wait until ``start``. Raises: OSError when it is in use."""
        self._sock = tcp.listen(self._host, self.port)
        self.port = self._sock.getsockname()[1]

    def start(self, inside: Inside) -> None:
        assert self._sock is not None
        self._inside = inside
        self._listener = Listener(
            self._sock,
            asyncio.get_running_loop(),
            self._tls,
            self._accept,
            lambda error: log.error("gateway_accept_failed", reason=str(error)),
        )
        log.info("gateway_started", host=self._host, port=self.port)

    async def stop(self, reason: str) -> None:
        """End all sessions; the clients are told why. Idempotent."""
        if self._listener is not None:
            self._listener.close()
        elif self._sock is not None:
            self._sock.close()
        await self._greetings.stop()
        await asyncio.gather(*(session.finish(reason) for session in list(self._sessions.values())))

    def _accept(self, sock: AnySocket, peer: str) -> _Greeting:
        greeting = _Greeting(sock, peer)
        greeting.task = self._greetings.spawn(self._greet(greeting))
        return greeting

    async def _greet(self, greeting: _Greeting) -> None:
        sock = greeting.sock
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                hello, wanted = await greeting.authenticate(self._token, self._inside.node_id)
                session = self._find(hello.worker_id, wanted)
                if isinstance(session, SessionOpened):
                    await greeting.answer(session)
                    raise HandshakeError(session.error)
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
            log.info("client_refused", peer=greeting.peer, reason=str(error) or "no handshake in time")
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        finally:
            if self._listener is not None:
                self._listener.settled(greeting)
        session.attach(sock, wanted.received, greeting.rest)

    def _find(self, worker_id: bytes, wanted: SessionOpen) -> GatewaySession | SessionOpened:
        """The session, begun if need be, or what is answered as there is none."""

        def refused(error: str, *, over: bool = False) -> SessionOpened:
            return SessionOpened(node_id=self._inside.node_id, error=error, over=over)

        session_id = wanted.session_id
        session = self._sessions.get(session_id)
        if session is not None:
            return session
        if wanted.resumes and wanted.node_id != self._inside.node_id:
            if why := self._inside.why_dead(wanted.node_id):
                return refused(f"the gateway's node is lost: {why}", over=True)
            return refused("another gateway has the session")
        if wanted.resumes:
            return refused(
                f"the session is over: the gateway ends one that has no connection for {self._grace_s:g} s, or it has "
                "been restarted",
                over=True,
            )
        if len(session_id) != SESSION_ID_BYTES or not worker_id:
            return refused("malformed handshake")
        if len(self._sessions) >= MAX_SESSIONS:
            return refused(f"this gateway serves {MAX_SESSIONS} clients already: connect to another node's")

        def forget() -> None:
            del self._sessions[session_id]

        try:
            session = GatewaySession(worker_id, self._inside, self._grace_s, forget)
        except OSError as error:
            return refused(f"the gateway cannot listen for the client: {error}")
        self._sessions[session_id] = session
        return session
