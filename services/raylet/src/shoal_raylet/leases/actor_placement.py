"""Actors on this node: from the GCS's request to a worker that runs the constructor. Pure.

The resources are held from the moment the request is accepted; the worker may come later, when its process
has started. Whether the actor restarts after its worker's death is the GCS's decision.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from shoal_common.channel import frames
from shoal_common.kinds import ExitKind
from shoal_common.placement.resources import ResourceSet
from shoal_common.placement.runtime_env import key as environment_key
from shoal_common.placement.strategy import Strategy
from shoal_common.service.story import Story, explained, noted
from shoal_raylet.actions import Action, AskWorkerToExit, KillWorker, ReportActorStarted, Send
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_pool import WorkerPool, WorkerState


@dataclass(slots=True, eq=False)
class PlacedActor:
    actor_id: bytes
    incarnation: int
    job_id: bytes
    class_name: str
    #: The SDK's payload, for ``CreateActor``.
    creation: bytes
    detached: bool
    #: What it takes of the node.
    held: ResourceSet
    #: The same as it was asked for, and how it was to be placed: told to its worker.
    asked: ResourceSet
    strategy: str
    #: How much its process may grow, in bytes; 0 = nobody said.
    memory_limit: int = 0
    #: Document of its runtime environment.
    runtime_env: str = ""
    #: As in ``CreateActor``.
    checkpoints: bool = False
    #: Empty while it waits for a worker.
    worker_id: bytes = b""
    created: bool = False


class ActorPlacement:
    def __init__(self, ledger: ResourceLedger, pool: WorkerPool) -> None:
        self._story = Story("actors on this node")
        self._ledger = ledger
        self._pool = pool
        self._actors: dict[bytes, PlacedActor] = {}
        #: Accepted and without a worker, oldest first.
        self._waiting: dict[bytes, PlacedActor] = {}

    def get(self, actor_id: bytes) -> PlacedActor | None:
        return self._actors.get(actor_id)

    def of_worker(self, worker_id: bytes) -> PlacedActor | None:
        worker = self._pool.workers.get(worker_id)
        actor = self._actors.get(worker.actor_id) if worker is not None else None
        return actor if actor is not None and actor.worker_id == worker_id else None

    def actor_of_worker(self, worker_id: bytes) -> bytes:
        """Its id; empty = that worker has none."""
        actor = self.of_worker(worker_id)
        return actor.actor_id if actor is not None else b""

    def is_known(self, actor_id: bytes, incarnation: int) -> bool:
        """This or a later incarnation was accepted already."""
        actor = self._actors.get(actor_id)
        return actor is not None and actor.incarnation >= incarnation

    def has_room(self, need: ResourceSet) -> bool:
        return self._ledger.can_hold(need)

    def accept(self, actor: PlacedActor) -> None:
        """Hold its resources and queue it for a worker. The caller has asked ``is_known`` and ``has_room``."""
        # Not ``noted``: the story would keep what its constructor is given.
        self._story.note("accept", actor.actor_id)
        self._ledger.allocate(actor.actor_id, actor.held)
        self._actors[actor.actor_id] = self._waiting[actor.actor_id] = actor

    @explained
    def dispatch(self, now: float) -> tuple[list[Action], Counter[str]]:
        """Give workers to those that wait; also the number of workers that were missing, by the document of their
        runtime environment."""
        actions: list[Action] = []
        for actor in list(self._waiting.values()):
            allocation = self._ledger.allocation(actor.actor_id)
            assert allocation is not None
            gpus = tuple(sorted(allocation.devices.get("GPU", ())))
            worker = self._pool.take(actor.job_id, actor.runtime_env, gpus, WorkerState.ACTOR, now, actor.memory_limit)
            if worker is None:
                continue
            del self._waiting[actor.actor_id]
            worker.actor_id, worker.incarnation, worker.name = actor.actor_id, actor.incarnation, actor.class_name
            actor.worker_id = worker.worker_id
            message = frames.CreateActor(
                actor.actor_id,
                actor.incarnation,
                actor.creation,
                tuple(sorted(actor.asked.grains.items())),
                allocation.devices,
                actor.strategy,
                actor.checkpoints,
            )
            actions.append(Send(worker.worker_id, message))
        return actions, Counter(actor.runtime_env for actor in self._waiting.values())

    @noted
    def created(self, worker_id: bytes, actor_id: bytes, incarnation: int, error: bytes) -> list[Action]:
        actor = self._actors.get(actor_id)
        if actor is None or actor.worker_id != worker_id or actor.incarnation != incarnation:
            return []
        actor.created = True
        report = ReportActorStarted(actor_id, incarnation, worker_id, creation_error=error)
        if error:
            return [report, AskWorkerToExit(worker_id, "the actor's constructor raised")]
        return [report]

    @noted
    def stop(self, actor_id: bytes, force: bool, reason: str, now: float) -> list[Action]:
        """End it; force = at once, else its pending calls finish first. Idempotent."""
        actor = self._actors.get(actor_id)
        if actor is None:
            return []
        if not actor.worker_id:
            self._forget(actor)
            return []
        if force:
            self._pool.ending(actor.worker_id, now)
            return [KillWorker(actor.worker_id, ExitKind.INTENDED_SYSTEM_EXIT, reason)]
        return [AskWorkerToExit(actor.worker_id, reason)]

    @noted
    def worker_lost(self, worker_id: bytes) -> None:
        """Its worker's process ended; the resources are free again."""
        for actor in self._actors.values():
            if actor.worker_id == worker_id:
                self._forget(actor)
                return

    @noted
    def workers_unstartable(self, reason: str, environment: str = "") -> list[Action]:
        """``environment``: the key of the one in which none can be started."""
        return self._fail(environment, f"worker processes do not start on this node: {reason}")

    @noted
    def environment_failed(self, key: str, reason: str) -> list[Action]:
        """A runtime environment could not be made."""
        return self._fail(key, reason)

    def _fail(self, environment: str, failure: str) -> list[Action]:
        failed = [each for each in self._waiting.values() if environment_key(each.runtime_env) == environment]
        for actor in failed:
            self._forget(actor)
        return [
            ReportActorStarted(
                actor.actor_id, actor.incarnation, b"", failure=failure, environment_failed=bool(environment)
            )
            for actor in failed
        ]

    @noted
    def group_removed(self, group_id: bytes, reason: str, now: float) -> list[Action]:
        actors = [a for a in self._actors.values() if Strategy.decode(a.strategy).group_id == group_id]
        return [action for actor in actors for action in self.stop(actor.actor_id, True, reason, now)]

    def of_job(self, job_id: bytes) -> list[PlacedActor]:
        return [actor for actor in self._actors.values() if actor.job_id == job_id]

    def validate(self) -> None:
        for actor_id, actor in self._actors.items():
            assert self._ledger.allocation(actor_id) is not None, "an actor that holds nothing"
            assert (actor_id in self._waiting) == (not actor.worker_id), "it waits for a worker, or has one"
        assert self._waiting.keys() <= self._actors.keys()

    def _forget(self, actor: PlacedActor) -> None:
        del self._actors[actor.actor_id]
        self._waiting.pop(actor.actor_id, None)
        self._ledger.release(actor.actor_id)
