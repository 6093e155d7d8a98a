"""All actors: their names, who owns whom, what dies together, how many of the dead are remembered.

A non-detached actor shares the fate of its owner, the worker or driver that created it, and so do the actors that
its own worker created. When a job ends, what lives on are its detached actors and what those own.

Pure: events and the time in, actions out.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from shoal_common.channel.frames import SchedulingClass
from shoal_common.errors import AlreadyExists
from shoal_common.service.story import Story, noted
from shoal_common.states import ActorState
from shoal_gcs.actors import machine
from shoal_gcs.actors.machine import Actor
from shoal_gcs.actors.placement_queue import PlacementQueue

#: Ended workers that are remembered, for actors whose creation arrives after the end of their owner.
DEAD_WORKERS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the row of a dead actor: newer ones take its place in memory."""

    actor_id: bytes


@dataclass(frozen=True, slots=True)
class JobUnused:
    """The last living actor of this job has died."""

    job_id: bytes


Action = machine.Save | machine.StartProcess | machine.StopProcess | Forget | JobUnused


class ActorTable:
    def __init__(self, *, infeasible_grace_s: float, dead_kept: int) -> None:
        self._dead_kept = dead_kept
        self._story = Story("the actor table")
        self._actors: dict[bytes, Actor] = {}
        self._queue = PlacementQueue(infeasible_grace_s)
        #: All and only the living named actors that are not out of scope, by (namespace, name).
        self._by_name: dict[tuple[str, str], bytes] = {}
        #: Living, non-detached actors by the worker id of their owner.
        self._by_owner: dict[bytes, set[bytes]] = {}
        #: Actors that have a process or get one, by node; dead ones too until the end of their process is known.
        self._by_node: dict[bytes, set[bytes]] = {}
        #: The same the other way round.
        self._node_of: dict[bytes, bytes] = {}
        #: Actors whose process runs, by worker id.
        self._by_worker: dict[bytes, bytes] = {}
        #: Living actors by job.
        self._by_job: dict[bytes, set[bytes]] = {}
        #: Dead actors, the longest dead first.
        self._dead: OrderedDict[bytes, None] = OrderedDict()
        self._dead_workers: OrderedDict[bytes, None] = OrderedDict()
        self._last_sequence = 0

    def __getitem__(self, actor_id: bytes) -> Actor:
        return self._actors[actor_id]

    def __contains__(self, actor_id: bytes) -> bool:
        return actor_id in self._actors

    def states(self) -> Counter[ActorState]:
        """How many are in each, dead ones that are remembered among them."""
        return Counter(actor.state for actor in self._actors.values())

    def named(self, namespace: str, name: str) -> Actor | None:
        actor_id = self._by_name.get((namespace, name))
        return None if actor_id is None else self._actors[actor_id]

    def of_worker(self, worker_id: bytes) -> Actor | None:
        """The actor whose process is this worker."""
        actor_id = self._by_worker.get(worker_id)
        return None if actor_id is None else self._actors[actor_id]

    def living_of_job(self, job_id: bytes) -> list[bytes]:
        return sorted(self._by_job.get(job_id, ()))

    def detached_actor_of(self, worker_id: bytes) -> Actor | None:
        """With which the things end that this worker creates; None = with their job."""
        return self._detached_ancestor(self.of_worker(worker_id))

    # --- events ---

    def load(self, actors: Iterable[Actor], now: float) -> list[Action]:
        """Take over what an earlier GCS has stored; what it may have left undone is done again."""
        actors = sorted(actors, key=attrgetter("sequence"))
        for actor in actors:
            self._last_sequence = actor.sequence
            self._actors[actor.actor_id] = actor
            self._index(actor)
        actions: list[Action] = []
        for actor in actors:
            actions += self._settle(actor, machine.resume(actor), now)
        return actions + self._forget_excess()

    @noted
    def create(self, actor: Actor, now: float) -> list[Action]:
        """A repeat for a known actor asks for nothing. Raises: AlreadyExists when a living actor has the name."""
        if actor.actor_id in self._actors:
            return []
        if actor.name and (actor.namespace, actor.name) in self._by_name:
            raise AlreadyExists(
                f"an actor named {actor.name!r} exists in namespace {actor.namespace!r}: take another name, or get "
                "the existing one with get_actor() or get_if_exists=True"
            )
        self._last_sequence += 1
        actor.sequence = self._last_sequence
        self._actors[actor.actor_id] = actor
        actions = self.handle(actor.actor_id, machine.Create(), now)
        if actor.owner_id in self._dead_workers:
            actions += self.handle(actor.actor_id, _owner_died(actor.owner_id), now)
        return actions

    def handle(self, actor_id: bytes, event: machine.Event, now: float) -> list[Action]:
        """Apply an event to one actor and what follows from it to others; nothing for an unknown actor."""
        actor = self._actors.get(actor_id)
        if actor is None:
            return []
        self._story.note(type(event).__name__, actor_id)
        actions = self._settle(actor, machine.handle(actor, event), now)
        if isinstance(event, machine.Release | machine.Refuse):
            actions += self._give_up_released(self._queue.without_room(actor_id), now)
        return actions + self._forget_excess()

    @noted
    def worker_died(self, worker_id: bytes, now: float) -> list[Action]:
        """What this worker owned dies."""
        return self._settle(None, [machine.WorkerGone(worker_id)], now) + self._forget_excess()

    @noted
    def node_died(self, node_id: bytes, reason: str, now: float, *, drained: bool = False) -> list[Action]:
        """What ran there has died, and the owners there with what they own elsewhere."""
        owners = {actor.owner_id for actor in self._actors.values() if node_id and actor.owner_node_id == node_id}
        actions = self._settle(None, [machine.WorkerGone(owner) for owner in sorted(owners)], now)
        for actor_id in sorted(self._by_node.get(node_id, ())):
            actions += self.handle(actor_id, machine.NodeDied(node_id, reason, drained), now)
        return actions

    @noted
    def job_finished(self, job_id: bytes, now: float) -> list[Action]:
        actions: list[Action] = []
        for actor_id in self.living_of_job(job_id):
            if self._detached_ancestor(self._actors[actor_id]) is None:
                actions += self.handle(actor_id, machine.OwnerDied("its job has finished"), now)
        return actions

    @noted
    def named_job_over(self, job_id: bytes, now: float) -> list[Action]:
        """Nobody holds the name that this job held, nor will."""
        actions: list[Action] = []
        for actor_id in self.living_of_job(job_id):
            actions += self.handle(actor_id, machine.NamedJobOver(), now)
        return actions

    @noted
    def group_removed(self, group_id: bytes, now: float) -> list[Action]:
        """What runs in this placement group, or waits for it, dies."""
        actions: list[Action] = []
        for actor_id in [actor.actor_id for actor in self._actors.values() if actor.group_id == group_id]:
            actions += self.handle(actor_id, machine.GroupRemoved(), now)
        return actions

    # --- the search for nodes ---

    def due(self, now: float) -> list[bytes]:
        """Actors to ask the scheduler about; each is answered with ``found``, ``no_room`` or ``infeasible``; after
        ``found``, the raylet's answer is ``accepted`` or an event."""
        return self._queue.due(now)

    def next_deadline(self) -> float | None:
        return self._queue.next_deadline()

    def waiting(self) -> dict[SchedulingClass, list[bytes]]:
        """Those that have no node yet, by what they need."""
        return self._queue.waiting()

    def poke(self, now: float) -> None:
        """Room may have become free."""
        self._queue.poke(now)

    @noted
    def found(self, actor_id: bytes, node_id: bytes, now: float) -> list[Action]:
        self._queue.found(actor_id)
        return self.handle(actor_id, machine.Placed(node_id), now)

    def accepted(self, actor_id: bytes) -> None:
        """The raylet has room for it, and starts its process."""
        self._queue.accepted(actor_id)

    @noted
    def no_room(self, actor_id: bytes, now: float) -> list[Action]:
        self._queue.no_room(actor_id, now)
        return self._give_up_released(self._queue.without_room(actor_id), now)

    @noted
    def infeasible(self, actor_id: bytes, reason: str, now: float) -> list[Action]:
        actions: list[Action] = []
        for given_up in self._queue.infeasible(actor_id, now):
            actions += self.handle(given_up, machine.GiveUp(f"{reason}. Ask for less, or add a node that has it"), now)
        return actions + self._give_up_released(self._queue.without_room(actor_id), now)

    def _give_up_released(self, actor_ids: Iterable[bytes], now: float) -> list[Action]:
        """Nobody waits for an actor without handles, so it waits for no node either."""
        actions: list[Action] = []
        for actor_id in actor_ids:
            if self._actors[actor_id].out_of_scope:
                actions += self.handle(actor_id, machine.GiveUp(""), now)
        return actions

    # --- what follows ---

    def _settle(self, actor: Actor | None, found: Iterable[machine.Action], now: float) -> list[Action]:
        """Bring the indexes up to date, carry the end of a worker on to what it owned, return what is left to do."""
        actions: list[Action] = []
        work = deque([(actor, list(found))])
        while work:
            changed, found = work.popleft()
            if changed is not None:
                actions += self._index(changed)
            for action in found:
                match action:
                    case machine.FindPlace(actor_id, delay_s, refused):
                        self._enqueue(self._actors[actor_id], delay_s, refused, now)
                    case machine.WorkerGone(worker_id):
                        self._remember_dead_worker(worker_id)
                        for owned in sorted(self._by_owner.get(worker_id, ())):
                            child = self._actors[owned]
                            work.append((child, machine.handle(child, _owner_died(worker_id))))
                    case _:
                        actions.append(action)
        return actions

    def _enqueue(self, actor: Actor, delay_s: float, refused: bool, now: float) -> None:
        if refused and actor.actor_id in self._queue:
            self._queue.no_room(actor.actor_id, now)
        else:
            self._queue.add(actor.actor_id, actor.scheduling_class, now, delay_s)

    def _remember_dead_worker(self, worker_id: bytes) -> None:
        self._by_worker.pop(worker_id, None)
        self._dead_workers[worker_id] = None
        if len(self._dead_workers) > DEAD_WORKERS_KEPT:
            self._dead_workers.popitem(last=False)

    def validate(self) -> None:
        """For tests: what is always true of it."""
        self._queue.validate()
        living = {i: actor for i, actor in self._actors.items() if actor.state is not ActorState.DEAD}
        assert set(self._dead) == self._actors.keys() - living.keys()
        assert len(self._dead) <= self._dead_kept
        assert len(self._dead_workers) <= DEAD_WORKERS_KEPT
        named = {(a.namespace, a.name): i for i, a in living.items() if a.name and not a.out_of_scope}
        assert self._by_name == named, "a name is taken while its actor lives and has handles"
        assert self._by_job == _grouped((a.job_id, i) for i, a in living.items())
        assert self._by_owner == _grouped((a.owner_id, i) for i, a in living.items() if not a.detached)
        assert self._node_of == {i: actor.node_id for i, actor in self._actors.items() if actor.node_id}
        assert self._by_node == _grouped((node_id, i) for i, node_id in self._node_of.items())
        running = {a.address.worker_id: i for i, a in living.items() if a.state is ActorState.ALIVE and a.address}
        assert self._by_worker == running, "a worker is known as its actor's while that runs"
        for actor_id, actor in self._actors.items():
            actor.validate()
            seeks = actor.state in (ActorState.PENDING_CREATION, ActorState.RESTARTING) and not actor.node_id
            assert not seeks or actor_id in self._queue, "who has no node waits for one"

    def _index(self, actor: Actor) -> list[Action]:
        actor_id = actor.actor_id
        living = actor.state is not ActorState.DEAD
        self._index_node(actor_id, actor.node_id)
        if actor.state is ActorState.ALIVE and actor.address is not None:
            self._queue.accepted(actor_id)
            self._by_worker[actor.address.worker_id] = actor_id
        if actor.name:
            key = (actor.namespace, actor.name)
            if living and not actor.out_of_scope:
                self._by_name[key] = actor_id
            elif self._by_name.get(key) == actor_id:
                del self._by_name[key]
        if living:
            self._by_job.setdefault(actor.job_id, set()).add(actor_id)
            if not actor.detached:
                self._by_owner.setdefault(actor.owner_id, set()).add(actor_id)
            return []
        self._queue.discard(actor_id)
        _discard(self._by_owner, actor.owner_id, actor_id)
        _discard(self._by_job, actor.job_id, actor_id)
        if actor_id in self._dead:
            return []
        self._dead[actor_id] = None
        return [] if actor.job_id in self._by_job else [JobUnused(actor.job_id)]

    def _index_node(self, actor_id: bytes, node_id: bytes) -> None:
        before = self._node_of.pop(actor_id, b"")
        if before != node_id:
            _discard(self._by_node, before, actor_id)
        if node_id:
            self._node_of[actor_id] = node_id
            self._by_node.setdefault(node_id, set()).add(actor_id)

    def _detached_ancestor(self, actor: Actor | None) -> Actor | None:
        """The detached actor that it is, or that created it, or its creator; None = there is none."""
        while actor is not None and not actor.detached:
            actor = self.of_worker(actor.owner_id)
        return actor

    def _forget_excess(self) -> list[Action]:
        actions: list[Action] = []
        while len(self._dead) > self._dead_kept:
            actor_id, _ = self._dead.popitem(last=False)
            self._index_node(actor_id, b"")
            del self._actors[actor_id]
            actions.append(Forget(actor_id))
        return actions


def _owner_died(worker_id: bytes) -> machine.OwnerDied:
    return machine.OwnerDied(f"its owner, the worker {worker_id.hex()}, has died")


def _grouped(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, set[bytes]]:
    groups: dict[bytes, set[bytes]] = {}
    for key, member in pairs:
        groups.setdefault(key, set()).add(member)
    return groups


def _discard(index: dict[bytes, set[bytes]], key: bytes, member: bytes) -> None:
    members = index.get(key)
    if members is not None:
        members.discard(member)
        if not members:
            del index[key]
