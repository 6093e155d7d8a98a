"""Carries out what the actor table decides: rows, events, calls to scheduler and raylets, waiting callers.

What others see of an actor is what the store has: ``_committed`` holds the rows as they were last written, and
answers and events are made from it. A GCS that is killed so never takes back what it has told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter

import structlog

from shoal_common.bus import subjects
from shoal_common.errors import InvalidRequest, NotFound, PreconditionFailed, ResourceExhausted, ServiceError
from shoal_common.ids import ACTOR_LENGTH
from shoal_common.metadata import MAX_VALUE_BYTES
from shoal_common.placement.resources import ResourceSet
from shoal_common.rpc.schedulers import Schedulers
from shoal_common.rpc.values import worker_address
from shoal_common.service.background import Background
from shoal_common.states import ActorState, NodeState
from shoal_gcs.actors import machine, messages
from shoal_gcs.actors import table as actor_table
from shoal_gcs.actors.checkpoints import Checkpoints, Delete
from shoal_gcs.actors.machine import Actor
from shoal_gcs.actors.table import ActorTable
from shoal_gcs.config import GcsConfig
from shoal_gcs.events import EventPublisher
from shoal_gcs.groups.table import PlacementGroupTable
from shoal_gcs.jobs.quota_manager import QuotaManager
from shoal_gcs.jobs.table import JobTable
from shoal_gcs.nodes.table import NodeTable
from shoal_gcs.peers import Raylets, insist
from shoal_gcs.store.rows import Rows, message, written
from shoal_proto.v1 import common_pb2, events_pb2, gcs_pb2, raylet_pb2, scheduler_pb2

#: A long poll is answered after this time at the latest, in seconds.
MAX_WAIT_S = 30.0

_log = structlog.get_logger()


class ActorManager:
    def __init__(
        self,
        config: GcsConfig,
        *,
        table: ActorTable,
        rows: Rows,
        spec_rows: Rows,
        jobs: JobTable,
        nodes: NodeTable,
        groups: PlacementGroupTable,
        quotas: QuotaManager,
        raylets: Raylets,
        schedulers: Schedulers,
        publisher: EventPublisher,
        background: Background,
        on_job_unused: Callable[[bytes], None],
        on_detached_dead: Callable[[bytes, str], None],
        delete_blobs: Delete,
    ) -> None:
        """``on_job_unused``: the last living actor of a job has died. ``on_detached_dead`` is told why, too."""
        self._cluster_id = config.cluster_id
        self._rows = rows
        self._spec_rows = spec_rows
        self._jobs = jobs
        self._nodes = nodes
        self._groups = groups
        self._quotas = quotas
        self._raylets = raylets
        self._schedulers = schedulers
        self._publisher = publisher
        self._background = background
        self._table = table
        #: Specs of the living; what the dead were made from is deleted.
        self._specs: dict[bytes, gcs_pb2.ActorSpec] = {}
        #: The oldest first.
        self._committed: dict[bytes, gcs_pb2.ActorInfo] = {}
        self._waiters: dict[bytes, set[asyncio.Future[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: Why the schedulers were last not reached; empty = they answer.
        self._scheduler_problem = ""
        self._on_job_unused = on_job_unused
        self._on_detached_dead = on_detached_dead
        self._checkpoints = Checkpoints(spec_rows, delete_blobs, background)

    async def load(self) -> None:
        read_specs = await self._spec_rows.load(message(gcs_pb2.ActorSpec, lambda spec: spec.actor_id.hex()))
        specs = {spec.actor_id.hex(): spec for spec in read_specs}
        infos = await self._rows.load(message(gcs_pb2.ActorInfo, lambda info: info.actor_id.hex()))
        # One half of an actor that cannot be read is no reason to delete the other.
        damaged = self._rows.unreadable | self._spec_rows.unreadable
        actors: list[Actor] = []
        for info in sorted(infos, key=attrgetter("sequence")):
            row_id = info.actor_id.hex()
            if row_id in damaged:
                continue
            spec = specs.pop(row_id, None)
            if spec is None and info.state != gcs_pb2.ACTOR_STATE_DEAD:
                # Half of a creation that was never confirmed: its owner asks again.
                self._rows.delete(row_id)
                continue
            if info.state == gcs_pb2.ACTOR_STATE_DEAD:
                if spec is not None and spec.checkpoints:
                    self._checkpoints.actor_died(info.actor_id)
                    if not info.address.node_id:
                        self._checkpoints.process_gone(info.actor_id)
                elif spec is not None:
                    self._spec_rows.delete(row_id)
            elif spec is not None:
                self._specs[info.actor_id] = spec
            self._committed[info.actor_id] = info
            actor = messages.actor_of_row(info, spec)
            self._note_quota(actor)
            actors.append(actor)
        for orphan in specs.keys() - damaged:
            self._spec_rows.delete(orphan)
        self._perform(self._table.load(actors, self._now()))

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # --- the rpcs ---

    async def create(self, spec: gcs_pb2.ActorSpec) -> None:
        if len(spec.actor_id) != ACTOR_LENGTH:
            raise InvalidRequest(f"an actor id has {ACTOR_LENGTH} bytes, this one has {len(spec.actor_id)}")
        if spec.ByteSize() > MAX_VALUE_BYTES:
            raise InvalidRequest(
                f"the actor's arguments have about {spec.ByteSize()} bytes, more than {MAX_VALUE_BYTES}: put large "
                "ones into the object store and pass their references"
            )
        if spec.job_id not in self._jobs:
            raise PreconditionFailed(f"job {spec.job_id.hex()} is not known: a driver calls StartJob first")
        if spec.actor_id in self._table:
            if spec.actor_id not in self._committed:
                await written([self._save(self._table[spec.actor_id])])
            return
        actions = self._table.create(messages.actor_of_spec(spec), self._now())
        self._specs[spec.actor_id] = spec
        spec_saved = self._spec_rows.put(spec.actor_id.hex(), spec.SerializeToString())
        if not self._jobs.is_running(spec.job_id) and self._table.of_worker(spec.owner_id) is None:
            actions += self._table.handle(spec.actor_id, machine.OwnerDied("its job has finished"), self._now())
            actions += self._table.handle(spec.actor_id, machine.NamedJobOver(), self._now())
        if (group_id := self._table[spec.actor_id].group_id) and not self._groups.is_usable(group_id):
            actions += self._table.handle(spec.actor_id, machine.GroupRemoved(), self._now())
        saves = self._perform(actions)
        await written([spec_saved, *saves])

    async def wait(self, actor_id: bytes, known_version: int, wait_ms: int) -> gcs_pb2.ActorInfo:
        """An actor that is not known yet is waited for too: its handle may arrive before its owner's request."""
        deadline = self._now() + min(wait_ms / 1000, MAX_WAIT_S)
        while True:
            info = self._committed.get(actor_id)
            if info is not None and info.version > known_version:
                return self._told(info)
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(actor_id, set()).add(future)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                if info is None:
                    raise NotFound(
                        f"actor {actor_id.hex()} is not known: it was never created, or it is dead for so long that "
                        "it was forgotten"
                    ) from None
                return self._told(info)
            finally:
                self._forget_waiter(actor_id, future)

    def _told(self, info: gcs_pb2.ActorInfo, spec: gcs_pb2.ActorSpec | None = None) -> gcs_pb2.ActorInfo:
        waits = self._quotas.is_waiting(info.job_id, info.actor_id)
        if not waits and (spec is None or not spec.runtime_env):
            return info
        told = gcs_pb2.ActorInfo()
        told.CopyFrom(info)
        told.waits_for_quota = waits
        told.runtime_env = spec.runtime_env if spec is not None else ""
        return told

    async def get_named(self, name: str, namespace: str) -> tuple[gcs_pb2.ActorInfo, bytes]:
        actor = self._table.named(namespace, name)
        if actor is not None and actor.actor_id not in self._committed:
            # Who was told that the name is taken finds its actor.
            await written([self._save(actor)])
            actor = self._table.named(namespace, name)
        info = self._committed.get(actor.actor_id) if actor is not None else None
        if info is None:
            raise NotFound(
                f"there is no actor named {name!r} in namespace {namespace!r}: check both, and that it was created and "
                "is not dead"
            )
        return info, self._specs[info.actor_id].handle

    def list_actors(self, named_only: bool, namespace: str) -> list[gcs_pb2.ActorInfo]:
        return [
            self._told(info, self._specs.get(info.actor_id))
            for info in reversed(self._committed.values())
            if (not namespace or info.namespace == namespace)
            and not (named_only and (not info.name or info.state == gcs_pb2.ACTOR_STATE_DEAD or info.out_of_scope))
        ]

    def waiting(self) -> list[common_pb2.WaitingDemand]:
        """What those need that have no node yet, alike ones together; without those that wait for their job's quota."""
        counts = {
            kind: sum(self._has_quota_for(self._table[actor_id]) for actor_id in actor_ids)
            for kind, actor_ids in self._table.waiting().items()
        }
        return [
            common_pb2.WaitingDemand(
                resources=common_pb2.ResourceAmounts(grains=dict(kind.resources)), strategy=kind.strategy, count=count
            )
            for kind, count in counts.items()
            if count
        ]

    def _has_quota_for(self, actor: Actor) -> bool:
        return self._quotas.has_room(actor.job_id, actor.actor_id, _counted(actor))

    async def kill(self, actor_id: bytes, no_restart: bool) -> None:
        self._require(actor_id)
        await self._apply(actor_id, machine.Kill(no_restart))

    async def release(self, actor_id: bytes) -> None:
        await self._apply(actor_id, machine.Release())

    async def note_checkpoint(self, actor_id: bytes, incarnation: int) -> None:
        """Returns when the next incarnation will know. Raises: NotFound, PreconditionFailed."""
        spec = self._specs.get(actor_id)
        if spec is None:
            raise NotFound(f"actor {actor_id.hex()} is not alive")
        current = self._table[actor_id].incarnation
        if incarnation != current:
            raise PreconditionFailed(f"incarnation {incarnation} of actor {actor_id.hex()} is replaced by {current}")
        spec.checkpoints = True
        await written([self._spec_rows.put(actor_id.hex(), spec.SerializeToString())])

    async def report_started(self, report: gcs_pb2.ReportActorStartedRequest) -> None:
        event: machine.Event
        if report.creation_error:
            event = machine.ConstructorFailed(report.incarnation, report.creation_error)
        elif report.failure and report.runtime_env_failed:
            event = machine.EnvironmentFailed(report.incarnation, report.failure)
        elif report.failure:
            event = machine.StartFailed(report.incarnation, report.failure)
        else:
            event = machine.Started(report.incarnation, worker_address(report.address), report.pid)
            if report.actor_id not in self._table:
                self._stop_unknown(report)
        await self._apply(report.actor_id, event)

    # --- what happens elsewhere ---

    async def worker_died(self, report: gcs_pb2.ReportWorkerDeathRequest) -> None:
        now = self._now()
        actions: list[actor_table.Action] = []
        if report.actor_id:
            drained = report.node_id in self._nodes and self._nodes[report.node_id].state is NodeState.DRAINING
            event = machine.WorkerDied(report.incarnation, messages.worker_exit(report.exit), drained)
            actions += self._table.handle(report.actor_id, event, now)
        actions += self._table.worker_died(report.worker_id, now)
        self._table.poke(now)
        await self._answerable(report.actor_id, actions)

    def node_died(self, node_id: bytes, reason: str, *, drained: bool) -> list[asyncio.Future[None]]:
        """``drained``: it was leaving. Returns the writes that an answer must wait for."""
        return self._perform(self._table.node_died(node_id, reason, self._now(), drained=drained))

    def job_finished(self, job_id: bytes) -> list[asyncio.Future[None]]:
        """Returns the writes that an answer must wait for."""
        return self._perform(self._table.job_finished(job_id, self._now()))

    def named_job_over(self, job_id: bytes) -> list[asyncio.Future[None]]:
        """Returns the writes that an answer must wait for."""
        return self._perform(self._table.named_job_over(job_id, self._now()))

    def group_removed(self, group_id: bytes) -> None:
        self._perform(self._table.group_removed(group_id, self._now()))

    def detached_actor_of(self, worker_id: bytes) -> bytes:
        """With which the things end that this worker creates; empty = with their job."""
        actor = self._table.detached_actor_of(worker_id)
        return actor.actor_id if actor is not None else b""

    def is_alive(self, actor_id: bytes) -> bool:
        return actor_id in self._table and self._table[actor_id].state is not ActorState.DEAD

    def is_dead(self, actor_id: bytes) -> bool:
        """False = it lives, or nothing is known of it."""
        return actor_id in self._table and not self.is_alive(actor_id)

    def living_of_job(self, job_id: bytes) -> list[bytes]:
        return self._table.living_of_job(job_id)

    def room_may_be_free(self) -> None:
        """A node joined, or a heartbeat told of its resources."""
        self._table.poke(self._now())
        self._ask_due()

    # --- carrying out ---

    async def _apply(self, actor_id: bytes, event: machine.Event) -> None:
        await self._answerable(actor_id, self._table.handle(actor_id, event, self._now()))

    async def _answerable(self, actor_id: bytes, actions: Iterable[actor_table.Action]) -> None:
        """Returns when what follows from an event is in the store; of a repeat, what followed from the first one."""
        await written(self._perform(actions) or [self._rows.settled(actor_id.hex())])

    def _perform(self, actions: Iterable[actor_table.Action]) -> list[asyncio.Future[None]]:
        """Begin everything at once; returns the writes that an answer must wait for."""
        saves: dict[bytes, asyncio.Future[None]] = {}
        for action in actions:
            match action:
                case machine.Save(actor_id):
                    if actor_id in self._table:  # else it died, and was forgotten by the same event
                        self._note_quota(self._table[actor_id])
                        saves[actor_id] = self._save(self._table[actor_id])
                case machine.StartProcess():
                    self._background.spawn(self._start_process(action, saves.get(action.actor_id)))
                case machine.StopProcess():
                    self._background.spawn(self._stop_process(action))
                case actor_table.Forget(actor_id):
                    saves[actor_id] = self._rows.delete(actor_id.hex())
                    if (forgotten := self._committed.pop(actor_id, None)) is not None:
                        self._quotas.holds(forgotten.job_id, actor_id, ResourceSet())
                    self._forget_spec(actor_id)
                    self._checkpoints.process_gone(actor_id)
                case actor_table.JobUnused(job_id):
                    self._on_job_unused(job_id)
        self._ask_due()
        return list(saves.values())

    def _save(self, actor: Actor) -> asyncio.Future[None]:
        info = messages.actor_info(actor)
        before = self._committed.get(actor.actor_id)
        same = before is not None and (before.state, before.incarnation) == (info.state, info.incarnation)
        info.state_unix_ms = before.state_unix_ms if before is not None and same else time.time_ns() // 1_000_000
        row = info
        if len(info.creation_error) > MAX_VALUE_BYTES // 2:
            # Too large to be kept: a GCS that takes over knows of the death without its cause.
            row = gcs_pb2.ActorInfo()
            row.CopyFrom(info)
            row.ClearField("creation_error")
        saved = self._rows.put(actor.actor_id.hex(), row.SerializeToString(), partial(self._on_committed, info))
        if actor.state is ActorState.DEAD:
            self._forget_spec(actor.actor_id)
            if not actor.node_id:
                self._checkpoints.process_gone(actor.actor_id)
            if actor.detached:
                self._on_detached_dead(actor.actor_id, actor.death_reason)
        return saved

    def _forget_spec(self, actor_id: bytes) -> None:
        spec = self._specs.pop(actor_id, None)
        if spec is not None and spec.checkpoints:
            self._checkpoints.actor_died(actor_id)
        elif spec is not None:
            self._spec_rows.delete(actor_id.hex())

    def _on_committed(self, info: gcs_pb2.ActorInfo) -> None:
        before = self._committed.get(info.actor_id)
        if info.actor_id in self._table:  # else it was forgotten while the row was being written
            self._committed[info.actor_id] = info
        if before is not None and before.version == info.version:
            return
        for future in self._waiters.get(info.actor_id, ()):
            if not future.done():
                future.set_result(None)
        event = events_pb2.ActorEvent(actor=info)
        self._publisher.publish(subjects.actor(self._cluster_id, info.actor_id), event.SerializeToString())

    def _forget_waiter(self, actor_id: bytes, future: asyncio.Future[None]) -> None:
        waiters = self._waiters[actor_id]
        waiters.discard(future)
        if not waiters:
            del self._waiters[actor_id]

    # --- a node for each actor ---

    def _ask_due(self) -> None:
        now = self._now()
        for actor_id in self._table.due(now):
            self._background.spawn(self._find_node(actor_id))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._table.next_deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(max(deadline, now + 0.001), self._ask_due)

    async def _find_node(self, actor_id: bytes) -> None:
        if actor_id not in self._table:
            return  # it died meanwhile and is forgotten already
        actor = self._table[actor_id]
        if not self._quotas.take(actor.job_id, actor_id, _counted(actor)):
            self._perform(self._table.no_room(actor_id, self._now()))
            return
        needed = actor.scheduling_class
        request = scheduler_pb2.PickNodeRequest(strategy=needed.strategy)
        request.resources.grains.update(needed.resources)
        try:
            answer = await self._schedulers.pick_node(request)
            self._scheduler_problem = ""
        except ServiceError as error:
            if str(error) != self._scheduler_problem:  # one line an outage, not one a try
                self._scheduler_problem = str(error)
                _log.warning("scheduler_does_not_answer", error=str(error))
            answer = scheduler_pb2.PickNodeResponse()
        now = self._now()
        if answer.infeasible and not actor.group_id:  # bundles come when there is room for them
            self._perform(self._table.infeasible(actor_id, answer.reason, now))
        elif self._nodes.address_of(answer.node_id) and self._quotas.take(actor.job_id, actor_id, _counted(actor)):
            self._perform(self._table.found(actor_id, answer.node_id, now))
        else:
            # Also when the scheduler has not heard yet that the node is dead.
            self._perform(self._table.no_room(actor_id, now))
        self._note_quota(actor)

    def _note_quota(self, actor: Actor) -> None:
        """Of its job's quota it holds as much as it holds of a node, also while its process is being ended."""
        waits = actor.state is not ActorState.DEAD and self._quotas.is_waiting(actor.job_id, actor.actor_id)
        if actor.node_id or not waits:
            self._quotas.holds(actor.job_id, actor.actor_id, _counted(actor) if actor.node_id else ResourceSet())

    async def _start_process(self, action: machine.StartProcess, saved: asyncio.Future[None] | None) -> None:
        """The row names the node before the raylet is asked, so that a GCS that is killed in between knows where to
        look for the process."""
        event: machine.Event
        try:
            if saved is not None:
                await written([saved])
            spec = self._specs.get(action.actor_id)
            if spec is None:
                return  # it died meanwhile
            address = self._nodes.address_of(action.node_id)
            if not address:
                await self._apply(action.actor_id, machine.NodeDied(action.node_id, "it has left the cluster"))
                return
            request = raylet_pb2.StartActorRequest(spec=spec, incarnation=action.incarnation)
            await self._raylets.start_actor(address, request)
        except ResourceExhausted:
            event = machine.Refuse()
        except ServiceError as error:
            _log.warning("actor_not_started", actor_id=action.actor_id.hex(), error=str(error))
            event = machine.StartFailed(action.incarnation, f"{type(error).__name__}: {error}")
        else:
            # Where its report of a failure came before its answer, the next incarnation waits by now.
            if self._is_current(action):
                self._table.accepted(action.actor_id)
            self._ask_due()
            if action.actor_id not in self._specs:
                # It died while the raylet was asked, and the order to stop it may have overtaken this one.
                stop = machine.StopProcess(action.actor_id, action.node_id, b"", True, "the actor is dead")
                await self._stop_process(stop)
            return
        if self._is_current(action):
            self._perform(self._table.handle(action.actor_id, event, self._now()))

    def _is_current(self, action: machine.StartProcess) -> bool:
        if action.actor_id not in self._table:
            return False
        actor = self._table[action.actor_id]
        return actor.incarnation == action.incarnation and actor.node_id == action.node_id

    async def _stop_process(self, action: machine.StopProcess) -> None:
        request = raylet_pb2.StopWorkerRequest(
            worker_id=action.worker_id, actor_id=action.actor_id, force=action.force, reason=action.reason
        )
        problem = await insist(
            partial(self._nodes.address_of, action.node_id), lambda address: self._raylets.stop_worker(address, request)
        )
        if problem is not None:
            _log.error("process_not_stopped", actor_id=action.actor_id.hex(), error=str(problem))

    def _stop_unknown(self, report: gcs_pb2.ReportActorStartedRequest) -> None:
        """A process of an actor that nobody knows: its creation was never confirmed, or it is forgotten."""
        at: common_pb2.WorkerAddress = report.address
        self._perform(
            [machine.StopProcess(report.actor_id, at.node_id, at.worker_id, True, "the GCS does not know the actor")]
        )

    def _require(self, actor_id: bytes) -> None:
        if actor_id not in self._table:
            raise NotFound(f"actor {actor_id.hex()} is not known: it was never created, or is dead for long")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _counted(actor: Actor) -> ResourceSet:
    """Of its job's quota; what is in a bundle counts with that."""
    return ResourceSet() if actor.group_id else actor.held
