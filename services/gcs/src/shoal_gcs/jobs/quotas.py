"""What a job may hold at once over the whole cluster, its *quota*, and who holds how much of it. Pure.

Nodes grant leases by themselves. So each has an *allowance*: what its raylet may let the job's tasks hold. When tasks
wait there, the raylet asks for more, whole leases at a time, as nothing runs on half of one; what it does not use it
gives back. It takes a thing down before it says so, and the GCS writes a thing down before it says so: a message that
is lost or late leaves something that nobody uses, never too much. What actors and placement groups hold is counted
here, as the GCS places them itself, until their processes and bundles are known to be gone.

Who waits has its turn. It is passed by what is smaller for a moment only, and only by who has no more than it; else
what it needs is set aside. Of the
node that holds the most, so much is asked back as the first one lacks that holds less. What actors and groups hold
comes back by itself or not at all, and for a need that waits for that nothing is set aside.

A quota is by names of plain resources; those of bundles are not counted, the bundle is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shoal_common.placement.resources import ResourceSet
from shoal_common.service.story import Story, noted

#: So long those that wait are passed by what is smaller, in seconds.
PASSED_OVER_S = 2.0
#: Who has not asked for so long waits no more, in seconds.
FORGOTTEN_S = 5.0


@dataclass(slots=True)
class Allowance:
    """Of one node."""

    incarnation: int
    #: Of its last question.
    number: int = 0
    granted: ResourceSet = field(default_factory=ResourceSet)


@dataclass(frozen=True, slots=True)
class Answer:
    granted: ResourceSet
    #: What nobody holds, and nobody waits for in front of the one that asks.
    left: ResourceSet
    #: What tasks may hold altogether: the rest is held by actors and placement groups.
    for_tasks: ResourceSet
    #: What others wait for that have less.
    asked_back: ResourceSet


@dataclass(slots=True)
class _Waiting:
    #: What the first thing needs that it waits for.
    need: ResourceSet
    since: float
    asked_at: float


class Quota:
    """Of one job."""

    def __init__(self, limit: Mapping[str, int]) -> None:
        """``limit``: in grains; 0 = nothing of that."""
        self._story = Story("a job's quota")
        self.limit = dict(limit)
        self._all = ResourceSet(limit)
        self.allowances: dict[bytes, Allowance] = {}
        #: By actor or placement group.
        self._held: dict[bytes, ResourceSet] = {}
        #: Nodes, actors and groups, in turn.
        self._waiting: dict[bytes, _Waiting] = {}

    def load(self, allowances: Mapping[bytes, Allowance]) -> None:
        """As an earlier GCS has written them down."""
        self.allowances = dict(allowances)

    def counted(self, resources: ResourceSet) -> ResourceSet:
        """What of this the quota is about."""
        return ResourceSet({name: resources[name] for name in self.limit})

    @property
    def left(self) -> ResourceSet:
        """What nobody holds. Below nothing: what is from before the quota holds more than all of it."""
        granted = (allowance.granted for allowance in self.allowances.values())
        return self._all - ResourceSet.sum([*granted, *self._held.values()])

    def lacking(self, holder: bytes, resources: ResourceSet) -> ResourceSet:
        """What it does not hold of this yet."""
        return _positive(self.counted(resources) - self._held.get(holder, ResourceSet()))

    def is_waiting(self, holder: bytes) -> bool:
        return holder in self._waiting

    # --- nodes ---

    @noted
    def ask(
        self,
        node_id: bytes,
        incarnation: int,
        number: int,
        keeps: ResourceSet,
        wants: Sequence[ResourceSet],
        now: float,
    ) -> Answer | None:
        """A raylet holds ``keeps`` of its allowance from now on, and wants each of ``wants`` besides, as much as there
        is. None: a later question has come before this one, or it is a repeat."""
        allowance = self.allowances.get(node_id)
        if allowance is not None and (incarnation, number) <= (allowance.incarnation, allowance.number):
            return None
        self._drop_forgotten(now)
        allowance = self.allowances[node_id] = Allowance(incarnation, number, self.counted(keeps))
        room = self._room_for(node_id, now)
        unmet: ResourceSet | None = None
        for need in map(self.counted, wants):
            if need.fits_in(room):
                room -= need
                allowance.granted += need
            else:
                unmet = unmet or need
        has_more = allowance.granted != self.counted(keeps)
        if unmet is None or has_more:
            self._waiting.pop(node_id, None)  # it has had its turn
        if unmet is not None:
            self._wait(node_id, unmet, now)
        held = ResourceSet.sum(self._held.values())
        # Not in one breath with what is granted: it would go back before it was used.
        back = ResourceSet() if has_more else self._asked_back(node_id)
        return Answer(allowance.granted, _positive(room), _positive(self._all - held), back)

    @noted
    def node_died(self, node_id: bytes) -> bool:
        """Whether it held anything."""
        self._waiting.pop(node_id, None)
        return self.allowances.pop(node_id, None) is not None

    # --- actors and placement groups ---

    @noted
    def take(self, holder: bytes, resources: ResourceSet, now: float) -> bool:
        """It holds so much from now on, if there is as much; else it waits. A repeat changes nothing."""
        lacking = self.lacking(holder, resources)
        self._drop_forgotten(now)
        if not lacking.fits_in(self._room_for(holder, now)):
            self._wait(holder, lacking, now)
            return False
        self.holds(holder, resources)
        return True

    @noted
    def holds(self, holder: bytes, resources: ResourceSet) -> None:
        """So much it holds now, and waits for nothing. It is not more than it has taken, or than it holds from before
        the quota: then nothing is left, and everybody else waits."""
        self._waiting.pop(holder, None)
        self._held.pop(holder, None)
        if counted := self.counted(resources):
            self._held[holder] = counted

    # --- inside ---

    def _wait(self, holder: bytes, need: ResourceSet, now: float) -> None:
        waiting = self._waiting.setdefault(holder, _Waiting(need, now, now))
        waiting.need, waiting.asked_at = need, now

    def _drop_forgotten(self, now: float) -> None:
        for holder in [each for each, waiting in self._waiting.items() if now - waiting.asked_at >= FORGOTTEN_S]:
            del self._waiting[holder]

    def _room_for(self, holder: bytes, now: float) -> ResourceSet:
        """What is left, without what is set aside for those before it."""
        room = self.left
        earlier = True
        for other, waiting in self._waiting.items():
            if other == holder:
                earlier = False
                continue
            long = earlier and now - waiting.since >= PASSED_OVER_S
            if (long or self._share(other) < self._share(holder)) and self._may_come(waiting.need):
                room -= waiting.need
        return room

    def _may_come(self, need: ResourceSet) -> bool:
        """Without the end of an actor or a group."""
        return need.fits_in(self._all - ResourceSet.sum(self._held.values()))

    def _asked_back(self, node_id: bytes) -> ResourceSet:
        share = self._share(node_id)
        if not share or share < max(map(self._share, self.allowances)):
            return ResourceSet()
        left = self.left
        for holder, waiting in self._waiting.items():
            lacking = _positive(waiting.need - left)
            if not lacking:
                left -= waiting.need
            elif holder != node_id and self._share(holder) < share and self._may_come(waiting.need):
                granted = self.allowances[node_id].granted
                return ResourceSet({name: min(lacking[name], granted[name]) for name in lacking})
        return ResourceSet()

    def _share(self, holder: bytes) -> float:
        allowance = self.allowances.get(holder)
        grains = allowance.granted.grains if allowance is not None else {}
        return max((amount / self.limit[name] for name, amount in grains.items() if self.limit[name]), default=0.0)

    # --- for tests ---

    def validate(self) -> None:
        assert all(amount >= 0 for amount in self.left.grains.values()), "never more than the quota"
        for each in [*(allowance.granted for allowance in self.allowances.values()), *self._held.values()]:
            assert all(amount > 0 for amount in each.grains.values())
            assert each.grains.keys() <= self.limit.keys(), "what the quota is about"
        assert all(waiting.need for waiting in self._waiting.values()), "who waits waits for something"


def _positive(resources: ResourceSet) -> ResourceSet:
    return ResourceSet({name: amount for name, amount in resources.grains.items() if amount > 0})
