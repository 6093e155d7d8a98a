"""Actors as their callers see them: creation through the GCS, calls straight to the actor's worker."""

from __future__ import annotations

import logging
import pickle
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.actors import CONNECTED, DEAD, RESOLVING, ActorClient
from shoal._core.object_ref import ObjectRef
from shoal._core.objects import ObjectEntry
from shoal._core.tasks import FunctionRecord, TaskRecord
from shoal._net.gcs.errors import AlreadyExists, ClientClosed, NotFound
from shoal._net.gcs.records import ActorRecord, ActorSpec
from shoal._owner.arguments import PackedArguments, await_arguments, resolve_arguments
from shoal._owner.task_submitter import (
    POLL_EVERY,
    create_returns,
    new_record,
)
from shoal._wire.peer_frames import ERROR, PushTasks, TaskReply, Value
from shoal_common.kinds import ExitKind
from shoal_common.states import ActorState

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

logger = logging.getLogger("shoal")

#: Asking the GCS for an actor that cannot be reached is repeated after so many seconds.
RESOLVE_AGAIN_S = 0.2


class ActorSubmitter:
    """All actors that this process calls. Methods take the core's lock unless they say that the caller holds it."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        #: Kept by handles, by the connection to a living actor, and by what is under way.
        self._clients: weakref.WeakValueDictionary[bytes, ActorClient] = weakref.WeakValueDictionary()
        self._by_worker: dict[bytes, ActorClient] = {}
        #: Clients with calls that wait to be sent together.
        self.dirty: set[ActorClient] = set()
        self._since_poll = 0
        self._method_functions: dict[str, FunctionRecord] = {}

    # -- life ---------------------------------------------------------------------------------------

    def client(self, actor_id: bytes, *, in_order: bool = True, concurrency: int = 1) -> ActorClient:
        with self._core.lock:
            client = self._clients.get(actor_id)
            if client is None:
                client = ActorClient(actor_id, self, in_order=in_order, window=concurrency)
                self._clients[actor_id] = client
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
        self.dirty.clear()

    def owns_living(self) -> bool:
        """Whether actors live that end with this process."""
        return any(client.creation is not None and client.state != DEAD for client in self._clients.values())

    def lifetime_ref(self, on_free: Callable[[], None]) -> ObjectRef[Any]:
        """The reference whose end is the end of the last handle. It is never resolved."""
        with self._core.lock:
            entry, ref = self._core.table.create(self._core.task_ids.next() + b"\0\0\0\0")
            entry.on_free = on_free
            return ref

    def create(self, client: ActorClient, record: TaskRecord, complete: Callable[[], ActorSpec]) -> None:
        """Register an actor as soon as the references among its arguments are ready; does not wait for either."""

        def register(_: TaskRecord) -> None:
            failed = resolve_arguments(self._core, record)
            if failed is not None:
                client.on_dead(client.version, self._bad_argument(client, failed))
                return
            self._core.gcs.actors.begin_create(complete(), created)

        def created(error: Exception | None) -> None:
            with self._core.lock:
                if self._core.closed:
                    return
                if error is not None:
                    client.on_dead(client.version, _creation_failure(client, error))
                    return
                self._registered(client)

        with self._core.lock:
            if await_arguments(self._core, record, register):
                register(record)

    def create_named(self, client: ActorClient, spec: ActorSpec) -> None:
        """Register an actor and wait until that is done. Raises: ActorAlreadyExistsError."""
        try:
            self._core.gcs.actors.create(spec)
        except exceptions.RpcError as error:
            with self._core.lock:
                client.on_dead(client.version, _creation_failure(client, error))
            if isinstance(error, AlreadyExists):
                raise exceptions.ActorAlreadyExistsError(
                    f"The name {spec.name} (namespace={spec.namespace}) is already taken. Please use a different name, "
                    f"or get the existing actor using shoal.get_actor('{spec.name}')."
                ) from None
            raise exceptions.ShoalSystemError(f"The GCS did not create actor {spec.name}: {error.message}") from error
        with self._core.lock:
            self._registered(client)

    def fail_on_bad_argument(self, client: ActorClient, record: TaskRecord) -> None:
        """Raises: ActorDiedError when an argument of the constructor is an error."""
        with self._core.lock:
            failed = resolve_arguments(self._core, record)
            if failed is not None:
                error = self._bad_argument(client, failed)
                client.on_dead(client.version, error)
                raise error

    @staticmethod
    def _bad_argument(client: ActorClient, failed: ObjectEntry) -> Exception:
        cause = pickle.loads(failed.payload)
        if isinstance(cause, exceptions.TaskError):
            return exceptions.ActorDiedError(cause, actor_id=client.actor_id.hex())
        return exceptions.ActorDiedError(
            actor_id=client.actor_id.hex(), reason=f"A constructor argument failed: {cause}"
        )

    def _registered(self, client: ActorClient) -> None:
        client.registered = True
        if client.killed:
            self._send_kill(client)
        elif client.released:
            self._send_release(client)
        self.resolve(client)

    def release(self, client: ActorClient) -> None:
        """The last handle of an actor that this process created is gone. Caller holds the lock."""
        client.released = True
        client.creation = None
        if client.registered:
            self._send_release(client)

    def _send_release(self, client: ActorClient) -> None:
        def done(error: Exception | None) -> None:
            if error is not None and not self._core.closed:
                logger.warning("The end of actor %s could not be told to the GCS: %s", client.actor_id.hex(), error)

        try:
            self._core.gcs.actors.begin_release(client.actor_id, done)
        except (ClientClosed, exceptions.LocalRayletDiedError):
            return  # the session has ended, and the actor with it

    def _send_kill(self, client: ActorClient) -> None:
        def done(error: Exception | None) -> None:
            if error is not None and not self._core.closed:
                logger.warning("Actor %s could not be killed: %s", client.actor_id.hex(), error)

        self._core.gcs.actors.begin_kill(client.actor_id, done)

    def kill(self, client: ActorClient, no_restart: bool) -> None:
        """Waits until the GCS has taken the order; one that does not know the actor yet gets it later."""
        with self._core.lock:
            if client.creation is not None and not client.registered:
                if no_restart:
                    client.killed = True
                    client.on_dead(
                        client.version,
                        exceptions.ActorDiedError(
                            actor_id=client.actor_id.hex(),
                            reason="It was killed by shoal.kill() before it was created.",
                        ),
                    )
                return
        self._core.gcs.actors.kill(client.actor_id, no_restart=no_restart)
        with self._core.lock:
            # Do not push further calls into the dying worker.
            if client.state == CONNECTED:
                self._forget_worker(client)
                client.on_disconnected()
                self.resolve(client)

    def resolve(self, client: ActorClient) -> None:
        """Ask the GCS where the actor is, or what has become of it."""

        def done(actor: ActorRecord | None, error: Exception | None) -> None:
            with self._core.lock:
                if self._core.closed:
                    return
                self._on_state(client, actor, error)

        try:
            self._core.gcs.actors.begin_wait(client.actor_id, client.version, done)
        except (ClientClosed, exceptions.LocalRayletDiedError):
            return  # the session, or the node, has ended

    def _on_state(self, client: ActorClient, actor: ActorRecord | None, error: Exception | None) -> None:
        if client.state == DEAD:
            return  # killed here while the question was under way
        if actor is None:
            # A handle can arrive before its actor is registered; the GCS waits for that before it says so.
            if isinstance(error, NotFound):
                client.on_dead(
                    client.version,
                    exceptions.ActorDiedError(
                        actor_id=client.actor_id.hex(), reason="The GCS does not know this actor (any more)."
                    ),
                )
            else:
                self._core.reactor.call_later(RESOLVE_AGAIN_S, lambda: self.resolve(client))
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
            client.cause = disconnected_error(actor) if same else unavailable_error(actor)
            client.on_lost_connection_only()
        connection = self._core.peers.connect(address)
        if connection is None:
            # Its process has just died and the GCS does not know yet: the next version will tell.
            client.version = actor.version
            self._core.reactor.call_later(0.01, lambda: self.resolve(client))
            return
        self._forget_worker(client)
        self._by_worker[address.worker_id] = client
        client.on_alive(actor.version, address.worker_id, connection, time.monotonic())

    def _forget_worker(self, client: ActorClient) -> None:
        if self._by_worker.get(client.worker_id) is client:
            del self._by_worker[client.worker_id]

    def on_worker_disconnected(self, worker_id: bytes) -> None:
        """Caller holds the lock."""
        client = self._by_worker.pop(worker_id, None)
        if client is None or client.state != CONNECTED:
            return
        if client.connection.authenticated:
            client.on_disconnected()
            self.resolve(client)
        else:
            client.on_unconnected()
            self._core.reactor.call_later(RESOLVE_AGAIN_S, lambda: self.resolve(client))

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
    ) -> list[ObjectRef[Any]]:
        core = self._core
        function = self._method_functions.get(method)
        if function is None:
            function = self._method_functions[method] = FunctionRecord(b"", method)
        record = new_record(core, function, packed, num_returns, retries, retry_exceptions)
        push = record.push
        if hold is not None:
            record.holds = [hold] if record.holds is None else [*record.holds, hold]
        if concurrency_group:
            push.concurrency_group = concurrency_group
        with core.lock:
            refs = create_returns(core, record, num_returns)
            if record.arguments is not None:
                await_arguments(core, record, lambda _: client.flush(time.monotonic()))
            if client.submit(record, time.monotonic()):
                if not self.dirty:
                    core.reactor.call_later(0.001, core.flush)
                self.dirty.add(client)
            elif client.state == RESOLVING and client.version == 0:
                client.version = -1  # being asked
                self.resolve(client)
        self._since_poll += 1
        if self._since_poll >= POLL_EVERY:
            self._since_poll = 0
            core.reactor.poll_now()
        return refs

    def flush(self) -> None:
        """Caller holds the lock."""
        now = time.monotonic()
        while self.dirty:
            self.dirty.pop().flush(now)

    def on_replies(self, worker_id: bytes, replies: list[TaskReply]) -> None:
        """Caller holds the lock."""
        client = self._by_worker.get(worker_id)
        if client is None:
            return
        for reply in replies:
            record = client.on_reply(reply.task_id)
            if record is None:
                continue
            if reply.retriable and record.retries_left != 0:
                if record.retries_left > 0:
                    record.retries_left -= 1
                record.push.attempt += 1
                client.resubmit(record, time.monotonic())
            else:
                self._core.tasks.complete(record, reply, worker_id)
        if client.queue:
            client.flush(time.monotonic())

    # -- port of the clients ----------------------------------------------------------------------------

    def push_calls(self, client: ActorClient, records: list[TaskRecord]) -> None:
        pushes = []
        failures = []
        for record in records:
            failed = resolve_arguments(self._core, record)
            if failed is None:
                pushes.append(record.push)
            else:
                del client.in_flight[record.push.task_id]
                failures.append((record, failed))
        if pushes:
            client.connection.send(PushTasks(pushes))
        # Only now: who waits for a failed call may make the next one, which must not overtake these.
        for record, failed in failures:
            self._core.tasks.finish(record, [Value(ERROR, failed.payload)] * len(record.entries))

    def fail_call(self, client: ActorClient, record: TaskRecord) -> None:
        error = client.cause
        if error is None:
            error = exceptions.ActorUnavailableError("The actor's process cannot be reached", client.actor_id.hex())
        self._core.tasks.fail(record, error)


def _creation_failure(client: ActorClient, error: Exception) -> Exception:
    detail = error.message if isinstance(error, exceptions.RpcError) else str(error)
    return exceptions.ActorDiedError(actor_id=client.actor_id.hex(), reason=f"It was not created: {detail}")


def death_error(actor: ActorRecord) -> Exception:
    """What callers of a dead actor get."""
    actor_id = actor.actor_id.hex()
    if actor.creation_error:
        cause = pickle.loads(actor.creation_error)
        if isinstance(cause, exceptions.TaskError):
            return exceptions.ActorDiedError(cause, actor_id=actor_id, class_name=actor.class_name)
        return exceptions.ActorDiedError(actor_id=actor_id, class_name=actor.class_name, reason=str(cause))
    if actor.group_removed:
        return exceptions.ActorPlacementGroupRemoved()
    if actor.unschedulable:
        return exceptions.ActorUnschedulableError(actor.death_reason)
    if actor.exit_kind is ExitKind.NODE_OUT_OF_MEMORY and not actor.killed:
        return exceptions.OutOfMemoryError(f"Actor {actor.class_name} was killed: {actor.exit_detail}")
    return exceptions.ActorDiedError(
        actor_id=actor_id,
        class_name=actor.class_name,
        name=actor.name,
        namespace=actor.namespace,
        pid=actor.pid,
        reason=actor.death_reason,
        never_started=actor.incarnation == 0,
    )


def unavailable_error(actor: ActorRecord) -> Exception:
    detail = f" ({actor.exit_detail})" if actor.exit_detail else ""
    return exceptions.ActorUnavailableError(
        f"the worker of this {actor.class_name} died{detail}, and it is being restarted", actor.actor_id.hex()
    )


def disconnected_error(actor: ActorRecord) -> Exception:
    return exceptions.ActorUnavailableError(
        f"the connection to this {actor.class_name} on node {actor.address.node_id.hex()} was lost, and it lives",
        actor.actor_id.hex(),
    )
