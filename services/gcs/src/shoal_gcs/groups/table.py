"""The life of placement groups: bundles of resources that are reserved together or not at all.

    PENDING --all reserved--> PREPARED --all committed--> CREATED --a node dies--> RESCHEDULING --> PREPARED --> CREATED
    and from each of them to REMOVED.

Reserving has two phases. Raylets *prepare* bundles under the id of the attempt, and give them up by themselves when
nothing more is heard. When all are prepared, the row says PREPARED and where; only then are they *committed*, which
makes them usable. So whatever a GCS that is killed leaves behind is in the row, or goes away by itself. A bundle whose
node dies, or whose raylet has given it up before the commit, looks for a place again, before all groups that have none
yet; the group's other bundles stay.

One group is placed at a time, so that two large ones do not each hold half of what both need. The row of a removed
group names its nodes until they have given its bundles back.

Pure: events and the time in, actions out. Which node takes which bundle is decided in ``bundle_planner``.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from operator import attrgetter

from shoal_common.errors import AlreadyExists
from shoal_common.service.story import Story, noted
from shoal_common.states import GroupState, PlacementStrategy
from shoal_gcs.groups.bundle_planner import Need

#: Removed groups that are remembered.
REMOVED_KEPT = 1_000
#: Bounds of the pause before those that found no room are tried again, in seconds.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 1.0


@dataclass(slots=True)
class Bundle:
    need: Need
    #: Where it is reserved; empty = nowhere. REMOVED: not yet given back there.
    node_id: bytes = b""
    #: Under which id.
    reservation: bytes = b""
    #: Usable, as far as is known. Not stored: after a restart it is committed again.
    committed: bool = False


@dataclass(slots=True)
class PlacementGroup:
    group_id: bytes
    job_id: bytes
    #: Worker id of its creator.
    owner_id: bytes
    strategy: PlacementStrategy
    bundles: list[Bundle]
    name: str = ""
    namespace: str = ""
    detached: bool = False
    #: The detached actor with which it ends; empty = it ends with its job.
    actor_id: bytes = b""
    #: Grows with every group that is created: the order of creation.
    sequence: int = 0

    state: GroupState = GroupState.PENDING
    #: Grows with every transition.
    version: int = 1
    removal_reason: str = ""

    @property
    def placed(self) -> dict[int, bytes]:
        return {index: bundle.node_id for index, bundle in enumerate(self.bundles) if bundle.node_id}

    @property
    def homeless(self) -> dict[int, Need]:
        """The bundles that need a place."""
        return {index: bundle.need for index, bundle in enumerate(self.bundles) if not bundle.node_id}


# --- actions ---


@dataclass(frozen=True, slots=True)
class Save:
    """Write its row, then tell those who wait for a newer version."""

    group_id: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """Ask the raylet to commit what it has prepared, once the row is written; answered by ``committed`` or ``lost``."""

    group_id: bytes
    node_id: bytes
    reservation: bytes


@dataclass(frozen=True, slots=True)
class Return:
    """Ask the raylet to give up all bundles of the group; answered with ``returned``."""

    group_id: bytes
    node_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Removed:
    """What waits for its bundles, or runs in them, is to fail."""

    group_id: bytes


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the row of a removed group: newer ones take its place in memory."""

    group_id: bytes


Action = Save | Commit | Return | Removed | Forget


class PlacementGroupTable:
    def __init__(self, *, removed_kept: int = REMOVED_KEPT) -> None:
        self._removed_kept = removed_kept
        self._story = Story("the table of placement groups")
        #: In the order of their creation.
        self._groups: dict[bytes, PlacementGroup] = {}
        #: All and only the named groups that are not removed, by (namespace, name).
        self._by_name: dict[tuple[str, str], bytes] = {}
        #: All and only the groups that are not removed and have a bundle without a node. They are tried in rounds, each
        #: time in the order of their creation, so that small ones do not overtake a large one for ever.
        self._homeless: set[bytes] = set()
        #: Those of them whose turn in this round is still to come.
        self._untried: set[bytes] = set()
        #: The one that is being placed.
        self._placing = b""
        #: The longest removed first.
        self._removed: OrderedDict[bytes, None] = OrderedDict()
        self._last_sequence = 0
        #: When the next round begins; infinite while one is under way, unless room has become free in it.
        self._next_round_at = inf
        self._last_round_at = -inf
        self._poked = False
        self._pause_s = FIRST_PAUSE_S

    def states(self) -> Counter[GroupState]:
        """How many are in each, removed ones that are remembered among them."""
        return Counter(group.state for group in self._groups.values())

    def __getitem__(self, group_id: bytes) -> PlacementGroup:
        return self._groups[group_id]

    def __contains__(self, group_id: bytes) -> bool:
        return group_id in self._groups

    def named(self, namespace: str, name: str) -> PlacementGroup | None:
        group_id = self._by_name.get((namespace, name))
        return None if group_id is None else self._groups[group_id]

    def is_usable(self, group_id: bytes) -> bool:
        """It exists and is not removed."""
        return group_id in self._groups and self._groups[group_id].state is not GroupState.REMOVED

    def living(self) -> list[PlacementGroup]:
        return [group for group in self._groups.values() if group.state is not GroupState.REMOVED]

    # --- events ---

    def load(self, groups: Iterable[PlacementGroup], living_nodes: Collection[bytes]) -> list[Action]:
        """Take over what an earlier GCS has stored; what it may have left undone is done again."""
        actions: list[Action] = []
        for group in sorted(groups, key=attrgetter("sequence")):
            self._last_sequence = group.sequence
            self._groups[group.group_id] = group
            self._index(group)
            for node_id in sorted(set(group.placed.values())):
                if node_id not in living_nodes:
                    actions += self._leave_node(group, node_id)
            if group.state is GroupState.REMOVED:
                actions += _return(group)
            else:
                actions += _commit(group)
        return actions + self._forget_excess()

    @noted
    def create(self, group: PlacementGroup) -> list[Action]:
        """A repeat for a known group asks for nothing. Raises: AlreadyExists when a living group has the name."""
        if group.group_id in self._groups:
            return []
        if group.name and (group.namespace, group.name) in self._by_name:
            raise AlreadyExists(
                f"a placement group named {group.name!r} exists in namespace {group.namespace!r}: take another name, "
                "or get the existing one with get_placement_group()"
            )
        self._last_sequence += 1
        group.sequence = self._last_sequence
        self._groups[group.group_id] = group
        self._index(group)
        return [Save(group.group_id)]

    @noted
    def remove(self, group_id: bytes, reason: str) -> list[Action]:
        """Idempotent; nothing for an unknown group."""
        group = self._groups.get(group_id)
        if group is None or group.state is GroupState.REMOVED:
            return []
        group.removal_reason = reason
        actions = self._move(group, GroupState.REMOVED)
        return [*actions, Removed(group_id), *_return(group), *self._forget_excess()]

    @noted
    def job_finished(self, job_id: bytes) -> list[Action]:
        actions: list[Action] = []
        for group in self.living():
            if group.job_id == job_id and not group.actor_id and not group.detached:
                actions += self.remove(group.group_id, "its job has finished")
        return actions

    @noted
    def actor_died(self, actor_id: bytes) -> list[Action]:
        actions: list[Action] = []
        for group in self.living():
            if group.actor_id == actor_id and not group.detached:
                reason = f"the actor {actor_id.hex()}, which created it, has died"
                actions += self.remove(group.group_id, reason)
        return actions

    @noted
    def node_died(self, node_id: bytes) -> list[Action]:
        actions: list[Action] = []
        for group in self._groups.values():
            if node_id in group.placed.values():
                actions += self._leave_node(group, node_id)
        return actions

    # --- the search for nodes ---

    def due(self, now: float) -> PlacementGroup | None:
        """The group to place next, answered with ``prepared`` or ``no_room``; None while another is being placed."""
        if self._placing:
            return None
        # A round ends before the next begins, or the last would never be tried where room becomes free all the time.
        if not self._untried and now >= self._next_round_at:
            self._untried |= self._homeless
            self._next_round_at, self._last_round_at, self._poked = inf, now, False
        if not self._untried:
            return None
        turns = [self._groups[group_id] for group_id in self._untried]
        group = min(turns, key=lambda group: (group.state is not GroupState.RESCHEDULING, group.sequence))
        self._untried.discard(group.group_id)
        self._placing = group.group_id
        return group

    def next_deadline(self) -> float | None:
        """When ``due`` may return something that it does not return now."""
        return None if self._placing or not self._homeless or self._next_round_at == inf else self._next_round_at

    def poke(self, now: float) -> None:
        """Room may have become free."""
        if self._homeless - self._untried and not self._poked:
            self._poked = True
            self._pause_s = FIRST_PAUSE_S
            self._next_round_at = max(now, self._last_round_at + FIRST_PAUSE_S)

    @noted
    def no_room(self, group_id: bytes, now: float) -> None:
        self._end_turn(group_id, now)

    @noted
    def prepared(self, group_id: bytes, reservation: bytes, plan: Mapping[int, bytes], now: float) -> list[Action]:
        """The raylets have reserved ``plan``. Nothing for a group that was removed meanwhile: what is reserved for it
        is to be given back."""
        self._end_turn(group_id, now)
        if group_id not in self._homeless:
            return []
        group = self._groups[group_id]
        for index, node_id in plan.items():
            group.bundles[index].node_id, group.bundles[index].reservation = node_id, reservation
        if group.homeless:  # a node died meanwhile and took one of those that were placed
            self._untried.add(group_id)
            return [Save(group_id), *_commit(group)]
        return [*self._move(group, GroupState.PREPARED), *_commit(group)]

    @noted
    def committed(self, group_id: bytes, node_id: bytes, reservation: bytes) -> list[Action]:
        group = self._groups.get(group_id)
        if group is None or group.state is GroupState.REMOVED:
            return []
        for bundle in group.bundles:
            if (bundle.node_id, bundle.reservation) == (node_id, reservation):
                bundle.committed = True
        if group.state is GroupState.PREPARED and all(bundle.committed for bundle in group.bundles):
            return self._move(group, GroupState.CREATED)
        return []

    @noted
    def lost(self, group_id: bytes, node_id: bytes, reservation: bytes) -> list[Action]:
        """The raylet does not have what it was to commit."""
        group = self._groups.get(group_id)
        if group is None or group.state is GroupState.REMOVED:
            return []
        lost = [bundle for bundle in group.bundles if (bundle.node_id, bundle.reservation) == (node_id, reservation)]
        return self._lose(group, lost) if lost else []

    @noted
    def returned(self, group_id: bytes, node_id: bytes) -> list[Action]:
        """The raylet has given up all that it held for a removed group."""
        group = self._groups.get(group_id)
        return self._leave_node(group, node_id) if group is not None else []

    def validate(self) -> None:
        """For tests: what is always true of it."""
        living = {group.group_id: group for group in self.living()}
        assert set(self._removed) == self._groups.keys() - living.keys()
        assert self._by_name == {(g.namespace, g.name): i for i, g in living.items() if g.name}
        assert self._homeless == {i for i, group in living.items() if group.homeless}
        assert self._untried <= self._homeless
        assert not self._placing or self._placing in self._groups
        for group in self._groups.values():
            for bundle in group.bundles:
                assert bool(bundle.node_id) == bool(bundle.reservation), "what is reserved has an id"
                assert bundle.node_id or not bundle.committed, "what is usable is somewhere"
            if group.state in (GroupState.PREPARED, GroupState.CREATED):
                assert not group.homeless, "all of its bundles have a node"
            if group.state is GroupState.CREATED:
                assert group.strategy is not PlacementStrategy.STRICT_PACK or len(set(group.placed.values())) == 1

    # --- what follows ---

    def _leave_node(self, group: PlacementGroup, node_id: bytes) -> list[Action]:
        bundles = [bundle for bundle in group.bundles if bundle.node_id == node_id]
        if group.state is not GroupState.REMOVED:
            return self._lose(group, bundles)
        _forget_place(bundles)
        return [Save(group.group_id)] if bundles else []

    def _lose(self, group: PlacementGroup, bundles: Iterable[Bundle]) -> list[Action]:
        _forget_place(bundles)
        return self._move(group, GroupState.RESCHEDULING)

    def _move(self, group: PlacementGroup, state: GroupState) -> list[Action]:
        group.state = state
        group.version += 1
        self._index(group)
        return [Save(group.group_id)]

    def _end_turn(self, group_id: bytes, now: float) -> None:
        if self._placing != group_id:
            return
        self._placing = b""
        if not self._untried and not self._poked:
            self._next_round_at = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)

    def _index(self, group: PlacementGroup) -> None:
        key = (group.namespace, group.name)
        if group.state is GroupState.REMOVED:
            self._removed[group.group_id] = None
            if self._by_name.get(key) == group.group_id:
                del self._by_name[key]
        elif group.name:
            self._by_name[key] = group.group_id
        if group.state is GroupState.REMOVED or not group.homeless:
            self._homeless.discard(group.group_id)
            self._untried.discard(group.group_id)
        elif group.group_id not in self._homeless:
            self._homeless.add(group.group_id)
            if not self._poked:  # what has become free is offered to the older ones first
                self._untried.add(group.group_id)

    def _forget_excess(self) -> list[Action]:
        """What is not given back everywhere yet is kept until it is."""
        settled = [group_id for group_id in self._removed if not self._groups[group_id].placed]
        excess = settled[: max(0, len(self._removed) - self._removed_kept)]
        for group_id in excess:
            del self._removed[group_id], self._groups[group_id]
        return [Forget(group_id) for group_id in excess]


def _forget_place(bundles: Iterable[Bundle]) -> None:
    for bundle in bundles:
        bundle.node_id, bundle.reservation, bundle.committed = b"", b"", False


def _commit(group: PlacementGroup) -> list[Action]:
    places = {(b.node_id, b.reservation): None for b in group.bundles if b.node_id and not b.committed}
    return [Commit(group.group_id, node_id, reservation) for node_id, reservation in places]


def _return(group: PlacementGroup) -> list[Action]:
    reason = f"placement group {group.group_id.hex()} was removed: {group.removal_reason}"
    return [Return(group.group_id, node_id, reason) for node_id in sorted(set(group.placed.values()))]
