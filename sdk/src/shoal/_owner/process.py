"""What the parts of a driver or worker share: who it is, its objects, and its ways to the others.

``CoreWorker`` is a ``Process`` with its parts. A part takes the ``Process`` and the parts below it, and asks no more.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.lineage import Lineage
from shoal._core.objects import ObjectTable
from shoal._net import connection as channel
from shoal._net.connection import Connection, Identity
from shoal._net.dialer import Dialer, DirectDialer
from shoal._net.gcs.client import GcsClient
from shoal._net.interrupts import GuardedLock
from shoal._net.peers import Peers
from shoal._net.questions import Questions
from shoal._net.raylets import Raylets
from shoal._net.reactor import Reactor
from shoal._owner.waits import Waits
from shoal._store.client import StoreClient
from shoal._store.local import LocalStore
from shoal._store.remote import RemoteStore
from shoal._values import ref_pickling
from shoal_common import ids
from shoal_common.channel import frames, tcp, unix
from shoal_common.channel.frames import WorkerAddress

if TYPE_CHECKING:
    from shoal_common.tls import Tls


class Process(ABC):
    """Connects when it is made; nothing arrives before ``reactor.start``.

    Threads: the user's call in from above; the reactor's leader calls in from below with what has arrived. Both hold
    ``lock`` while they touch tables and queues. User code and blocking waits run without it.
    """

    def __init__(
        self,
        *,
        role: str,
        token: str,
        job_id: bytes,
        worker_id: bytes,
        node_id: bytes,
        raylet_path: str,
        gcs: GcsClient,
        socket_path: str,
        session_name: str,
        session_dir: str,
        namespace: str,
        host: str,
        listen_host: str = "",
        tls: Tls | None = None,
        dialer: Dialer | None = None,
        address: WorkerAddress | None = None,
    ) -> None:
        """``host``: where other nodes reach this process; it listens for them on ``listen_host``, "" = it does not.
        ``address``: where it is reached instead of there and at ``socket_path``, through a gateway.

        Raises: HandshakeError, OSError when this node's raylet cannot be reached.
        """
        self.role = role
        self.worker_id = worker_id
        self.node_id = node_id
        self.gcs = gcs
        self.session_name = session_name
        self.session_dir = session_dir
        self.namespace = namespace
        #: As ``init(job=...)``; empty = the job has none.
        self.job_name = ""
        #: Of the job's actors whose options do not say.
        self.default_actor_lifetime = "non_detached"
        #: As ``JobConfig.weight``.
        self.job_weight = 1.0
        #: As ``JobConfig.max_resources``, in grains; empty = as much as there is.
        self.job_quota: tuple[tuple[str, int], ...] = ()
        #: As ``JobConfig.enable_task_events``.
        self.task_events_enabled = True
        self.host = host
        self.pid = os.getpid()
        #: What everything fails with once this process's raylet is gone.
        self.node_error: Exception = exceptions.LocalRayletDiedError()
        self.closed = False
        #: What has to be said before it closes, while the others are still reached.
        self.before_close: list[Callable[[], None]] = []
        #: A worker's: around a wait of user code (see ``Lending.blocking``).
        self.blocking: Callable[[float], AbstractContextManager[None]] | None = None
        #: A worker's: whoever waits now waits for long (see ``Lending.lend_cpu``).
        self.lend_cpu: Callable[[], None] | None = None
        #: References pickled outside of Shoal's own messages: nobody counts those, so they live as long as the job.
        self.pinned_for_ever: list[Any] = []
        self.lock = GuardedLock()
        self.reactor = Reactor()
        self.table = ObjectTable()
        self.lineage = Lineage()
        self.waits = Waits()
        listener = tcp.listen(listen_host, 0) if listen_host else None
        port = listener.getsockname()[1] if listener is not None else 0
        self.address = address or WorkerAddress(node_id, worker_id, socket_path, host if port else "", port)
        self.address_key = ref_pickling.address_key(self.address)
        self._identity = Identity(
            token=token, role=role, node_id=node_id, worker_id=worker_id, job_id=job_id, address=self.address
        )
        self.set_job(job_id)
        self._dialer = dialer or DirectDialer(node_id, raylet_path, tls)
        listeners = [unix.listen(socket_path), *([listener] if listener is not None else [])]
        self.peers = Peers(
            self.reactor, self._identity, self.lock, self._dialer, listeners, tls, self._on_peer, self._on_peer_gone
        )
        self.raylets = Raylets(
            self.reactor, self._identity, self.lock, self._dialer, self._on_raylet, self._on_other_raylet_lost
        )
        self.questions = Questions(self.reactor, self.raylets, self.lock)
        try:
            sock = self._dialer.home()
            reply, arena_fd = channel.authenticate_blocking(sock, self._identity)
        except BaseException:
            self.peers.close()
            raise
        self.store: StoreClient = (
            LocalStore(self.reactor, arena_fd, reply.arena_size, worker_id)
            if arena_fd >= 0
            else RemoteStore(self.reactor)
        )
        #: This node's.
        self.raylet = self.raylets.home = Connection(
            self.reactor,
            sock,
            None,
            frames.RayletMessage,
            lambda _, messages: self._on_raylet(node_id, messages),
            self._on_raylet_closed,
        )
        self.store.attach(self.raylet)
        self._assemble()

    def set_job(self, job_id: bytes) -> None:
        self.job_id = job_id
        self._identity.job_id = job_id
        self.task_ids = ids.TaskIDs(ids.JobID(job_id))

    def new_object_id(self) -> bytes:
        """Of an object that no task makes."""
        return ids.object_of_task(self.task_ids.next(), 0)

    # -- the whole -----------------------------------------------------------------------------------

    @abstractmethod
    def _assemble(self) -> None:
        """It is connected: make the parts."""

    @abstractmethod
    def flush(self) -> None:
        """Send what was held back to be sent together: before any wait."""

    # -- what arrives, in the leading thread ------------------------------------------------------------

    @abstractmethod
    def _on_peer(self, connection: Connection, messages: list[Any]) -> None:
        """From a driver or worker."""

    @abstractmethod
    def _on_peer_gone(self, worker_id: bytes, reason: str) -> None:
        """With the lock."""

    @abstractmethod
    def _on_raylet(self, node_id: bytes, messages: list[Any]) -> None:
        """From this node's raylet, or from another one that leases workers to this process."""

    @abstractmethod
    def _on_other_raylet_lost(self, node_id: bytes, reason: str) -> None:
        """With the lock."""

    @abstractmethod
    def _on_raylet_closed(self, connection: Connection, reason: str) -> None:
        """This node's."""
