"""The node's shell: messages and process events in, decisions of the pure modules carried out.

One method a message; whatever changes who may run where ends in ``_schedule``, which asks the deciding modules
what to do now and sets the timer for when they want to be asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from shoal_common.channel import frames
from shoal_common.errors import InvalidRequest, NotFound, ServiceError
from shoal_common.events.node_events import ClusterEvent, ProcessInfo
from shoal_common.kinds import ExitKind
from shoal_common.placement.resources import ResourceSet
from shoal_common.service.background import Background
from shoal_proto.v1 import gcs_pb2
from shoal_raylet.actions import (
    Action,
    AskAllowance,
    AskScheduler,
    AskWorkerToExit,
    CollectGarbage,
    KillWorker,
    ManyWorkers,
    PrepareEnvironment,
    ReleaseEnvironment,
    ReportActorStarted,
    Send,
    StartWorker,
    WorkersUnstartable,
)
from shoal_raylet.answers import Answers
from shoal_raylet.channel.connection import Connection
from shoal_raylet.cluster.garbage import GarbageCalls
from shoal_raylet.cluster.node_events import NodeEvents
from shoal_raylet.cluster.nodes import NodeDirectory
from shoal_raylet.cluster.reports import GcsReports
from shoal_raylet.deadline import DeadlineTimer
from shoal_raylet.leases.actor_placement import ActorPlacement, PlacedActor
from shoal_raylet.leases.allowances import AllowanceAnswer
from shoal_raylet.leases.bundle_reservations import BundleReservations
from shoal_raylet.leases.exit_reason import ExitReason
from shoal_raylet.leases.memory_policy import Victim
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.scheduler_answer import SchedulerAnswer
from shoal_raylet.leases.worker_leases import WorkerLeases
from shoal_raylet.leases.worker_pool import Worker, WorkerPool
from shoal_raylet.object_store import ObjectStore
from shoal_raylet.objects.leaving import Ending
from shoal_raylet.peers import Handlers, Peers
from shoal_raylet.transfer.checkpoints import Checkpoints
from shoal_raylet.workers.ends import WorkerEnds
from shoal_raylet.workers.environments.cache import SetupFailed
from shoal_raylet.workers.environments.manager import EnvironmentManager
from shoal_raylet.workers.function_cache import FunctionCache
from shoal_raylet.workers.last_replies import LastReplies
from shoal_raylet.workers.memory_monitor import MemoryMonitor
from shoal_raylet.workers.metrics import ProcessMetrics
from shoal_raylet.workers.output import WorkerOutput
from shoal_raylet.workers.processes import WorkerProcesses

log = structlog.get_logger(__name__)

#: A worker whose connection has ended may take this long to exit, in seconds.
_EXIT_GRACE_S = 2.0
#: How often it is looked whether the files of the runtime environments are still there, in seconds.
_LOOK_AFTER_ENVIRONMENTS_S = 1.0


@dataclass
class Node:
    """Belongs to one event loop. The parts are made, started and stopped by ``app``."""

    node_id: bytes
    incarnation: int
    ledger: ResourceLedger
    bundles: BundleReservations
    pool: WorkerPool
    leases: WorkerLeases
    actors: ActorPlacement
    peers: Peers
    processes: WorkerProcesses
    environments: EnvironmentManager
    ends: WorkerEnds
    output: WorkerOutput
    store: ObjectStore
    functions: FunctionCache
    checkpoints: Checkpoints
    last_replies: LastReplies
    reports: GcsReports
    monitor: MemoryMonitor
    directory: NodeDirectory
    garbage: GarbageCalls
    metrics: ProcessMetrics
    events: NodeEvents
    #: Raises: ServiceError when no scheduler answers.
    ask_scheduler: Callable[[AskScheduler], Coroutine[Any, Any, SchedulerAnswer]]
    #: Raises: ServiceError when the GCS does not answer, NotFound when the job is over.
    ask_allowance: Callable[[AskAllowance], Coroutine[Any, Any, AllowanceAnswer]]
    #: Called when the load has changed.
    on_change: Callable[[], None]

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer = DeadlineTimer(self._loop, self._schedule)
        self._background = Background()
        self._stopping = False
        #: Besides granting nothing new, which a drain that the GCS was asked for does too, start no process any more.
        self._leaving = False
        self._drained = asyncio.Event()
        #: Worker processes that ended, since the start.
        self.ended: Counter[ExitKind] = Counter()
        answers = Answers(
            self.pool,
            self.leases,
            self.actors,
            self.peers,
            self.output,
            self.store,
            self.functions,
            self.last_replies,
            self.directory,
            self._background,
        )
        #: Of messages from processes.
        self.handlers: Handlers = {
            frames.LeaseDemand: self._lease_demand,
            frames.LeaseReturned: self._lease_returned,
            frames.LeaseKill: self._lease_kill,
            frames.Blocked: self._blocked,
            frames.Unblocked: self._unblocked,
            frames.ExitIntent: self._exit_intent,
            frames.EnvironmentPrepare: lambda _, m: self._execute(self.pool.environment_coming(m.runtime_env)),
            frames.ActorCreated: self._actor_created,
            frames.TaskReport: lambda process, message: self.events.reported(process.worker_id, message),
            frames.MetricsReport: lambda process, message: self.metrics.add(process.worker_id, message.series),
            **answers.handlers,
        }

    def start(self) -> None:
        """Begin to start workers."""
        self._background.spawn(self._watch_environments())
        self._schedule()

    async def drain(self, within_s: float) -> None:
        """The node leaves: begin nothing, and wait until the tasks that run have ended, or ``within_s`` is over."""
        self._leaving = True
        self._execute(self.leases.drain())
        self._schedule()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._drained.wait()

    def ending(self) -> Ending:
        hellos = self.peers.hellos()
        processes = {hello.worker_id for hello in hellos if hello.role in ("driver", "worker")}
        return Ending(processes, {hello.job_id for hello in hellos if hello.role == "driver"})

    async def stop(self, grace_s: float) -> None:
        """End all workers: those that do not exit within ``grace_s`` are left to ``WorkerProcesses.stop``."""
        self._stopping = True
        self.peers.stop()
        self._timer.cancel()
        for worker_id in list(self.pool.workers):
            self.ends.expect(worker_id, ExitReason(ExitKind.INTENDED_SYSTEM_EXIT, "its node has stopped"))
            self.peers.send(worker_id, frames.WorkerExit(graceful=True, reason="the node stops"))
            if worker_id not in self.peers:
                self.processes.kill(worker_id)
        await self.processes.wait_until_gone(grace_s)
        self.last_replies.stop()
        await self._background.stop()

    # --- processes that connect (peers) ---

    def connected(self, hello: frames.Hello, *, again: bool) -> None:
        if again:
            # An owner that comes again has given up its leases with its connection; not its objects.
            self._execute(self.leases.owner_gone(hello.worker_id, self._loop.time()))
        if hello.role == "driver":
            now_ms = _now_ms()
            self.events.started(ProcessInfo(hello.worker_id, hello.pid, hello.job_id, b"", now_ms, is_driver=True))
        if hello.role == "worker":
            self.monitor.registered(hello.worker_id, hello.pid)
            self.pool.registered(hello.worker_id, hello.pid, hello.address, self._loop.time())
            self._schedule()

    def closed(self, hello: frames.Hello) -> None:
        self.store.peer_gone(hello.worker_id)
        self.metrics.process_ended(hello.worker_id)
        self._execute(self.leases.owner_gone(hello.worker_id, self._loop.time()))
        if hello.role == "driver":
            self.events.ended(hello.worker_id, _now_ms())
            kept = {actor.actor_id for actor in self.actors.of_job(hello.job_id) if actor.detached}
            self.end_job(hello.job_id, kept)
            failure = self.ends.driver_left(hello.worker_id)
            self.reports.job_finished(hello.job_id, "its node has stopped" if failure and self._stopping else failure)
        elif hello.role == "worker":
            self.ends.disconnected(hello.worker_id)
        self._schedule()

    # --- messages ---

    def _lease_demand(self, connection: Connection, message: frames.LeaseDemand) -> None:
        owner = connection.worker_id
        worker = self.pool.workers.get(owner)
        assert connection.hello is not None
        job_id = worker.job_id if worker is not None else connection.hello.job_id
        try:
            actions = self.leases.demanded(owner, job_id, message, self._loop.time())
        except (ValueError, InvalidRequest) as error:
            connection.close(str(error))
            return
        self._execute(actions)
        self._schedule()

    def _lease_returned(self, connection: Connection, message: frames.LeaseReturned) -> None:
        worker_id = self.leases.worker_of(message.lease_id)
        if worker_id is not None:
            # What it printed for this lease is told under this lease's name.
            self.output.drain(worker_id)
        self.leases.returned(connection.worker_id, message.lease_id, message.worker_exits, self._loop.time())
        self._schedule()

    def _lease_kill(self, connection: Connection, message: frames.LeaseKill) -> None:
        worker_id = self.leases.worker_of(message.lease_id)
        if worker_id is not None and self.leases.owner_of(worker_id) == connection.worker_id:
            self.ends.kill(worker_id, ExitReason(ExitKind.INTENDED_SYSTEM_EXIT, message.reason))
            self._schedule()

    def _blocked(self, connection: Connection, _: frames.Blocked) -> None:
        self.ledger.lend_cpu(self._holder(connection.worker_id))
        self._schedule()

    def _unblocked(self, connection: Connection, _: frames.Unblocked) -> None:
        self.ledger.take_back_cpu(self._holder(connection.worker_id))
        self.on_change()

    def _holder(self, worker_id: bytes) -> bytes:
        worker = self.pool.workers.get(worker_id)
        return worker.actor_id or worker_id if worker is not None else worker_id

    def _exit_intent(self, connection: Connection, message: frames.ExitIntent) -> None:
        self.ends.announced(connection.worker_id, ExitReason(message.kind, message.detail))

    def _actor_created(self, connection: Connection, message: frames.ActorCreated) -> None:
        self._execute(self.actors.created(connection.worker_id, message.actor_id, message.incarnation, message.error))

    # --- other nodes (directory) ---

    def nodes_changed(self) -> None:
        own = self.directory.get(self.node_id)
        if own is not None and own.state == gcs_pb2.NODE_STATE_DRAINING and own.incarnation == self.incarnation:
            self.peers.node_drains(own.drain_deadline_unix_ms)
            if not self.leases.draining:
                self._execute(self.leases.drain())
                self._schedule()
        alone = not any(node.channel_port for node in self.directory.living() if node.node_id != self.node_id)
        if alone != self.leases.alone:
            self.leases.alone = alone
            self._schedule()

    def node_lost(self, node: gcs_pb2.NodeInfo) -> None:
        self.store.exchange.node_lost(node.node_id)
        self.peers.node_lost(node.node_id, node.death_reason)

    # --- what the GCS asks (servicer) ---

    def start_actor(self, actor: PlacedActor, need: ResourceSet) -> str:
        """Why there is no room for it now, or "": it will be reported. Idempotent by actor and incarnation."""
        if self.actors.is_known(actor.actor_id, actor.incarnation):
            return ""
        if self._stopping or self.leases.draining:
            return "the node is draining"
        # The GCS asks for a later incarnation when it did not hear that the earlier one was accepted.
        self._execute(self.actors.stop(actor.actor_id, True, "a later incarnation replaces it", self._loop.time()))
        if self.actors.get(actor.actor_id) is not None:
            return "the process of an earlier incarnation has not ended yet"
        if not self.actors.has_room(need):
            self.leases.actor_waits(actor.actor_id, need, self._loop.time())
            self._schedule()
            return f"the node has {self.ledger.unclaimed.to_units()} free, and the actor needs {need.to_units()}"
        self.leases.actor_placed(actor.actor_id)
        self.actors.accept(actor)
        self._schedule()
        return ""

    def stop_worker(self, worker_id: bytes, actor_id: bytes, force: bool, reason: str) -> None:
        now = self._loop.time()
        actor = self.actors.of_worker(worker_id) if worker_id else self.actors.get(actor_id)
        if actor is not None:
            self._execute(self.actors.stop(actor.actor_id, force, reason, now))
        elif worker_id in self.pool.workers and force:
            self.ends.kill(worker_id, ExitReason(ExitKind.INTENDED_SYSTEM_EXIT, reason))
        elif worker_id in self.pool.workers:
            self._execute([AskWorkerToExit(worker_id, reason)])
        self._schedule()

    def prepare_bundles(self, group_id: bytes, reservation: bytes, wanted: Mapping[int, ResourceSet]) -> str:
        """Why there is no room for them now, or ""."""
        if self._stopping or self.leases.draining:
            return "the node is draining"
        now = self._loop.time()
        lacking = self.bundles.prepare(group_id, reservation, wanted, now)
        if lacking:
            self._execute(self.leases.waits_in_vain([ResourceSet.sum(wanted.values())], now))
        self._schedule()
        return f"the node lacks {lacking}" if lacking else ""

    def commit_bundles(self, group_id: bytes, reservation: bytes) -> bool:
        """False = they are not held here."""
        held = self.bundles.commit(group_id, reservation)
        self.leases.bundles_changed()
        self._schedule()
        return held

    def set_aside(self, group_id: bytes, resources: ResourceSet, for_s: float) -> None:
        """For a group that waits; nothing = no longer."""
        now = self._loop.time()
        self.bundles.await_room(group_id, resources, now + for_s)
        self._execute(self.leases.waits_in_vain([resources] if resources else [], now))
        self._schedule()

    def return_bundles(self, group_id: bytes, reservation: bytes, reason: str) -> None:
        """``reservation`` empty: the group is removed, and what uses it ends."""
        now = self._loop.time()
        if not reservation:
            self._execute(self.leases.group_removed(group_id, reason, now))
            self._execute(self.actors.group_removed(group_id, reason, now))
        self.bundles.give_back(group_id, reservation)
        self.leases.bundles_changed()
        self._schedule()

    def end_job(self, job_id: bytes, kept_actor_ids: set[bytes]) -> None:
        """Kill the job's workers and delete its objects, except for its detached actors and what runs for them."""
        reason = "its job has finished"
        now = self._loop.time()
        for actor in self.actors.of_job(job_id):
            if actor.actor_id not in kept_actor_ids:
                self._execute(self.actors.stop(actor.actor_id, True, reason, now))
        kept = {worker.worker_id for worker in self.pool.of_job(job_id) if worker.actor_id in kept_actor_ids}
        for worker in self.pool.of_job(job_id):
            if worker.worker_id not in kept and self.leases.owner_of(worker.worker_id) not in kept:
                self.ends.kill(worker.worker_id, ExitReason(ExitKind.INTENDED_SYSTEM_EXIT, reason))
        self.store.job_ended(job_id, kept)
        self._schedule()

    def killed_for_memory(self, victim: Victim) -> None:
        self.ends.kill(victim.worker_id, ExitReason(victim.kind, victim.detail, victim.shared_blame))
        self._schedule()

    # --- processes ---

    def worker_exited(self, worker_id: bytes, exit_code: int | None) -> None:
        self.peers.drain(worker_id)
        self.checkpoints.worker_ended(worker_id)
        ended = self.ends.ended(worker_id, exit_code)
        self.monitor.gone(worker_id)
        tail = self.output.tail(worker_id)
        if ended is None or self._stopping:
            return
        worker, reason = ended.worker, ended.reason
        self.ended[reason.kind] += 1
        if worker.address is None:
            text = f"{reason.detail}. {tail}".strip()
            log.warning("worker_did_not_start", worker_id=worker_id.hex(), reason=text)
            self._happened("WORKER_START_FAILED", "ERROR", text, worker_id=worker_id)
            self._execute(self.pool.start_failed(worker, text, self._loop.time()))
        else:
            self.events.ended(worker_id, _now_ms(), reason.kind, reason.detail)
            self._execute(self.leases.worker_lost(worker_id, reason.kind, reason.detail, reason.shared_blame))
            self.actors.worker_lost(worker_id)
            self.last_replies.worker_ended(worker_id)
            if worker.job_id:
                self.reports.worker_died(worker, reason)
        self._schedule()

    # --- decisions ---

    def _schedule(self) -> None:
        if self._stopping:
            return
        now = self._loop.time()
        self.bundles.tick(now)
        self._execute(self.leases.tick(now))
        if self._leaving:
            if not self.leases.held:
                self._drained.set()
            self._timer.set(self.leases.next_deadline(now))
            self.on_change()
            return
        for_actors, wanted_by_actors = self.actors.dispatch(now)
        for_leases, wanted_by_leases = self.leases.dispatch(now)
        self._execute(for_actors)
        self._execute(for_leases)
        wanted = wanted_by_actors + wanted_by_leases
        self._execute(self.pool.balance(wanted, now))
        deadlines = (self.leases.next_deadline(now), self.pool.next_deadline(wanted), self.bundles.next_deadline())
        self._timer.set(min((deadline for deadline in deadlines if deadline is not None), default=None))
        self.on_change()

    def _execute(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(peer, message):
                    self.peers.send(peer, message)
                case StartWorker(worker_id, environment):
                    self.processes.launch(worker_id, environment, self.environments.launch(environment))
                case PrepareEnvironment(key, document):
                    self._background.spawn(self._prepare(key, document))
                case ReleaseEnvironment(key):
                    self.processes.environment_released(key)
                    self.environments.release(key)
                case KillWorker(worker_id, kind, detail):
                    self.ends.kill(worker_id, ExitReason(kind, detail))
                case AskWorkerToExit(worker_id, reason):
                    self.peers.send(worker_id, frames.WorkerExit(graceful=True, reason=reason))
                case WorkersUnstartable(reason, environment):
                    self._execute(self.leases.workers_unstartable(reason, environment))
                    self._execute(self.actors.workers_unstartable(reason, environment))
                case ManyWorkers(count, actors):
                    self._warn_of_many_workers(count, actors)
                case AskScheduler():
                    self._background.spawn(self._ask(action))
                case AskAllowance():
                    self._background.spawn(self._ask_allowance(action))
                case CollectGarbage():
                    self.garbage.wanted()
                case ReportActorStarted():
                    self.reports.actor_started(action, self.pool.workers.get(action.worker_id))

    async def _prepare(self, key: str, document: str) -> None:
        try:
            await self.environments.prepare(key, document)
        except SetupFailed as error:
            text = f"on node {self.node_id.hex()}: {error}"
            log.warning("environment_failed", environment=key, reason=text)
            self._happened("RUNTIME_ENV_FAILED", "ERROR", text)
            self.pool.environment_failed(key)
            self._execute(self.leases.environment_failed(key, text))
            self._execute(self.actors.environment_failed(key, text))
        else:
            self.pool.environment_prepared(key)
            self._happened("RUNTIME_ENV_READY", "INFO", f"runtime environment {key} is ready")
        self._schedule()

    async def _watch_environments(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AFTER_ENVIRONMENTS_S)
            for key in self.environments.vanished():
                log.warning("environment_vanished", environment=key)
                self._execute(self.pool.environment_vanished(key, self._loop.time()))
                self._execute(self.leases.environment_vanished(key))
                self._schedule()

    def _warn_of_many_workers(self, count: int, actors: int) -> None:
        log.warning("many_workers", count=count, actors=actors)
        text = (
            f"{count} worker processes are alive on node {self.node_id.hex()}, {actors} of them for actors, and each "
            "takes memory of its own. Fewer actors, or tasks that do not wait in get() for their own tasks, need fewer"
        )
        for job_id in {worker.job_id for worker in self.pool.workers.values() if worker.job_id}:
            self.output.tell(job_id, self.node_id, text)

    async def _ask(self, question: AskScheduler) -> None:
        answer: SchedulerAnswer | None = None
        try:
            answer = await self.ask_scheduler(question)
        except ServiceError as error:
            log.info("scheduler_not_asked", reason=str(error))
        self._execute(self.leases.answered(question.owner, question.class_key, answer, self._loop.time()))
        self._schedule()

    async def _ask_allowance(self, question: AskAllowance) -> None:
        answer: AllowanceAnswer | None = None
        try:
            answer = await self.ask_allowance(question)
        except NotFound:
            self.leases.job_ended(question.job_id)
        except ServiceError as error:
            log.info("allowance_not_asked", job_id=question.job_id.hex(), reason=str(error))
        self.leases.allowance_answered(question.job_id, question.number, answer, self._loop.time())
        self._schedule()

    def workers(self) -> list[Worker]:
        return list(self.pool.workers.values())

    # --- what is told of all that (events) ---

    def note(self) -> None:
        """What has come about by now: workers that have come, or work for another job or actor; what was spilled."""
        for told in self.store.tally.told(self._loop.time()):
            self._happened(told.kind, told.severity, told.message)
        self.events.note(self.pool.workers.values(), _now_ms())

    def _happened(self, kind: str, severity: str, message: str, **of: bytes) -> None:
        named = {"node_id": self.node_id, **of}
        told = {name: id_.hex() for name, id_ in named.items()}
        self.events.happened(ClusterEvent(_now_ms(), kind, severity, "RAYLET", message, told))


def _now_ms() -> int:
    return int(time.time() * 1_000)
