"""For which waiting placement group room is set aside, and where. Pure.

Without that, a group that needs much of a node waits as long as small tasks keep it busy: what becomes free is taken
before enough has come together. So one group at a time has its *turn*: it is planned with what is free and what tasks
hold, which end some day, and the nodes of that plan let nobody else have of it what becomes free. There is one turn in
the cluster, so two groups never hold halves of what both need.

Nobody knows when a task ends, so a turn has its time. After one in vain a group rests for as long as that took, while
others have their turn, or tasks run; its next turn is twice as long. So what never ends keeps a node idle for half of
the time at most, and the shortest turns do for tasks that are short. Who had the fewest turns is next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal_common.placement.resources import ResourceSet
from shoal_common.service.story import Story, noted
from shoal_common.states import GroupState
from shoal_gcs.groups.bundle_planner import Candidate, plan
from shoal_gcs.groups.table import PlacementGroup

#: Who has found no room for so long wants a turn, in seconds.
PATIENCE_S = 0.5
#: Bounds of a turn, in seconds.
FIRST_TURN_S = 10.0
LAST_TURN_S = 600.0
#: A raylet is told again after so long, and forgets what it was told after so long, in seconds.
RENEW_S = 1.0
KEPT_S = 5.0


@dataclass(frozen=True, slots=True)
class SetAside:
    """Tell the raylet; nothing = no longer."""

    node_id: bytes
    group_id: bytes
    resources: ResourceSet


@dataclass(slots=True)
class _Waiting:
    since: float
    turns: int = 0
    rests_until: float = 0.0
    #: There was a plan for it when it was last looked at.
    possible: bool = True

    @property
    def turn_s(self) -> float:
        return min(FIRST_TURN_S * 2.0**self.turns, LAST_TURN_S)

    def wants(self, now: float) -> bool:
        return self.possible and now >= max(self.since + PATIENCE_S, self.rests_until)


class Turns:
    def __init__(self) -> None:
        self._story = Story("whose turn it is")
        self._waiting: dict[bytes, _Waiting] = {}
        #: Whose turn it is; empty = nobody's.
        self._holder = b""
        self._ends_at = 0.0
        #: Of the holder: the node of each bundle that has none, and what those need of each node.
        self._places: dict[int, bytes] = {}
        self._needs: dict[bytes, ResourceSet] = {}
        self._told_at = 0.0

    def left_for(self, group: PlacementGroup, node_id: bytes, available: ResourceSet) -> ResourceSet:
        """What this group may take of what is free on a node. Who has lost a bundle comes before all others."""
        if group.group_id == self._holder or group.state is GroupState.RESCHEDULING or node_id not in self._needs:
            return available
        return available - self._needs[node_id]

    def places(self, group_id: bytes, available: Mapping[bytes, ResourceSet]) -> dict[int, bytes]:
        """Where its bundles go when all that was to be set aside is free; else nothing."""
        if group_id != self._holder:
            return {}
        filled = all(need.fits_in(available.get(node_id, ResourceSet())) for node_id, need in self._needs.items())
        return dict(self._places) if filled else {}

    @noted
    def no_room(self, group: PlacementGroup, nodes: Sequence[Candidate], now: float) -> list[SetAside]:
        """It was tried in vain. ``nodes``: with what is free there, or held by tasks."""
        waiting = self._waiting.setdefault(group.group_id, _Waiting(now))
        if self._holder == group.group_id and now >= self._ends_at:
            waiting.rests_until = now + waiting.turn_s
            waiting.turns += 1
            return self._release()
        if self._holder not in (b"", group.group_id) or now < waiting.rests_until:
            return []
        coming = {node.node_id: node.room for node in nodes}
        keeps = self._holder and set(self._places) == set(group.homeless)
        if keeps and all(need.fits_in(coming.get(node_id, ResourceSet())) for node_id, need in self._needs.items()):
            return self._tell(now)
        places = plan(group.strategy, group.homeless, group.placed, nodes) or {}
        waiting.possible = bool(places)
        if not places:
            return self._release() if self._holder else []
        if not self._holder:
            if not waiting.wants(now) or waiting.turns > min(w.turns for w in self._waiting.values() if w.wants(now)):
                return []
            self._ends_at = now + waiting.turn_s
        actions = self._release()
        self._holder, self._places, self._told_at = group.group_id, places, -RENEW_S
        for index, node_id in places.items():
            need = group.bundles[index].need.resources
            self._needs[node_id] = self._needs.get(node_id, ResourceSet()) + need
        return [each for each in actions if each.node_id not in self._needs] + self._tell(now)

    @noted
    def ended(self, group_id: bytes) -> list[SetAside]:
        """It has found its room, or was removed."""
        self._waiting.pop(group_id, None)
        return self._release() if self._holder == group_id else []

    def validate(self) -> None:
        """For tests: what is always true of it."""
        assert not self._holder or self._holder in self._waiting, "whose turn it is waits"
        assert bool(self._holder) == bool(self._places) == bool(self._needs)
        assert set(self._places.values()) == self._needs.keys()

    def _tell(self, now: float) -> list[SetAside]:
        if now - self._told_at < RENEW_S:
            return []
        self._told_at = now
        return [SetAside(node_id, self._holder, need) for node_id, need in self._needs.items()]

    def _release(self) -> list[SetAside]:
        actions = [SetAside(node_id, self._holder, ResourceSet()) for node_id in self._needs]
        self._holder, self._places, self._needs = b"", {}, {}
        return actions
