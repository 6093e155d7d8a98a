"""The part of Shoal in every driver and worker: it owns objects and tasks, and talks to everybody else.

Threads: the user's call in from above; the reactor's leader calls in from below with what has arrived. Both
hold ``lock`` while they touch tables and queues. User code and blocking waits run without it.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.object_ref import ObjectRef
from shoal._core.objects import (
    ERROR,
    INLINE,
    MAX_INLINE_BYTES,
    PACKED,
    PENDING,
    STORED,
    ObjectEntry,
    ObjectTable,
    Watcher,
)
from shoal._net import connection as channel
from shoal._net.connection import Connection, Identity
from shoal._net.dialer import Dialer, DirectDialer
from shoal._net.gcs.client import GcsClient
from shoal._net.peers import Peers
from shoal._net.questions import Questions
from shoal._net.raylets import RayletFrames, Raylets
from shoal._net.reactor import Reactor, Waiter
from shoal._owner.actor_submitter import ActorSubmitter
from shoal._owner.borrowing import Borrowing
from shoal._owner.task_submitter import TaskSubmitter
from shoal._store.local import LocalStore
from shoal._store.remote import RemoteStore
from shoal._values import ref_pickling as _ref_pickling
from shoal._values.ref_pickling import collected
from shoal._values.serialization import Serialized, loads, loads_packed, serialize
from shoal._wire.peer_frames import (
    AddBorrower,
    BorrowerAdded,
    GetValue,
    PushTasks,
    Recall,
    Recalled,
    RemoveBorrower,
    TaskReplies,
    Value,
    ValueReady,
)
from shoal_common import ids
from shoal_common.channel import frames, tcp, unix
from shoal_common.channel.frames import WorkerAddress

if TYPE_CHECKING:
    from shoal._executor.executor import Executor
    from shoal_common.tls import Tls

_STORE_ANSWERS = (frames.ObjectCreated, frames.ObjectLocated, frames.ObjectWritten, frames.ObjectPart)


class _GetWatcher:
    """``get`` waits for all, or the first error."""

    __slots__ = ("_reactor", "_waiter")

    def __init__(self, reactor: Reactor, waiter: Waiter) -> None:
        self._reactor = reactor
        self._waiter = waiter

    def ready(self, entry: ObjectEntry) -> None:
        if entry.state == ERROR:
            self._reactor.finish(self._waiter)
        else:
            self._reactor.count_down(self._waiter)


class _WaitWatcher(_GetWatcher):
    """``wait`` waits for so many, errors too."""

    __slots__ = ()

    def ready(self, entry: ObjectEntry) -> None:
        self._reactor.count_down(self._waiter)


class _CallbackWatcher:
    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def ready(self, entry: ObjectEntry) -> None:
        self._callback()


class CoreWorker:
    """One per process and session. ``connect`` builds it; ``close`` ends it."""

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
        ``address``: where it is reached instead of there and at ``socket_path``, through a gateway."""
        self.role = role
        self.worker_id = worker_id
        self.node_id = node_id
        self.gcs = gcs
        self.session_name = session_name
        self.session_dir = session_dir
        self.namespace = namespace
        #: Of the job's actors whose options do not say.
        self.default_actor_lifetime = "non_detached"
        self.host = host
        self.pid = os.getpid()
        #: What everything fails with once this process's raylet is gone.
        self.node_error = exceptions.LocalRayletDiedError()
        self.lock = threading.RLock()
        self.reactor = Reactor()
        listener = tcp.listen(listen_host, 0) if listen_host else None
        port = listener.getsockname()[1] if listener is not None else 0
        self.address = address or WorkerAddress(node_id, worker_id, socket_path, host if port else "", port)
        self.address_key = _ref_pickling.address_key(self.address)
        self._identity = Identity(
            token=token, role=role, node_id=node_id, worker_id=worker_id, job_id=job_id, address=self.address
        )
        self.borrowing = Borrowing(self)
        self.table = ObjectTable(self.borrowing.gone.append)
        self.tasks = TaskSubmitter(self)
        self.actors = ActorSubmitter(self)
        self.executor: Executor | None = None
        self.closed = False
        #: References pickled outside of Shoal's own messages: nobody counts those, so they live as long as the job.
        self._pinned_for_ever: list[ObjectRef[Any]] = []
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
            reply, arena_fd = channel.authenticate_blocking(sock, self._identity, RayletFrames)
        except BaseException:
            self.peers.close()
            raise
        self.store = (
            LocalStore(self.reactor, arena_fd, reply.arena_size, worker_id)
            if arena_fd >= 0
            else RemoteStore(self.reactor)
        )
        #: This node's.
        self.raylet = self.raylets.home = Connection(
            self.reactor,
            sock,
            self._identity,
            RayletFrames,
            lambda _, messages: self._on_raylet(node_id, messages),
            self._on_raylet_closed,
            connecting=True,
            authenticated=True,
        )
        self.store.attach(self.raylet)
        self.reactor.after_dispatch = self._after_dispatch
        self.reactor.on_tick = self._on_tick
        self._next_tick = 0.0

    def start(self) -> None:
        self.reactor.start()

    def set_job(self, job_id: bytes) -> None:
        self.job_id = job_id
        self._identity.job_id = job_id
        self.task_ids = ids.TaskIDs(ids.JobID(job_id))

    # -- objects ------------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef[Any]:
        if isinstance(value, ObjectRef):
            raise TypeError(
                "Calling 'put' on an shoal.ObjectRef is not allowed. "
                "If you really want to do this, you can wrap the ObjectRef in a list and call 'put' on it."
            )
        return self.put_serialized(serialize(value, "the put value"))

    def put_serialized(self, serialized: Serialized) -> ObjectRef[Any]:
        object_id = self.task_ids.next() + b"\0\0\0\0"
        if self.borrowing.gone:
            self.collect()
        size = serialized.size
        if size <= MAX_INLINE_BYTES:
            entry, ref = self.table.create(object_id)
            if serialized.buffers:
                entry.state, entry.payload = PACKED, serialized.packed()
            else:
                entry.state, entry.payload = INLINE, serialized.pickled
        else:
            self.write_object(object_id, serialized, self.worker_id)
            entry, ref = self.table.create(object_id)
            entry.state, entry.size, entry.node_id = STORED, size, self.node_id
        if serialized.contained:
            entry.contained = serialized.contained
        return ref

    def write_object(self, object_id: bytes, serialized: Serialized, owner: bytes) -> int:
        """Store a packed value; returns its size in bytes."""
        size = serialized.packed_size
        view = self.store.create(object_id, size, owner)
        try:
            serialized.write_packed(view)
        except BaseException:
            self.store.abort(object_id)
            raise
        finally:
            view.release()
        self.store.seal(object_id)
        return size

    def get_one(self, ref: ObjectRef[Any], timeout: float | None = None) -> Any:
        entry = ref._entry
        if entry.state == INLINE and entry.contained is None:
            return loads(entry.payload)
        deadline = None if timeout is None else time.monotonic() + timeout
        if entry.state == PENDING:
            self._wait_ready([entry], timeout)
        return self.value_of(entry, deadline)

    def get_many(self, refs: Sequence[ObjectRef[Any]], timeout: float | None = None) -> list[Any]:
        deadline = None if timeout is None else time.monotonic() + timeout
        pending = [entry for ref in refs if (entry := ref._entry).state == PENDING]
        if pending:
            failed = next((ref._entry for ref in refs if ref._entry.state == ERROR), None)
            if failed is not None:
                return [self.value_of(failed)]  # raises
            self._wait_ready(pending, timeout)
            failed = next((ref._entry for ref in refs if ref._entry.state == ERROR), None)
            if failed is not None:
                return [self.value_of(failed)]
        return [
            loads(entry.payload)
            if (entry := ref._entry).state == INLINE and entry.contained is None
            else self.value_of(entry, deadline)
            for ref in refs
        ]

    def value_of(self, entry: ObjectEntry, deadline: float | None = None) -> Any:
        """The value of a ready object, which has come to this node by ``deadline``, in the time of ``time.monotonic``.

        Raises: what it holds if that is an error; GetTimeoutError.
        """
        if entry.contained is None and entry.state != ERROR:
            return self._load(entry, deadline)
        outer, collected.unpickled = collected.unpickled, []
        try:
            value = self._load(entry, deadline)
            with self.lock:
                self.borrowing.register(collected.unpickled)
        finally:
            collected.unpickled = outer
        if entry.state == ERROR:
            raise value.as_instanceof_cause() if isinstance(value, exceptions.TaskError) else value
        return value

    def _load(self, entry: ObjectEntry, deadline: float | None) -> Any:
        if entry.state == STORED:
            return self.load_stored(entry.object_id, entry.node_id, deadline)
        if entry.state == PACKED:
            return loads_packed(entry.payload)
        return loads(entry.payload)

    def load_stored(self, object_id: bytes, home: bytes, deadline: float | None = None) -> Any:
        """The value of an object in a node's store. A task gives its CPU to others while it comes from another node."""
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        if home != self.node_id and self.executor is not None and not self.store.is_here(object_id):
            with self.executor.blocking():
                return self.store.load(object_id, home, timeout)
        return self.store.load(object_id, home, timeout)

    def _wait_ready(self, entries: list[ObjectEntry], timeout: float | None) -> None:
        """Block until all are ready or one has failed. Raises: GetTimeoutError."""
        if timeout is not None and timeout <= 0:
            self.flush()
            self.reactor.poll_now()  # what has arrived counts
        waiter = Waiter()
        watcher = _GetWatcher(self.reactor, waiter)
        with self.lock:
            waiting = self._watch_all(entries, watcher)
            if not waiting or any(entry.state == ERROR for entry in entries):
                self._unwatch(waiting, watcher)
                return
            waiter.remaining = len(waiting)
        if not self.block(waiter, timeout):
            with self.lock:
                self._unwatch(waiting, watcher)
            missing = next((entry for entry in entries if entry.state == PENDING), None)
            if missing is not None:
                raise exceptions.GetTimeoutError(
                    f"Get timed out: some object(s) not ready ({missing.object_id.hex()} among them)."
                )
        elif waiter.remaining > 0:  # an error ended it early
            with self.lock:
                self._unwatch(waiting, watcher)

    def wait(
        self, refs: list[ObjectRef[Any]], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        found = self._ready_indices(refs, num_returns)
        if len(found) < num_returns and (timeout is None or timeout > 0):
            waiter = Waiter(num_returns - len(found))
            watcher = _WaitWatcher(self.reactor, waiter)
            with self.lock:
                entries = [ref._entry for ref in refs if ref._entry.state == PENDING]
                waiter.remaining = num_returns - (len(refs) - len(entries))
                waiting = self._watch_all(entries, watcher) if waiter.remaining > 0 else []
            if waiter.remaining > 0 and waiting:
                self.block(waiter, timeout)
                with self.lock:
                    self._unwatch(waiting, watcher)
            found = self._ready_indices(refs, num_returns)
        elif len(found) < num_returns:
            self.flush()
            self.reactor.poll_now()
            with self.lock:
                for ref in refs:
                    if ref._entry.owner is not None:
                        self.borrowing.ask(ref._entry)
            found = self._ready_indices(refs, num_returns)
        if len(found) == 1:
            at = found[0]
            return [refs[at]], refs[:at] + refs[at + 1 :]
        chosen = set(found)
        return [refs[i] for i in found], [ref for i, ref in enumerate(refs) if i not in chosen]

    @staticmethod
    def _ready_indices(refs: list[ObjectRef[Any]], most: int) -> list[int]:
        found = []
        for index, ref in enumerate(refs):
            if ref._entry.state:
                found.append(index)
                if len(found) == most:
                    break
        return found

    def watch(self, entry: ObjectEntry, watcher: Watcher) -> None:
        """Caller holds the lock; ``entry`` is pending."""
        if entry.watchers is None:
            entry.watchers = [watcher]
        else:
            entry.watchers.append(watcher)
        if entry.owner is not None:
            self.borrowing.ask(entry)

    def _watch_all(self, entries: list[ObjectEntry], watcher: Watcher) -> list[ObjectEntry]:
        waiting = [entry for entry in entries if entry.state == PENDING]
        for entry in waiting:
            self.watch(entry, watcher)
        return [entry for entry in waiting if entry.state == PENDING]

    @staticmethod
    def _unwatch(entries: list[ObjectEntry], watcher: Watcher) -> None:
        for entry in entries:
            if entry.watchers is not None and watcher in entry.watchers:
                entry.watchers.remove(watcher)

    def block(self, waiter: Waiter, timeout: float | None = None) -> bool:
        """Wait without the lock; a task that blocks lends its CPU meanwhile."""
        self.flush()
        if self.executor is not None:
            with self.executor.blocking():
                return self.reactor.wait(waiter, timeout)
        return self.reactor.wait(waiter, timeout)

    # -- objects become ready (caller holds the lock) --------------------------------------------------

    def settle(self, entry: ObjectEntry, value: Value, contained: list[ObjectRef[Any]] | None = None) -> None:
        """A pending object has its value."""
        entry.state, entry.payload, entry.size, entry.node_id = value.kind, value.payload, value.size, value.node_id
        entry.contained = contained
        if value.kind == STORED and entry.owner is None:
            self.raylets.open(value.node_id)  # its death ends the object, and this process's end is seen there
        self.tell_ready(entry)

    def fail_entry(self, entry: ObjectEntry, error: Exception) -> None:
        entry.state, entry.payload = ERROR, self.pickle_error(error)
        self.tell_ready(entry)

    def tell_ready(self, entry: ObjectEntry) -> None:
        watchers = entry.watchers
        if watchers is not None:
            entry.watchers = None
            for watcher in watchers:
                watcher.ready(entry)
        if entry.tracker is None:
            freed = self.table.settled(entry)
            if freed is not None:
                self.borrowing.release([freed])

    @staticmethod
    def pickle_error(error: BaseException) -> bytes:
        return pickle.dumps(error, 5)

    def when_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        """Call back once the object is ready, perhaps at once; from any thread, under the lock."""
        entry = ref._entry
        with self.lock:
            if entry.state == PENDING:
                self.watch(entry, _CallbackWatcher(callback))
                ready = False
            else:
                ready = True
        if ready:
            callback()
        else:
            self.flush()

    # -- references ---------------------------------------------------------------------------------

    def pin_for_ever(self, refs: list[ObjectRef[Any]]) -> None:
        self._pinned_for_ever.extend(refs)

    def register_ref(self, ref: ObjectRef[Any]) -> None:
        with self.lock:
            self.borrowing.register([ref])

    def restore_ref(self, object_id: bytes, owner: WorkerAddress) -> ObjectRef[Any]:
        with self.lock:
            ref = self.borrowing.restore(object_id, owner)
            if collected.unpickled is not None:
                collected.unpickled.append(ref)
            else:
                self.borrowing.register([ref])
        return ref

    def collect(self) -> None:
        with self.lock:
            self.borrowing.collect()

    # -- peers --------------------------------------------------------------------------------------

    def _on_peer(self, connection: Connection, messages: list[Any]) -> None:
        with self.lock:
            self.peers.known(connection)
            for message in messages:
                kind = type(message)
                if kind is TaskReplies:
                    self._on_replies(connection.peer_worker_id, message)
                elif kind is PushTasks:
                    assert self.executor is not None
                    self.executor.on_push(connection, message.tasks)
                elif kind is Recall:
                    assert self.executor is not None
                    self.executor.on_recall(connection, message.count)
                elif kind is Recalled:
                    self.tasks.on_recalled(connection.peer_worker_id, message)
                elif kind is GetValue:
                    self.borrowing.on_get(connection, message)
                elif kind is ValueReady:
                    self.borrowing.on_value(message)
                elif kind is AddBorrower:
                    self.borrowing.on_add(connection, message)
                elif kind is BorrowerAdded:
                    self.borrowing.on_added(message)
                elif kind is RemoveBorrower:
                    self.borrowing.on_remove(connection, message)

    def _on_replies(self, worker_id: bytes, message: TaskReplies) -> None:
        if not self.tasks.on_replies(worker_id, message.replies):
            self.actors.on_replies(worker_id, message.replies)

    def _on_peer_gone(self, worker_id: bytes) -> None:
        if self.closed:
            return
        self.borrowing.on_peer_died(worker_id)
        self.tasks.on_worker_disconnected(worker_id)
        self.actors.on_worker_disconnected(worker_id)
        if self.executor is not None:
            self.executor.on_caller_gone(worker_id)

    # -- the raylet -----------------------------------------------------------------------------------

    def _on_raylet(self, node_id: bytes, messages: list[Any]) -> None:
        """From this node's raylet, or from another one that leases workers to this process."""
        with self.lock:
            for message in messages:
                kind = type(message)
                if kind in _STORE_ANSWERS:
                    self.store.on_answer(message)
                elif kind is frames.LeaseGranted:
                    self.tasks.on_granted(node_id, message)
                elif kind is frames.LeaseLost:
                    self.tasks.on_lost(message)
                elif kind is frames.LeaseRefused:
                    self.tasks.on_refused(node_id, message)
                elif kind is frames.LeaseReclaim:
                    self.tasks.on_reclaim(message)
                elif kind is frames.LeaseSpillback:
                    self.tasks.on_spillback(node_id, message)
                elif kind is frames.NodeFound:
                    self.raylets.on_found(message)
                elif kind is frames.ObjectUncache:
                    self.store.on_uncache(message)
                elif kind is frames.NodeLost:
                    self._on_node_lost(message)
                elif kind is frames.FunctionData or kind is frames.LogsFlushed:
                    self.questions.on_answer(message)
                elif self.executor is not None and node_id == self.node_id:
                    self.executor.on_raylet(message)

    def _on_node_lost(self, message: frames.NodeLost) -> None:
        reason = f"it was declared dead: {message.reason}"
        self.raylets.node_lost(message.node_id, reason)
        self.peers.node_lost(message.node_id, f"its node {message.node_id.hex()} is lost: {reason}")

    def _on_other_raylet_lost(self, node_id: bytes, reason: str) -> None:
        if not self.closed:
            self.tasks.on_raylet_lost(node_id, reason)

    def _on_raylet_closed(self, connection: Connection, reason: str) -> None:
        with self.lock:
            if self.closed:
                return
            if self.executor is not None:
                self.executor.on_raylet_lost()
            error = self.node_error
            for entry in list(self.table.entries.values()):
                if entry.state == PENDING:
                    self.fail_entry(entry, error)
            self.actors.on_node_lost(error)
            self.store.on_raylet_lost(error)
            self.questions.give_up()
        self.gcs.abandon(error)

    def flush_logs(self, timeout: float) -> None:
        """Every node with which this process had to do publishes what its workers have printed; returns when all have
        answered, or after ``timeout`` seconds."""
        with self.lock:
            nodes = {self.node_id} | self.raylets.nodes() | self.peers.nodes()
        self.questions.ask(nodes, frames.FlushLogs, timeout)

    # -- housekeeping ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what was held back to be sent together."""
        if self.actors.dirty:
            with self.lock:
                self.actors.flush()

    def _after_dispatch(self) -> None:
        if self.borrowing.gone:
            self.collect()
        if self.actors.dirty:
            self.flush()

    def _on_tick(self) -> None:
        self.store.release_unpinned()
        if self.borrowing.gone:
            self.collect()
        if self.executor is not None:
            self.executor.flush_stale()
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + 0.05
            with self.lock:
                self.tasks.on_tick(now)

    # -- end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """End this process's part: whoever waits gets an error, connections close, the socket file goes."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            error = exceptions.ShoalSystemError("shoal.shutdown() was called while this was pending")
            for entry in list(self.table.entries.values()):
                if entry.state == PENDING:
                    self.fail_entry(entry, error)
                else:
                    lost = exceptions.ObjectLostError(entry.object_id.hex())
                    entry.state, entry.payload, entry.contained = ERROR, self.pickle_error(lost), None
            self.store.on_raylet_lost(exceptions.LocalRayletDiedError())
            self.questions.give_up()
            # Records and queues name each other, and records are unknown to the garbage collector.
            self.tasks.forget_all()
            self.actors.forget_all()
        self.reactor.stop()
        self.raylets.close()
        self.peers.close()
        self.store.close()
        self.gcs.close()

    def abandon(self) -> None:
        """In a forked child: let go of the copied descriptors; the parent goes on unharmed."""
        self.closed = True
        self.reactor.abandon()
        self.raylets.detach()
        self.peers.detach()
        self._dialer.abandon()
