"""Actors as their callers see them: where they are, by the GCS, and calls straight to the actor's worker."""

from __future__ import annotations

import logging
import random
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import _tracing, exceptions
from shoal._core.actors import CONNECTED, REGISTERING, RESOLVING, RESTARTING, ActorClient
from shoal._core.batches import in_messages, push_bytes
from shoal._core.object_ref import ObjectRef
from shoal._core.streams import Stream
from shoal._core.task_events import TaskEvents
from shoal._core.task_record import FunctionRecord, TaskRecord, TimeLimit
from shoal._net.gcs.actors import POLL_S, Done
from shoal._net.gcs.errors import ClientClosed, NotFound
from shoal._net.gcs.records import ActorRecord
from shoal._owner.objects.waiting import CallbackWatcher, Waiting
from shoal._owner.tasks import failures
from shoal._owner.tasks.actor_errors import death_error, disconnected_error, unavailable_error
from shoal._owner.tasks.arguments import PackedArguments, await_arguments, resolve_arguments
from shoal._owner.tasks.calls import Calls, set_time_left
from shoal._owner.tasks.lost_workers import LostWorkers
from shoal._text import check_text
from shoal._wire.peer_frames import CancelTask, PushTasks, StopTasks, TaskReply
from shoal._wire.value_kinds import PENDING
from shoal_common.channel.frames import WorkerAddress
from shoal_common.events.task_events import TaskKind
from shoal_common.states import ActorState

if TYPE_CHECKING:
    from shoal._net.connection import Connection
    from shoal._owner.process import Process

logger = logging.getLogger("shoal")

#: A handle may arrive before its actor is registered: after so many seconds it matters whether the creator lives.
UNKNOWN_S = 1.0
#: One with which the connection was lost, whose end the GCS has not heard of in so many seconds, lives: also the end of
#: its node would be known by then.
LIVES_S = 10.0
#: Asking the GCS for an actor that cannot be reached is repeated after so many seconds.
RESOLVE_AGAIN_S = 0.2


class ActorSubmitter:
    """All actors that this process calls. Methods take the core's lock unless they say that the caller holds it."""

    def __init__(self, process: Process, waiting: Waiting, calls: Calls, events: TaskEvents) -> None:
        self._process = process
        self._events = events
        self._waiting = waiting
        self._calls = calls
        #: Kept by handles, by the connection to a living actor, and by what is under way.
        self._clients: weakref.WeakValueDictionary[bytes, ActorClient] = weakref.WeakValueDictionary()
        self._by_worker: dict[bytes, ActorClient] = {}
        #: Clients with calls that wait to be sent together.
        self.dirty: set[ActorClient] = set()
        #: By class, whether events are told, and method.
        self._functions: dict[tuple[str, bool], dict[str, FunctionRecord]] = {}
        self._rng = random.Random()
        self.lost_workers = LostWorkers(process, self._on_left)

    # -- life ---------------------------------------------------------------------------------------

    def client(
        self,
        actor_id: bytes,
        class_name: str,
        *,
        in_order: bool,
        concurrency: int,
        lifetime: ObjectRef[Any] | None,
        durable: bool = False,
    ) -> ActorClient:
        """``lifetime``: the reference that counts the handle; None = it does not count."""
        entry = lifetime._entry if lifetime is not None else None
        with self._process.lock:
            client = self._clients.get(actor_id)
            if client is None:
                client = ActorClient(
                    actor_id,
                    class_name,
                    self,
                    in_order=in_order,
                    window=concurrency,
                    lifetime=entry,
                    durable=durable,
                    # Beyond all calls of an earlier client of this process: none makes a million calls a second.
                    submitted=time.monotonic_ns() // 1000 if durable else 0,
                    rng=self._rng,
                    told=self._functions.setdefault((class_name, True), {}),
                    untold=self._functions.setdefault((class_name, False), {}),
                )
                self._clients[actor_id] = client
            elif client.lifetime is None:
                client.lifetime = entry
            return client

    def on_node_lost(self, error: Exception) -> None:
        """This process's node is gone, and with it the way to every actor. Caller holds the lock."""
        for client in list(self._clients.values()):
            client.on_dead(client.version, error)

    def forget_all(self) -> None:
        """The session ends: nobody waits for any call any more. Caller holds the lock."""
        for client in list(self._clients.values()):
            client.forget_all()
        self._by_worker.clear()
        self.lost_workers.forget_all()
        self.dirty.clear()

    def owns_living(self) -> bool:
        """Whether actors live that end with this process."""
        return any(client.owned for client in self._clients.values())

    def lifetime_ref(self, client: ActorClient) -> ObjectRef[Any]:
        """The reference whose end is the end of the last handle of an actor made here. It never has a value, and is an
        error once the actor is dead."""
        with self._process.lock:
            entry, ref = self._process.table.create(self._process.new_object_id())
            entry.on_free = client.release
            client.lifetime = entry
            return ref

    def kill(self, client: ActorClient, no_restart: bool) -> None:
        """Waits until the GCS has taken the order; one that does not know the actor yet gets it later."""
        early = exceptions.ActorDiedError(actor_id=client.actor_id.hex(), reason="It was killed by shoal.kill().")
        with self._process.lock:
            if client.state == REGISTERING and not no_restart:
                return  # there is nothing yet that could be restarted
            if not client.kill(early):
                return
        self._process.gcs.actors.kill(client.actor_id, no_restart=no_restart)
        with self._process.lock:
            # Do not push further calls into the dying worker.
            if client.state == CONNECTED:
                if no_restart or not client.durable:
                    node_id = client.connection.peer_address.node_id
                    self._calls.abandon(node_id, client.in_flight.values(), until_ends=client.worker_id)
                self._forget_worker(client)
                client.on_disconnected()
                self.resolve(client)

    def resolve(self, client: ActorClient) -> None:
        """Ask the GCS where the actor is, or what has become of it."""

        def done(actor: ActorRecord | None, error: Exception | None) -> None:
            with self._process.lock:
                if not self._process.closed:
                    self._on_state(client, actor, error)

        wait_s = UNKNOWN_S if client.doubtful else LIVES_S if client.in_flight else POLL_S
        try:
            self._process.gcs.actors.begin_wait(client.actor_id, client.version, wait_s, done)
        except (ClientClosed, exceptions.LocalRayletDiedError):
            return  # the session, or the node, has ended

    def _on_state(self, client: ActorClient, actor: ActorRecord | None, error: Exception | None) -> None:
        if client.state == CONNECTED and actor is not None and actor.version > client.version:
            if actor.state is ActorState.ALIVE and actor.address.worker_id == client.worker_id:
                client.version = actor.version
                return
            # Who answered under its address (`_look_whether_it_lives`) is an incarnation that is over, and may hang.
            self._forget_worker(client)
            client.on_disconnected()
        if client.state not in (RESOLVING, RESTARTING):
            return  # killed here, or answered to another question, while this one was under way
        if self.lost_workers.has_one_of(client):
            return  # this question is from before its connection ended: it is asked anew when its last replies are here
        if actor is None:
            if isinstance(error, NotFound):
                client.on_unknown(
                    exceptions.ActorDiedError(
                        actor_id=client.actor_id.hex(),
                        reason="The GCS does not know this actor: its creator has died before it could be made, or it "
                        "is dead for so long that it was forgotten.",
                    )
                )
            else:
                self._process.reactor.call_later(RESOLVE_AGAIN_S, lambda: self.resolve(client))
            return
        if actor.state is ActorState.DEAD:
            self._forget_worker(client)
            client.on_dead(actor.version, death_error(actor))
        elif actor.state is ActorState.ALIVE:
            self._on_alive(client, actor)
        else:
            if actor.state is ActorState.RESTARTING:
                client.on_restarting(actor.version, unavailable_error(actor))
            else:
                client.version = actor.version
            self.resolve(client)

    def _on_alive(self, client: ActorClient, actor: ActorRecord) -> None:
        address = actor.address
        if client.in_flight:
            same = address.worker_id == client.worker_id
            client.cause = disconnected_error(client, actor.address.node_id) if same else unavailable_error(actor)
            client.on_lost_connection_only()
        connection = self._process.peers.connect(address)
        if connection is None:
            # Its process has just died and the GCS does not know yet: the next version will tell.
            client.version = actor.version
            self._process.reactor.call_later(0.01, lambda: self.resolve(client))
            return
        client.pid = actor.pid
        self._connected(client, actor.version, address, connection)

    def _connected(self, client: ActorClient, version: int, address: WorkerAddress, connection: Connection) -> None:
        self._forget_worker(client)
        self._by_worker[address.worker_id] = client
        self._calls.expect(address.worker_id, self)
        client.on_alive(version, address.worker_id, connection, time.monotonic())

    def _forget_worker(self, client: ActorClient) -> None:
        if self._by_worker.get(client.worker_id) is client:
            del self._by_worker[client.worker_id]
            self._calls.forget(client.worker_id, self)

    def on_worker_disconnected(self, worker_id: bytes, reason: str) -> None:
        """Caller holds the lock."""
        client = self._by_worker.pop(worker_id)
        client.disconnected_because = reason
        if client.state != CONNECTED:
            return
        if client.connection.authenticated:
            address = client.connection.peer_address
            client.on_disconnected()
            self.lost_workers.add(client, address)
        else:
            client.on_unconnected()
            self._process.reactor.call_later(RESOLVE_AGAIN_S, lambda: self.resolve(client))

    def _on_left(self, client: ActorClient, address: WorkerAddress, replies: list[TaskReply]) -> None:
        """What a worker of the actor has left is known. Caller holds the lock."""
        self._take(client, address.worker_id, replies)
        if not client.durable:  # its next incarnation gives the same answers
            self._calls.abandon(address.node_id, client.in_flight.values())
        self.resolve(client)
        if client.state == RESOLVING:
            self._look_whether_it_lives(client, address)

    def _look_whether_it_lives(self, client: ActorClient, address: WorkerAddress) -> None:
        """Its connection has ended, and perhaps nothing but that, of which the GCS hears nothing: who answers under its
        address is the same process. Caller holds the lock."""
        connection = self._process.peers.connect(address)
        if connection is None:
            return  # it has ended, as the GCS will tell
        there, version = connection, client.version

        def lives() -> None:
            with self._process.lock:
                if client.state != RESOLVING or client.version != version or client.worker_id != address.worker_id:
                    return  # the GCS was faster
                client.cause = disconnected_error(client, address.node_id)
                client.on_lost_connection_only()
                self._connected(client, version, address, there)

        if there.authenticated:
            lives()  # it has connected again by itself
        else:
            there.then = lives

    # -- calls --------------------------------------------------------------------------------------

    def submit(
        self,
        client: ActorClient,
        method: str,
        packed: PackedArguments | None,
        num_returns: int,
        retries: int,
        retry_exceptions: bool | bytes,
        concurrency_group: str,
        hold: ObjectRef[Any] | None,
        task_name: str = "",
        limit: TimeLimit | None = None,
        stream: Stream | None = None,
        events: bool = True,
    ) -> list[ObjectRef[Any]]:
        """``events``: as the option ``enable_task_events``."""
        process, calls = self._process, self._calls
        functions = client.told if events else client.untold
        function = functions.get(method)
        if function is None:
            function = functions[method] = self._function(client.class_name, method, events)
        record = calls.new_record(function, packed, num_returns, retries, retry_exceptions)
        if hold is not None:
            record.holds = [hold] if record.holds is None else [*record.holds, hold]
        if concurrency_group:
            record.push.concurrency_group = concurrency_group
        if task_name:
            record.push.task_name = task_name
        record.actor = client
        if _tracing.active is not None:
            name = task_name or f"{client.class_name}.{method}"
            record.push.trace = _tracing.active.submitted(name, record.push.task_id)
        with process.lock:
            refs = calls.create_returns(record, num_returns, stream)
            if limit is not None:
                calls.limit(record, limit, client)
            self.start(client, record)
        calls.submitted()
        return refs

    def _function(self, class_name: str, method: str, events: bool) -> FunctionRecord:
        check_text("the name of a method", method)
        process = self._process
        tally = None
        if events and process.task_events_enabled:
            with process.lock:
                name = f"{class_name}.{method}"
                tally = self._events.tally(process.job_id, name, TaskKind.ACTOR_TASK)
        return FunctionRecord(b"", method, tally=tally)

    def start(self, client: ActorClient, record: TaskRecord) -> None:
        """It is sent as soon as its arguments are there. Caller holds the lock."""
        if record.references is not None:
            ready = partial(self._ready, client, record)
            record.unready = not await_arguments(self._waiting, record.references, ready)
        if client.submit(record, time.monotonic()):
            if not self.dirty:
                self._process.reactor.call_later(0.001, self._process.flush)
            self.dirty.add(client)

    @staticmethod
    def _ready(client: ActorClient, record: TaskRecord) -> None:
        record.unready = False
        client.flush(time.monotonic())

    def flush(self) -> None:
        """Caller holds the lock."""
        now = time.monotonic()
        while self.dirty:
            self.dirty.pop().flush(now)

    def on_replies(self, worker_id: bytes, replies: list[TaskReply]) -> None:
        """Caller holds the lock."""
        client = self._by_worker[worker_id]
        self._take(client, worker_id, replies)
        if client.queue:
            client.flush(time.monotonic())

    def _take(self, client: ActorClient, worker_id: bytes, replies: list[TaskReply]) -> None:
        for reply in replies:
            before = client.in_flight.get(reply.task_id) if reply.retriable else None
            record = client.on_reply(reply.task_id, reply.retriable)
            if record is None:
                if before is not None:
                    self._calls.repeated(before, reply.failure, reply.duration_us, worker_id)
                continue
            if record.late:
                self._calls.drop(reply, worker_id)
                if record.again:
                    client.repeat(record)
            else:
                self._calls.complete(record, reply, worker_id)

    def find(self, task_id: bytes) -> tuple[ActorClient, TaskRecord] | None:
        """A call that has not ended, and its actor. Caller holds the lock."""
        for client in list(self._clients.values()):
            if (record := client.find(task_id)) is not None:
                return client, record
        return None

    def pid_of(self, worker_id: bytes) -> int:
        """0 = no actor that is called runs there."""
        client = self._by_worker.get(worker_id)
        return client.pid if client is not None else 0

    def clients(self) -> list[ActorClient]:
        """Of all actors that are known here."""
        return list(self._clients.values())

    def records(self) -> Iterator[TaskRecord]:
        """All calls that have not ended. Caller holds the lock."""
        for client in list(self._clients.values()):
            yield from client.records()

    def cancel(self, record: TaskRecord, recursive: bool) -> None:
        """A call that has not ended. Caller holds the lock."""
        record.cancel()
        assert isinstance(record.actor, ActorClient)
        if record.actor.cancel(record, recursive, time.monotonic()) or record.late:
            self._calls.cancelled(record)

    # -- port of the clients ----------------------------------------------------------------------------

    def has_room(self, client: ActorClient) -> bool:
        connection = client.connection
        return connection.has_room() or not connection.when_drained(client, partial(self._drained, client))

    def _drained(self, client: ActorClient) -> None:
        with self._process.lock:
            client.flush(time.monotonic())

    def push_calls(self, client: ActorClient, records: list[TaskRecord]) -> None:
        sent = []
        failures = []
        for record in records:
            if record.references is not None:
                resolved = resolve_arguments(self._process, record.references)
                if not isinstance(resolved, list):
                    del client.in_flight[record.push.task_id]
                    failures.append((record, resolved))
                    continue
                record.push.refs = resolved
                record.size = push_bytes(record.push)
            sent.append(record)
        set_time_left(sent)
        answered = client.answered if client.durable else 0
        for message in in_messages(sent) if sent else ():
            client.connection.send(PushTasks(message, answered))
        # Only now: who waits for a failed call may make the next one, which must not overtake these.
        for record, failed in failures:
            self._calls.fail_like(record, failed)

    def fail_call(self, client: ActorClient, record: TaskRecord) -> None:
        if record.cancelled:
            self._calls.cancelled(record)
            return
        error = client.cause
        if error is None:
            error = exceptions.ActorUnavailableError("The actor's process cannot be reached", client.actor_id.hex())
        self._calls.fail(record, error)

    def stop_call(self, client: ActorClient, record: TaskRecord) -> None:
        client.connection.send(StopTasks([record.push.task_id]))

    def tell_cancelled(self, client: ActorClient, record: TaskRecord, recursive: bool) -> None:
        client.connection.send(CancelTask(record.push.task_id, recursive=recursive, closing=record.closing))

    def renew(self, client: ActorClient, record: TaskRecord) -> None:
        self._calls.renew(record, client)

    def pause(self, client: ActorClient, record: TaskRecord, pause_s: float) -> None:
        def over() -> None:
            with self._process.lock:
                if not self._process.closed:
                    client.after_pause(record, time.monotonic())

        self._process.reactor.call_later(pause_s, over)

    def tell_repeated(self, client: ActorClient, record: TaskRecord) -> None:
        cause = client.cause
        error = cause if isinstance(cause, Exception) else exceptions.ActorUnavailableError("", client.actor_id.hex())
        self._calls.repeated(record, failures.of_system(error), worker_id=client.worker_id)

    def watch_creator(self, client: ActorClient) -> None:
        assert client.lifetime is not None
        if client.lifetime.state == PENDING:
            self._waiting.watch(client.lifetime, CallbackWatcher(partial(self.resolve, client)))

    def end_lifetime(self, client: ActorClient) -> None:
        if client.lifetime is not None and client.lifetime.state == PENDING:
            self._waiting.fail(client.lifetime, client.cause)

    def tell_released(self, client: ActorClient) -> None:
        self._tell(self._process.gcs.actors.begin_release, client, "has no handles any more")

    def tell_killed(self, client: ActorClient) -> None:
        self._tell(self._process.gcs.actors.begin_kill, client, "is killed")

    def _tell(self, begin: Callable[[bytes, Done], None], client: ActorClient, what: str) -> None:
        def done(error: Exception | None) -> None:
            if error is not None and not self._process.closed:
                logger.warning("That actor %s %s did not reach the GCS: %s", client.actor_id.hex(), what, error)

        try:
            begin(client.actor_id, done)
        except (ClientClosed, exceptions.LocalRayletDiedError):
            return  # the session has ended, and the actor with it
