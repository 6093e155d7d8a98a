"""What one owner wants of one scheduling class, and the leases that it holds of it. Pure.

How many are owed, how many of those may be granted here, and when a scheduler is asked about the rest.

Scheduling begins at the bottom: a node grants what it can hold. What still waits after a moment may go elsewhere
(*spillback*), and so does at once what this node must not or can never grant. What a scheduler sends here stays, unless
it waits for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shoal_common.channel import frames
from shoal_common.ids import NodeID
from shoal_common.placement.resources import GRAINS, ResourceSet
from shoal_common.placement.runtime_env import key as environment_key
from shoal_common.placement.strategy import Strategy
from shoal_raylet.actions import AskScheduler
from shoal_raylet.leases.allowances import Allowances
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_pool import Worker

#: A demand may wait here this long before a scheduler is asked for another node, in seconds.
SPILL_AFTER_S = 0.03
#: The same for one that a scheduler has sent here.
MOVE_AGAIN_S = 1.0
#: Bounds of the pause before the same is asked again, in seconds.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 1.0


@dataclass(slots=True, eq=False)
class Lease:
    lease_id: bytes
    demand: Demand
    worker: Worker
    granted_at: float
    #: It was asked back.
    reclaimed: bool = False


@dataclass(slots=True, eq=False)
class Demand:
    owner: bytes
    job_id: bytes
    class_key: int
    spec: frames.SchedulingClass
    #: What a lease takes of its node.
    resources: ResourceSet
    strategy: Strategy
    #: Never to be granted here: the node is too small, has other labels, or is not the one that is wanted.
    impossible: bool
    #: This node is as good as any other: it grants without asking.
    at_home: bool
    #: It asks for nothing, so that nothing else bounds the number of its leases.
    free: bool = False
    #: It asks for some.
    gpus: bool = False
    #: How much a worker may grow, in bytes; 0 = nobody said.
    memory_limit: int = 0
    #: What of ``resources`` the quota of its job is about; None = nothing.
    counted: ResourceSet | None = None
    total: int = 0
    #: Granted here, or sent elsewhere.
    granted: int = 0
    #: Of what is owed, what a scheduler has placed here.
    placed: int = 0
    #: It came to this node because a scheduler has chosen it.
    sent_here: bool = False
    argument_bytes: dict[bytes, int] | None = None
    #: Most bytes of its arguments lie on another node, which is better if it has room: a scheduler says whether.
    far: bool = False
    mean_task_us: int = 0
    #: Leases of it that are held now.
    held: dict[bytes, Lease] = field(default_factory=dict)
    #: When it began to wait for the next grant.
    waiting_since: float = 0.0
    #: Set while no node is known that can hold it: since when.
    infeasible_since: float | None = None
    #: What the scheduler said last, or what this node lacks.
    infeasible_reason: str = ""
    #: A question is under way.
    asking: bool = False
    #: For how many the last one was.
    asked: int = 0
    #: The same is not asked again before.
    ask_not_before: float = 0.0
    pause_s: float = FIRST_PAUSE_S

    @property
    def key(self) -> tuple[bytes, int]:
        return self.owner, self.class_key

    @property
    def environment(self) -> str:
        """Key of the runtime environment."""
        return environment_key(self.spec.runtime_env)

    @property
    def priority(self) -> int:
        return self.spec.priority

    @property
    def owed(self) -> int:
        return max(0, self.total - self.granted)

    @property
    def bound(self) -> bool:
        """It may run on one node only."""
        return self.strategy.node_id is not None and not self.strategy.soft

    def grantable(self, alone: bool) -> int:
        """How many of those owed this node may grant; ``alone``: there is no other."""
        if self.impossible:
            return 0
        return self.owed if alone or (self.at_home and not self.far) else min(self.owed, self.placed)

    def elsewhere(self, alone: bool) -> int:
        """How many of those owed this node may not grant."""
        return self.owed - self.grantable(alone)

    def ask_at(self, alone: bool) -> float | None:
        """When a scheduler is to be asked; None = there is no need."""
        if self.asking or not self.owed:
            return None
        if self.elsewhere(alone):
            return self.ask_not_before
        # Node affinity and SPREAD have had their choice, even where it is a long wait.
        if alone or self.strategy.node_id is not None or self.strategy.spread:
            return None
        return max(self.waiting_since + (MOVE_AGAIN_S if self.sent_here else SPILL_AFTER_S), self.ask_not_before)

    def ask(self, count: int, now: float) -> AskScheduler:
        self.asking = True
        self.asked = count
        self.ask_not_before = now + self.pause_s
        self.pause_s = min(2 * self.pause_s, LAST_PAUSE_S)
        return AskScheduler(self.owner, self.class_key, self.resources, self.strategy, count, self.argument_bytes or {})

    def look_for_arguments(self, node_id: bytes) -> None:
        """``node_id``: this node's. What a scheduler has sent here, and what has no choice, runs here all the same."""
        sizes = self.argument_bytes or {}
        chosen = self.sent_here or self.strategy.node_id is not None or self.strategy.group_id
        may_run_here = self.at_home and not self.impossible
        self.far = may_run_here and not chosen and sizes.get(node_id, 0) < max(sizes.values(), default=0)

    def fitting(self, available: ResourceSet) -> int:
        """How many of it have room now."""
        return min((available[name] // grains for name, grains in self.resources.grains.items()), default=self.owed)

    def stays(self, count: int) -> None:
        """A scheduler has placed so many here."""
        self.placed = min(self.placed + count, self.owed)

    def takes(self, count: int) -> None:
        """So many are granted here."""
        self.granted += count
        self.placed = max(0, self.placed - count)
        self.pause_s = max(FIRST_PAUSE_S, self.pause_s / 2)

    def cancel(self) -> None:
        """What is owed counts as never asked for."""
        self.total = self.granted
        self.settled()

    def settled(self) -> None:
        """Nothing is owed."""
        self.placed = 0
        self.infeasible_since = None
        self.pause_s = FIRST_PAUSE_S
        self.ask_not_before = 0.0


def new_demand(
    owner: bytes,
    job_id: bytes,
    class_key: int,
    spec: frames.SchedulingClass,
    node_id: NodeID,
    labels: Mapping[str, str],
    draining: bool,
    ledger: ResourceLedger,
    allowances: Allowances,
) -> Demand:
    """The first of an owner for this class. From ``node_id`` on: of this node.

    Raises: InvalidRequest for an unknown strategy.
    """
    strategy = Strategy.decode(spec.strategy)
    asked = ResourceSet(dict(spec.resources))
    resources = strategy.needed(asked)
    allowed = strategy.allows(node_id, labels)
    chosen = strategy.node_id in (None, node_id) and strategy.alternative(labels) == 0
    counted = allowances.begin(job_id, dict(spec.quota)).counted(resources) if spec.quota else None
    return Demand(
        owner,
        job_id,
        class_key,
        spec,
        resources,
        strategy,
        impossible=draining or not allowed or not ledger.can_ever_hold(resources),
        at_home=chosen and not strategy.spread,
        free=not asked,
        gpus=asked["GPU"] > 0,
        memory_limit=asked["memory"] // GRAINS if spec.enforce_memory else 0,
        counted=counted or None,
    )


def owed_by_need(demands: Iterable[tuple[Demand, int]]) -> dict[tuple[ResourceSet, str], int]:
    """How many leases are owed, by their resources and their strategy; of demands, each with how many it is owed."""
    needs: dict[tuple[tuple[tuple[str, int], ...], str], int] = {}
    for demand, owed in demands:
        need = demand.spec.resources, demand.spec.strategy
        if owed:
            needs[need] = needs.get(need, 0) + owed
    return {(ResourceSet(dict(grains)), strategy): count for (grains, strategy), count in needs.items()}


def mean_task_us(demands: Iterable[Demand]) -> int:
    """Of what is owed, as far as the owners have timed it; 0 = unknown."""
    timed = [demand for demand in demands if demand.mean_task_us]
    owed = sum(demand.owed for demand in timed)
    return sum(demand.owed * demand.mean_task_us for demand in timed) // owed if owed else 0
