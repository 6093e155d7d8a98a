"""How actors and placement groups stand, and why they wait, in words. Pure: what the GCS knows goes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shoal_common.placement.resources import GRAINS
from shoal_common.states import ActorState, GroupState, NodeState

#: States of a group that wants more nodes for its bundles.
GROUP_WAITS = (GroupState.PENDING, GroupState.PREPARED, GroupState.RESCHEDULING)

#: To be said of what waits for that.
QUOTA_USED = "its job may not hold as much besides what it holds now (JobConfig(max_resources=))"


@dataclass(frozen=True, slots=True)
class ActorStanding:
    state: int
    #: Of its process; 0 = it has none.
    pid: int
    #: A node has been found for it.
    placed: bool
    #: How its last process ended; empty = none has.
    exit_detail: str
    #: Of a dead one.
    death_reason: str
    #: It has no process, because of its job's quota.
    waits_for_quota: bool = False

    @property
    def seeks_a_node(self) -> bool:
        waits = self.state in (ActorState.PENDING_CREATION, ActorState.RESTARTING)
        return waits and not self.pid and not self.placed

    def told(self, nodes: Iterable[int] = ()) -> str:
        """``nodes``: states of the cluster's, which are looked at where it waits for one."""
        why = f": its last process ended ({self.exit_detail})" if self.exit_detail else ""
        if self.waits_for_quota:
            return f"{ActorState(self.state).name.lower().replace('_', ' ')}{why}: {QUOTA_USED}"
        if self.state == ActorState.PENDING_CREATION:
            where = (
                f", its constructor runs (pid {self.pid})"
                if self.pid
                else ", no node has room for it yet, or its process starts"
            )
            return f"pending creation{where}{draining(nodes) if self.seeks_a_node else ''}"
        if self.state == ActorState.DEAD:
            return f"dead: {self.death_reason}"
        waits = draining(nodes) if self.seeks_a_node else ""
        return f"{ActorState(self.state).name.lower().replace('_', ' ')}{why}{waits}"


def draining(nodes: Iterable[int]) -> str:
    """To be said of what waits for a place; empty = every node takes something new."""
    living = [state for state in nodes if state != NodeState.DEAD]
    count = sum(state == NodeState.DRAINING for state in living)
    return f"; {count} of {len(living)} nodes drain, and take nothing new" if count else ""


@dataclass(frozen=True, slots=True)
class Room:
    """Of a node that takes something new, in grains by resource."""

    total: Mapping[str, int]
    free: Mapping[str, int]


def group_told(
    state: int, waits_for_quota: bool, bundles: Sequence[Mapping[str, int] | None], rooms: Sequence[Room]
) -> list[str]:
    """As in "pending: 0 of 2 bundles have a node", and what those lack that have none, a line for each kind.

    ``bundles``: what each asks for, in grains; None = it has a node. ``rooms``: of all nodes that take something new;
    none = not known. Each bundle is looked at alone: which fit together only the GCS works out.
    """
    name = GroupState(state).name.lower()
    if state not in GROUP_WAITS:
        return [name]
    missing = [bundle for bundle in bundles if bundle is not None]
    placed = f"{name}: {len(bundles) - len(missing)} of {len(bundles)} bundles have a node"
    if waits_for_quota:
        return [placed, QUOTA_USED]
    return [placed, *(_lacking_told(missing, rooms) if rooms else ())]


def _lacking_told(missing: Sequence[Mapping[str, int]], rooms: Sequence[Room]) -> list[str]:
    """Why these bundles have no node, a line for each kind."""
    lines = []
    kinds: dict[tuple[tuple[str, int], ...], int] = {}
    for bundle in missing:
        kind = tuple(sorted(bundle.items()))
        kinds[kind] = kinds.get(kind, 0) + 1
    for kind, count in kinds.items():
        asked = ", ".join(f"{grains / GRAINS:g} {resource}" for resource, grains in kind)
        who = f"{count} need {asked} each" if count > 1 else f"1 needs {asked}"
        lines.append(f"{who}: {_fits(kind, rooms)}")
    return lines


def _fits(kind: Iterable[tuple[str, int]], rooms: Sequence[Room]) -> str:
    kind = list(kind)
    large = [room for room in rooms if all(room.total.get(name, 0) >= grains for name, grains in kind)]
    free = [room for room in large if all(room.free.get(name, 0) >= grains for name, grains in kind)]
    if not large:
        most = ", ".join(
            f"{max((room.total.get(name, 0) for room in rooms), default=0) / GRAINS:g} {name}" for name, _ in kind
        )
        return f"no node has so much, even when nothing runs there (the most that one has is {most})"
    if not free:
        return f"{len(large)} of {len(rooms)} nodes are large enough, and none has so much free now"
    return f"{len(free)} of {len(rooms)} nodes have room for one now, not all bundles of the group as its strategy asks"
