"""Worker leases of one node: who wants how many, who gets the next, who must give one back. Pure.

Owners say how many leases they want of a scheduling class; we owe them the difference to what was granted.
Free resources go to the job that holds the least CPU for its weight, within a job to the demand of the highest
priority (``precedence``), of those to the one that holds the fewest leases, among equals to the one whose turn is
longest ago: neither a wide demand nor an early one starves others. A demand that does not fit is passed by smaller
ones, but only for ``PASSED_OVER_S``: then what it needs is set aside.

Owners keep a lease as long as they have tasks for it. While somebody waits, leases held longer than
``QUANTUM_S`` are asked back from whoever holds more than the one that waits.

Of a job with a quota only so much is granted as this node has an allowance for (``allowances``, ``quota_round``).

Covers the life of a lease. Not: what may be granted here at all, and what is asked of a scheduler (``demand``),
which are held (``held_leases``), processes (``worker_pool``), amounts (``resource_ledger``), words (``reasons``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from shoal_common.channel import frames
from shoal_common.ids import NodeID
from shoal_common.kinds import ExitKind, RefusalKind
from shoal_common.placement.resources import ResourceSet
from shoal_common.service.story import Story, explained, noted
from shoal_raylet.actions import Action, CollectGarbage, KillWorker, Send
from shoal_raylet.leases import quota_round
from shoal_raylet.leases.actor_wishes import ActorWishes
from shoal_raylet.leases.allowances import AllowanceAnswer, Allowances
from shoal_raylet.leases.demand import SPILL_AFTER_S, Demand, Lease, mean_task_us, new_demand, owed_by_need
from shoal_raylet.leases.held_leases import HeldLeases, count_for
from shoal_raylet.leases.holders import holders_told
from shoal_raylet.leases.precedence import outranked, set_aside
from shoal_raylet.leases.quota_round import QuotaRound
from shoal_raylet.leases.reasons import amounts, why_not_here, why_not_yet
from shoal_raylet.leases.reclaiming import QUANTUM_S, to_reclaim
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.scheduler_answer import SchedulerAnswer, own_answer
from shoal_raylet.leases.starvation import PATIENCE_S, Starvation
from shoal_raylet.leases.worker_pool import Worker, WorkerPool, WorkerState

#: How long smaller demands may pass one that does not fit, in seconds.
PASSED_OVER_S = 2.0


class WorkerLeases:
    def __init__(
        self,
        node_id: bytes,
        labels: Mapping[str, str],
        ledger: ResourceLedger,
        pool: WorkerPool,
        infeasible_grace_s: float,
        new_lease_id: Callable[[], bytes],
    ) -> None:
        """``infeasible_grace_s``: how long a class that no node can hold may wait; 0 = not at all, -1 = for ever."""
        self._story = Story("worker leases")
        self._node_id = NodeID(node_id)
        self._labels = labels
        #: No other node can be reached: what this one can hold need not be asked about.
        self.alone = True
        self._draining = False
        self._ledger = ledger
        self._pool = pool
        self._grace_s = infeasible_grace_s
        self._new_lease_id = new_lease_id
        self._demands: dict[tuple[bytes, int], Demand] = {}
        #: Demands that are owed a lease, the one whose turn is longest ago first.
        self._waiting: dict[tuple[bytes, int], Demand] = {}
        self._leases = HeldLeases(ledger)
        self._wishes = ActorWishes()
        self._starvation = Starvation()
        self._allowances = Allowances()
        #: The last round of grants.
        self._round = QuotaRound(self._allowances, {})
        #: Some demand had a priority of its own: most programs have none, and nothing is to be compared.
        self._ranked = False
        #: A class that needs nothing is bounded by this number of leases at a time instead.
        self._free_limit = max(8, 4 * ledger.total["CPU"] // 10_000)

    @property
    def queued(self) -> int:
        """Leases that are owed, and wait for more than their job's quota."""
        return sum(map(self._round.possible, self._waiting.values()))

    @property
    def queued_by_need(self) -> Mapping[tuple[ResourceSet, str], int]:
        """The same: how many by resources and strategy."""
        return owed_by_need((demand, self._round.possible(demand)) for demand in self._waiting.values())

    def owner_of(self, worker_id: bytes) -> bytes | None:
        """For whom the worker runs, None when it is not leased."""
        lease = self._leases.by_worker.get(worker_id)
        return lease.demand.owner if lease is not None else None

    def worker_of(self, lease_id: bytes) -> bytes | None:
        lease = self._leases.by_id.get(lease_id)
        return lease.worker.worker_id if lease is not None else None

    @property
    def held(self) -> int:
        """Leases that are granted and not returned."""
        return len(self._leases)

    @property
    def draining(self) -> bool:
        return self._draining

    @noted
    def drain(self) -> list[Action]:
        """Nothing new is granted here: owners are to return their leases when the tasks already pushed are done, and
        whoever waits is sent elsewhere."""
        self._draining = True
        for demand in self._demands.values():
            demand.impossible, demand.far = True, False
            demand.ask_not_before = 0.0
        leases = [lease for lease in self._leases if not lease.reclaimed]
        for lease in leases:
            lease.reclaimed = True
        return [Send(lease.demand.owner, frames.LeaseReclaim(lease.lease_id)) for lease in leases]

    # --- events ---

    @noted
    def demanded(self, owner: bytes, job_id: bytes, message: frames.LeaseDemand, now: float) -> list[Action]:
        """Raises: ValueError when the first demand of a class comes without its spec, InvalidRequest for an unknown
        strategy."""
        key = (owner, message.class_key)
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = self._new_demand(owner, job_id, message)
        grown = message.total - demand.total
        demand.total = message.total
        demand.sent_here = message.placed
        demand.argument_bytes = message.argument_bytes
        demand.mean_task_us = message.mean_task_us or demand.mean_task_us
        demand.look_for_arguments(self._node_id)
        if not demand.owed:
            self._settled(demand)
            return []
        if message.placed and grown > 0:
            demand.placed += grown
        demand.placed = min(demand.placed, demand.owed)
        if key not in self._waiting:
            self._waiting[key] = demand
            demand.waiting_since = now
        return self._ask_if_due(demand, now)

    def _new_demand(self, owner: bytes, job_id: bytes, message: frames.LeaseDemand) -> Demand:
        spec = message.spec
        if spec is None:
            raise ValueError(f"the first demand of class {message.class_key} has no spec")
        self._ranked = self._ranked or spec.priority != 0
        return new_demand(
            owner,
            job_id,
            message.class_key,
            spec,
            self._node_id,
            self._labels,
            self._draining,
            self._ledger,
            self._allowances,
        )

    @noted
    def returned(self, owner: bytes, lease_id: bytes, worker_exits: bool, now: float) -> None:
        """Unknown leases are ignored: the worker's death may have crossed the return on the way."""
        lease = self._leases.by_id.get(lease_id)
        if lease is None or lease.demand.owner != owner:
            return
        self._leases.end(lease)
        if worker_exits:
            self._pool.ending(lease.worker.worker_id, now)
        else:
            self._pool.put_back(lease.worker.worker_id, now)

    @noted
    def worker_lost(self, worker_id: bytes, kind: ExitKind, detail: str, shared_blame: bool = False) -> list[Action]:
        lease = self._leases.by_worker.get(worker_id)
        if lease is None:
            return []
        self._leases.end(lease)
        return [Send(lease.demand.owner, frames.LeaseLost(lease.lease_id, kind, detail, shared_blame=shared_blame))]

    @noted
    def owner_gone(self, owner: bytes, now: float) -> list[Action]:
        """Its connection ended: nobody will collect what the workers do for it, so they end too."""
        actions: list[Action] = []
        for key in [key for key in self._demands if key[0] == owner]:
            demand = self._demands.pop(key)
            self._waiting.pop(key, None)
            for lease in list(demand.held.values()):
                self._leases.end(lease)
                self._pool.ending(lease.worker.worker_id, now)
                detail = "the process that owned its task has ended"
                actions.append(KillWorker(lease.worker.worker_id, ExitKind.INTENDED_SYSTEM_EXIT, detail))
        return actions

    @noted
    def bundles_changed(self) -> None:
        """Bundles of placement groups came or went: what must run in them may be possible here now, or not any more."""
        for demand in self._demands.values():
            if demand.strategy.group_id and demand.strategy.allows(self._node_id, self._labels):
                demand.impossible = self._draining or not self._ledger.can_ever_hold(demand.resources)

    @noted
    def group_removed(self, group_id: bytes, reason: str, now: float) -> list[Action]:
        """What runs in this placement group ends, and what waits for it here is refused."""
        actions: list[Action] = []
        for demand in [demand for demand in self._demands.values() if demand.strategy.group_id == group_id]:
            for lease in list(demand.held.values()):
                self._leases.end(lease)
                self._pool.ending(lease.worker.worker_id, now)
                lost = frames.LeaseLost(lease.lease_id, ExitKind.INTENDED_SYSTEM_EXIT, reason, group_removed=True)
                actions.append(Send(demand.owner, lost))
                actions.append(KillWorker(lease.worker.worker_id, ExitKind.INTENDED_SYSTEM_EXIT, reason))
            if demand.owed:
                actions.append(self._refuse(demand, RefusalKind.GROUP_REMOVED, reason))
        return actions

    @noted
    def actor_waits(self, actor_id: bytes, need: ResourceSet, now: float) -> None:
        """An actor found no room: it is set aside for it until the GCS tries again."""
        self._wishes.add(actor_id, need, now)

    @noted
    def actor_placed(self, actor_id: bytes) -> None:
        self._wishes.discard(actor_id)

    @noted
    def allowance_answered(self, job_id: bytes, number: int, answer: AllowanceAnswer | None, now: float) -> None:
        """To ``AskAllowance``; None = nobody has."""
        self._allowances.answered(job_id, number, answer, now)

    @noted
    def job_ended(self, job_id: bytes) -> None:
        """Nothing of it runs any more, not even a detached actor."""
        self._allowances.revoked(job_id)

    @noted
    def answered(self, owner: bytes, class_key: int, answer: SchedulerAnswer | None, now: float) -> list[Action]:
        """To ``AskScheduler``; None = nobody answers, so that this node decides by what it knows: itself."""
        demand = self._demands.get((owner, class_key))
        if demand is None:
            return []
        demand.asking = False
        if answer is None:
            answer = own_answer(demand, self._node_id, self._draining)
        actions: list[Action] = []
        here = elsewhere = 0
        for placed in answer.placed:
            count = min(placed.count, demand.owed)
            if placed.node_id == self._node_id:
                here += count
            elif demand.far and placed.node_id not in (demand.argument_bytes or {}):
                # The arguments would travel as far.
                continue
            elif count:
                elsewhere += count
                demand.granted += count
                actions.append(
                    Send(owner, frames.LeaseSpillback(class_key, count, placed.node_id, placed.host, placed.port))
                )
        demand.stays(demand.asked - elsewhere if demand.far else here)
        if not demand.owed:
            self._settled(demand)
        elif demand.far:
            # Those that have come meanwhile are asked about at once.
            demand.ask_not_before = now
        elif demand.elsewhere(self.alone):
            actions += self._judge(demand, answer, now)
        return actions

    def _judge(self, demand: Demand, answer: SchedulerAnswer, now: float) -> list[Action]:
        """Some of it can be granted neither here nor, as far as is known, elsewhere."""
        if not answer.infeasible:
            demand.infeasible_since = None
            return []
        if demand.infeasible_since is None:
            demand.infeasible_since = now
            demand.infeasible_reason = self._why_not_here(demand)
        demand.infeasible_reason = answer.reason or demand.infeasible_reason
        if demand.bound:
            return [self._refuse(demand, RefusalKind.AFFINITY, demand.infeasible_reason)]
        if demand.strategy.group_id:
            return [self._refuse(demand, RefusalKind.GROUP_REMOVED, demand.infeasible_reason)]
        if self._grace_s < 0 or now - demand.infeasible_since < self._grace_s:
            return []
        reason = f"{demand.infeasible_reason}. Ask for less, or add a node that has it"
        return [self._refuse(demand, RefusalKind.INFEASIBLE, reason)]

    @noted
    def workers_unstartable(self, reason: str, environment: str = "") -> list[Action]:
        """Everybody who waits for a worker that cannot be started is told why. ``environment``: the key of the one in
        which none can."""
        kind = RefusalKind.RUNTIME_ENV if environment else RefusalKind.WORKER_START
        return [
            self._refuse(demand, kind, f"worker processes do not start on this node: {reason}")
            for demand in list(self._waiting.values())
            if demand.environment == environment and demand.grantable(self.alone)
        ]

    @noted
    def environment_failed(self, key: str, reason: str) -> list[Action]:
        """A runtime environment could not be made."""
        return [
            self._refuse(demand, RefusalKind.RUNTIME_ENV, reason)
            for demand in list(self._waiting.values())
            if demand.environment == key and demand.grantable(self.alone)
        ]

    @noted
    def environment_vanished(self, key: str) -> list[Action]:
        """After the pool was told: leases of workers in it come back, even where nobody waits for them."""
        leases = [lease for lease in self._leases if lease.worker.environment == key and not lease.reclaimed]
        return self._ask_back(leases, at_once=True)

    # --- decisions ---

    @explained
    def dispatch(self, now: float) -> tuple[list[Action], Counter[str]]:
        """Grant what can be granted; also the number of workers that were missing for more, by the document of their
        runtime environment."""
        actions: list[Action] = []
        wanted: Counter[str] = Counter()
        #: Available, less what is set aside for those whose turn it is but who cannot start yet.
        room = self._ledger.unclaimed
        for need in self._wishes.needs:
            room -= need
        passed: set[tuple[bytes, int]] = set()
        quotas = self._round
        if self._allowances:
            used = quota_round.used(self._allowances, self._leases, self._pool, self._ledger)
            self._round = quotas = QuotaRound(self._allowances, used)
        for demand in self._waiting.values():
            if not demand.grantable(self.alone):
                passed.add(demand.key)
            elif demand.counted is not None and quotas.holds_up(demand):
                continue
            elif now - demand.waiting_since >= PASSED_OVER_S and not demand.resources.fits_in(room):
                room -= demand.resources
                passed.add(demand.key)
        if self._allowances:
            quotas.look_at(demand for demand in self._waiting.values() if demand.grantable(self.alone))
        while (chosen := self._next(room, passed, now)) is not None:
            worker = self._pool.take(
                chosen.job_id,
                chosen.spec.runtime_env,
                self._ledger.gpus_for(chosen.resources) if chosen.gpus else (),
                WorkerState.LEASED,
                now,
                chosen.memory_limit,
            )
            if worker is None:
                passed.add(chosen.key)
                for _ in range(chosen.grantable(self.alone)):
                    if not chosen.resources.fits_in(room) or (chosen.free and wanted.total() >= self._free_limit):
                        break
                    if chosen.counted is not None:
                        if not quotas.lets(chosen, now):
                            break
                        quotas.takes(chosen, coming=True)
                    room -= chosen.resources
                    wanted[chosen.spec.runtime_env] += 1
                continue
            room -= chosen.resources
            if chosen.counted is not None:
                quotas.takes(chosen)
            actions += self._grant(chosen, worker, now)
            if not chosen.grantable(self.alone):
                passed.add(chosen.key)
        if self._allowances:
            self._allowances.keep_only({demand.job_id for demand in self._demands.values()})
            actions += quotas.settle(self._waiting.values(), self.alone, room, now)
        return actions + self._reclaim_outranked(), wanted

    @explained
    def tick(self, now: float) -> list[Action]:
        """Ask leases back, and a scheduler about what waits for too long."""
        self._wishes.forget_old(now)
        actions: list[Action] = []
        for demand in list(self._waiting.values()):
            actions += self._ask_if_due(demand, now)
            grantable = demand.grantable(self.alone)
            if grantable and now - demand.waiting_since >= QUANTUM_S:
                actions += self._reclaim(demand.resources, grantable, demand.job_id, demand, now)
        for need in [*self._wishes.needs, *self._ledger.claims]:
            actions += self._reclaim(need, self._leases_for(need), b"", None, now)
        for job_id in self._allowances:
            actions += self._reclaim_allowance(job_id, now)
        waiting = [d for d in self._waiting.values() if d.grantable(self.alone) and now - d.waiting_since >= PATIENCE_S]
        needs = [*self._wishes.needs, *(demand.resources for demand in waiting)]
        return actions + self.waits_in_vain(needs, now)

    def waits_in_vain(self, needs: Iterable[ResourceSet], now: float) -> list[Action]:
        """These find no room now."""
        starve = self._starvation.found(needs, self._ledger.total, self._coming, now)
        return [CollectGarbage()] if starve else []

    def next_deadline(self, now: float) -> float | None:
        """When ``tick`` may have something to do if nothing happens before; while somebody waits, as quanta end."""
        alone = self.alone
        deadlines = [at for demand in self._waiting.values() if (at := demand.ask_at(alone)) is not None]
        if (at := self._allowances.next_deadline()) is not None:
            deadlines.append(at)
        if any(demand.grantable(alone) for demand in self._waiting.values()) or self._wishes or self._ledger.claims:
            began = [lease.granted_at for lease in self._leases]
            began += [demand.waiting_since for demand in self._waiting.values()]
            deadlines.append(
                min((begin + QUANTUM_S for begin in began if begin + QUANTUM_S > now), default=now + QUANTUM_S)
            )
        return min(deadlines, default=None)

    @property
    def mean_task_us(self) -> int:
        """Of what waits here, as far as the owners have timed it; 0 = unknown."""
        return mean_task_us(self._waiting.values())

    def explain(self, owner: bytes, class_key: int, starting: int, now: float) -> str:
        """Why what is owed has not been granted, for humans. ``starting``: worker processes that are not up yet."""
        demand = self._demands.get((owner, class_key))
        if demand is None or not demand.owed:
            return "nothing is waited for here"
        needs = amounts(demand.resources.to_units())
        since = f"it waits for {needs} for {now - demand.waiting_since:.1f} s"
        if demand.infeasible_since is not None:
            return f"{since}: {demand.infeasible_reason}"
        if not demand.grantable(self.alone):
            if demand.strategy.group_id and demand.impossible:
                return f"{since}: no bundle of its placement group is reserved here"
            return f"{since}: {self._why_not_here(demand)}" if demand.impossible else f"{since}: a scheduler is asked"
        lacking = demand.resources.missing_from(self._ledger.available)
        held = holders_told(lacking, self._ledger, self._leases.by_worker, self._pool.workers)
        return f"{since}: {why_not_yet(demand, self._round.holds_up(demand), self._ledger, held, starting)}"

    # --- inside ---

    def _next(self, room: ResourceSet, passed: set[tuple[bytes, int]], now: float) -> Demand | None:
        """The fitting demand of the job that holds the least CPU for its weight, there of the highest priority the one
        that holds the fewest leases."""
        best: Demand | None = None
        best_share = (0.0, 0, 0)
        aside = set_aside(self._waiting.values(), self._ledger.total, self.alone) if self._ranked else {}
        for key, demand in self._waiting.items():
            if key in passed:
                continue
            if not demand.resources.fits_in(room) or not self._ledger.has_devices(demand.resources):
                continue
            if demand.free and self._leases.running(demand) >= self._free_limit:
                continue
            if key in aside and not demand.resources.fits_in(room - aside[key]):
                continue
            if demand.counted is not None and not self._round.lets(demand, now):
                continue
            held_cpu = self._leases.cpu_of(demand.job_id) / demand.spec.weight
            share = (held_cpu, -demand.priority, len(demand.held))
            if best is None or share < best_share:
                best, best_share = demand, share
        return best

    def _grant(self, demand: Demand, worker: Worker, now: float) -> list[Action]:
        assert worker.address is not None
        allocation = self._ledger.allocate(worker.worker_id, demand.resources)
        worker.name, worker.retriable = demand.spec.name, demand.spec.retriable
        lease = Lease(self._new_lease_id(), demand, worker, now)
        self._leases.begin(lease)
        demand.takes(1)
        del self._waiting[demand.key]
        if demand.owed:
            demand.waiting_since = now
            self._waiting[demand.key] = demand
        else:
            demand.settled()
        return [
            Send(
                worker.worker_id,
                frames.LeaseAssigned(
                    lease.lease_id,
                    demand.job_id,
                    demand.spec.resources,
                    allocation.devices,
                    demand.spec.strategy,
                    demand.spec.priority,
                ),
            ),
            Send(demand.owner, frames.LeaseGranted(demand.class_key, lease.lease_id, worker.address, worker.pid)),
        ]

    def _reclaim(
        self, need: ResourceSet, count: int, job_id: bytes, waiting: Demand | None, now: float
    ) -> list[Action]:
        lacking = need.missing_from(self._ledger.available)
        leases = list(self._leases) if lacking else []
        if waiting is not None and self._round.holds_up(waiting):
            # What others hold is of no use to it.
            lacking = self._round.lacking(waiting)
            leases = self._leases.of_job(job_id)
        return self._ask_back(to_reclaim(leases, self._leases.is_blocked, lacking, count, job_id, waiting, now))

    def _ask_back(self, leases: Sequence[Lease], *, at_once: bool = False) -> list[Action]:
        for lease in leases:
            lease.reclaimed = True
        return [Send(each.demand.owner, frames.LeaseReclaim(each.lease_id, at_once=at_once)) for each in leases]

    def _reclaim_outranked(self) -> list[Action]:
        """Whoever still waits takes from those of its job that have a lower priority."""
        if not self._ranked:
            return []
        actions: list[Action] = []
        for demand in self._waiting.values():
            count = demand.grantable(self.alone)
            lacking = demand.resources.missing_from(self._ledger.available) if count else {}
            if count and self._round.holds_up(demand):
                lacking = self._round.lacking(demand)
            leases = self._leases.not_blocked() if lacking else []
            actions += self._ask_back(outranked(leases, demand, lacking, count), at_once=True)
        return actions

    def _reclaim_allowance(self, job_id: bytes, now: float) -> list[Action]:
        """Others wait for what its tasks hold here."""
        lacking = self._round.lacking_for_others(job_id)
        if not lacking:
            return []
        leases = self._leases.of_job(job_id)
        count = count_for(lacking, leases)
        return self._ask_back(to_reclaim(leases, self._leases.is_blocked, lacking.grains, count, b"", None, now))

    def _leases_for(self, need: ResourceSet) -> int:
        """How many leases must be given back for it, if they are the largest."""
        return count_for(ResourceSet.of(need.missing_from(self._ledger.available)), list(self._leases))

    @property
    def leased(self) -> ResourceSet:
        """What leases give back some day."""
        return self._leases.resources

    def _coming(self) -> ResourceSet:
        """What is free, and what leases give back some day."""
        return self._ledger.available + self.leased

    def _ask_if_due(self, demand: Demand, now: float) -> list[Action]:
        at = demand.ask_at(self.alone)
        if at is None or now < at:
            return []
        if demand.impossible and demand.strategy.node_id == self._node_id and demand.bound:
            return [
                self._refuse(demand, RefusalKind.AFFINITY, f"{self._why_not_here(demand)}, and it may run nowhere else")
            ]
        # What fits only waits for a process to start.
        count = demand.elsewhere(self.alone) or self._round.possible(demand) - demand.fitting(self._ledger.unclaimed)
        if count <= 0:
            demand.ask_not_before = now + SPILL_AFTER_S
            return []
        return [demand.ask(count, now)]

    def _why_not_here(self, demand: Demand) -> str:
        return why_not_here(demand, self._node_id, self._draining, self._ledger)

    def _refuse(self, demand: Demand, kind: RefusalKind, reason: str) -> Action:
        """What is owed counts as cancelled: a later demand of the class is judged anew."""
        demand.cancel()
        self._waiting.pop(demand.key, None)
        return Send(demand.owner, frames.LeaseRefused(demand.class_key, kind, reason))

    def _settled(self, demand: Demand) -> None:
        demand.settled()
        self._waiting.pop(demand.key, None)

    # --- for tests ---

    def validate(self) -> None:
        self._leases.validate()
        assert sum(len(demand.held) for demand in self._demands.values()) == len(self._leases)
        for key, demand in self._demands.items():
            assert demand.key == key
            assert (key in self._waiting) == (demand.owed > 0), "it waits while something is owed"
            assert 0 <= demand.placed <= demand.owed
        assert self._waiting.keys() <= self._demands.keys()
