"""For which waiting group room is set aside, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field

from shoal_common.placement.resources import ResourceSet
from shoal_gcs.groups.bundle_planner import Candidate, Need, PlacementStrategy
from shoal_gcs.groups.table import Bundle, GroupState, PlacementGroup
from shoal_gcs.groups.turns import FIRST_TURN_S, PATIENCE_S, RENEW_S, SetAside, Turns

A, B = b"node-a", b"node-b"


def cpus(amount: float) -> ResourceSet:
    return ResourceSet.of({"CPU": amount})


def group(name: bytes, *amounts: float, strategy: PlacementStrategy = PlacementStrategy.PACK) -> PlacementGroup:
    return PlacementGroup(name, b"job", b"driver", strategy, [Bundle(Need(cpus(amount))) for amount in amounts])


@dataclass
class Cluster:
    """Two nodes, and what of each is free or held by tasks; groups are tried in vain, one after the other."""

    coming: dict[bytes, float] = field(default_factory=lambda: {A: 4, B: 2})
    turns: Turns = field(default_factory=Turns)
    #: What each node was told last, and by whom.
    told: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)

    def try_all(self, now: float, *groups: PlacementGroup) -> list[SetAside]:
        actions = []
        for each in groups:
            nodes = [Candidate(node_id, cpus(amount), {}) for node_id, amount in self.coming.items()]
            actions += self.turns.no_room(each, nodes, now)
        for action in actions:
            self.told[action.node_id] = action.group_id, action.resources["CPU"] / 10_000
        return actions

    def holder(self) -> bytes:
        """For whom something is set aside."""
        holders = {name for name, amount in self.told.values() if amount}
        assert len(holders) <= 1, "one turn in the cluster"
        return next(iter(holders), b"")


def test_who_waits_for_a_while_has_set_aside_what_it_needs() -> None:
    cluster, large = Cluster(), group(b"g", 3, 1)
    assert cluster.try_all(0, large) == []
    assert cluster.try_all(PATIENCE_S, large) == [SetAside(A, b"g", cpus(4))]
    assert cluster.try_all(PATIENCE_S + RENEW_S / 2, large) == [], "it was told"
    assert cluster.try_all(PATIENCE_S + RENEW_S, large) == [SetAside(A, b"g", cpus(4))], "it is told again"
    assert cluster.turns.ended(b"g") == [SetAside(A, b"g", ResourceSet())]


def test_nothing_is_set_aside_for_what_would_not_fit_if_all_tasks_ended() -> None:
    cluster = Cluster()
    assert cluster.try_all(PATIENCE_S, group(b"g", 5)) == cluster.try_all(9, group(b"g", 5)) == []


def test_others_get_nothing_of_it_but_who_has_lost_a_bundle() -> None:
    cluster, large, small = Cluster(), group(b"g", 3), group(b"h", 1)
    cluster.try_all(0, large)
    cluster.try_all(PATIENCE_S, large)
    assert cluster.turns.left_for(small, A, cpus(3)) == ResourceSet()
    assert cluster.turns.left_for(small, B, cpus(1)) == cpus(1)
    assert cluster.turns.left_for(large, A, cpus(3)) == cpus(3)
    small.state = GroupState.RESCHEDULING
    assert cluster.turns.left_for(small, A, cpus(3)) == cpus(3)


def test_it_goes_where_it_was_set_aside_when_all_of_it_is_free() -> None:
    cluster, large = Cluster(), group(b"g", 4, 2)
    cluster.try_all(0, large)
    cluster.try_all(PATIENCE_S, large)
    assert cluster.turns.places(b"g", {A: cpus(4), B: cpus(1)}) == {}
    assert cluster.turns.places(b"h", {A: cpus(4), B: cpus(2)}) == {}
    assert cluster.turns.places(b"g", {A: cpus(4), B: cpus(2)}) == {0: A, 1: B}


def test_the_plan_stays_while_it_can_come_true_and_changes_with_the_nodes() -> None:
    cluster, large = Cluster(), group(b"g", 2)
    cluster.try_all(0, large)
    cluster.try_all(PATIENCE_S, large)
    assert cluster.told == {B: (b"g", 2)}, "the node that it fills best"
    cluster.coming[A] = 2
    cluster.try_all(PATIENCE_S + RENEW_S, large)
    assert cluster.told == {B: (b"g", 2)}
    del cluster.coming[B]
    cluster.try_all(PATIENCE_S + RENEW_S + 0.1, large)
    assert cluster.told == {A: (b"g", 2), B: (b"g", 0)}
    cluster.coming[A] = 1
    cluster.try_all(9, large)
    assert cluster.holder() == b""


def test_two_that_each_need_all_take_turns_that_grow_and_tasks_have_theirs() -> None:
    cluster = Cluster()
    groups = group(b"g", 4, 2), group(b"h", 4, 2), group(b"tiny", 1)
    history = []
    for tenths in range(1_300):
        cluster.try_all(tenths / 10, *groups[:2])
        history.append(cluster.holder())
    first, second = history.index(b"g") / 10, history.index(b"h") / 10
    assert first == PATIENCE_S and second - first >= FIRST_TURN_S
    assert abs(history.count(b"g") - history.count(b"h")) <= 4 * FIRST_TURN_S * 10
    # A newcomer has its first turn before their next.
    while cluster.holder():
        tenths += 1
        cluster.try_all(tenths / 10, *groups[:2])
    cluster.try_all(tenths / 10 - PATIENCE_S, groups[2])
    cluster.try_all(tenths / 10 + 0.1, groups[2], *groups[:2])
    assert cluster.holder() == b"tiny"


def test_what_never_ends_keeps_the_nodes_idle_for_half_of_the_time_at_most() -> None:
    cluster, large = Cluster(), group(b"g", 4, 2)
    held = 0
    for second in range(10_000):
        cluster.try_all(second, large)
        held += bool(cluster.holder())
    assert 0.3 < held / 10_000 < 0.6


def test_the_turn_of_one_that_is_removed_is_the_next_ones() -> None:
    cluster = Cluster()
    first, second = group(b"g", 4), group(b"h", 4)
    cluster.try_all(0, first, second)
    cluster.try_all(PATIENCE_S, first, second)
    assert cluster.holder() == b"g"
    cluster.told.update({each.node_id: (b"", 0) for each in cluster.turns.ended(b"g")})
    cluster.try_all(PATIENCE_S + 0.1, second)
    assert cluster.holder() == b"h"
