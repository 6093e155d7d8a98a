"""The life of placement groups, and which of them is placed next."""

from __future__ import annotations

import copy

import pytest

from shoal_common.errors import AlreadyExists
from shoal_common.placement.resources import ResourceSet
from shoal_gcs.groups.bundle_planner import Need, PlacementStrategy
from shoal_gcs.groups.messages import group_info, group_of_row
from shoal_gcs.groups.table import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    Action,
    Bundle,
    Commit,
    Forget,
    GroupState,
    PlacementGroup,
    PlacementGroupTable,
    Removed,
    Return,
    Save,
)

JOB, OTHER_JOB, ACTOR = b"job1", b"job2", b"actor"
A, B, C = b"node-a", b"node-b", b"node-c"
G, H = b"g" * 16, b"h" * 16


def group(group_id: bytes = G, bundles: int = 2, job_id: bytes = JOB, **spec: object) -> PlacementGroup:
    need = Need(ResourceSet.of({"CPU": 1}))
    made = PlacementGroup(group_id, job_id, b"driver", PlacementStrategy.PACK, [Bundle(need) for _ in range(bundles)])
    for name, value in spec.items():
        setattr(made, name, value)
    return made


class Groups:
    """A table, and what the tests do with it again and again."""

    def __init__(self, removed_kept: int = 100) -> None:
        self.table = PlacementGroupTable(removed_kept=removed_kept)

    def create(self, group_id: bytes = G, **spec: object) -> list[Action]:
        return self.table.create(group(group_id, **spec))  # type: ignore[arg-type]

    def prepare(self, places: dict[int, bytes], reservation: bytes = b"r", now: float = 0.0) -> list[Action]:
        """Place the group whose turn it is."""
        due = self.table.due(now)
        assert due is not None
        return self.table.prepared(due.group_id, reservation, places, now)

    def up(self, group_id: bytes = G, places: dict[int, bytes] | None = None, **spec: object) -> None:
        places = places or {0: A, 1: B}
        self.create(group_id, **spec)
        for action in self.prepare(places):
            if isinstance(action, Commit):
                self.table.committed(action.group_id, action.node_id, action.reservation)
        assert self.state(group_id) is GroupState.CREATED

    def state(self, group_id: bytes = G) -> GroupState:
        return self.table[group_id].state


@pytest.fixture
def groups() -> Groups:
    return Groups()


def test_a_group_is_created_when_all_its_raylets_have_committed(groups: Groups) -> None:
    assert groups.create() == [Save(G)]
    assert groups.state() is GroupState.PENDING
    assert groups.prepare({0: A, 1: B}) == [Save(G), Commit(G, A, b"r"), Commit(G, B, b"r")]
    assert groups.state() is GroupState.PREPARED
    assert groups.table.committed(G, A, b"r") == []
    assert groups.table.committed(G, B, b"r") == [Save(G)]
    assert groups.state() is GroupState.CREATED
    assert groups.table.due(0.0) is None


def test_a_repeated_creation_asks_for_nothing_and_a_taken_name_is_refused(groups: Groups) -> None:
    groups.create(name="n", namespace="x")
    assert groups.create(name="n", namespace="x") == []
    with pytest.raises(AlreadyExists, match="'n'"):
        groups.create(H, name="n", namespace="x")
    groups.create(H, name="n", namespace="y")
    groups.table.remove(G, "why")
    groups.create(b"i" * 16, name="n", namespace="x")


def test_one_group_is_placed_at_a_time_in_the_order_of_their_creation(groups: Groups) -> None:
    groups.create(G)
    groups.create(H)
    first = groups.table.due(0.0)
    assert first is not None and first.group_id == G
    assert groups.table.due(0.0) is None
    groups.table.no_room(G, 0.0)
    second = groups.table.due(0.0)
    assert second is not None and second.group_id == H, "one without room holds nobody up"


def test_a_group_without_room_is_tried_again_later_and_sooner_when_room_becomes_free(groups: Groups) -> None:
    groups.create()
    pauses = []
    now = 0.0
    for _ in range(8):
        assert groups.table.due(now) is not None
        groups.table.no_room(G, now)
        deadline = groups.table.next_deadline()
        assert deadline is not None and groups.table.due(deadline - 0.001) is None
        pauses.append(deadline - now)
        now = deadline
    assert pauses[0] == pytest.approx(FIRST_PAUSE_S)
    assert pauses[-1] == pytest.approx(LAST_PAUSE_S)
    assert groups.table.due(now) is not None
    groups.table.no_room(G, now)
    groups.table.poke(now + FIRST_PAUSE_S)
    assert groups.table.due(now + FIRST_PAUSE_S) is not None


def test_free_room_is_offered_in_the_order_of_creation(groups: Groups) -> None:
    """Also when it becomes free in small pieces, and new groups come meanwhile."""

    def one_round(now: float) -> list[bytes]:
        turns = []
        while (group := groups.table.due(now)) is not None:
            turns.append(group.group_id)
            groups.table.no_room(group.group_id, now)
        return turns

    groups.create(H)
    assert one_round(0.0) == [H]
    groups.table.poke(0.0)
    assert one_round(0.0) == [H]
    groups.create(G)
    assert one_round(0.0) == [G], "the others have had their turn"
    groups.table.poke(0.01)
    groups.create(b"i" * 16)
    assert one_round(0.01) == [], "it does not overtake them"
    assert groups.table.next_deadline() == FIRST_PAUSE_S
    assert one_round(FIRST_PAUSE_S) == [H, G, b"i" * 16]


def test_the_last_is_tried_too_when_room_becomes_free_all_the_time(groups: Groups) -> None:
    names = [bytes([number]) * 16 for number in range(5)]
    for name in names:
        groups.create(name)
    tried = []
    for step in range(10):
        now = step * FIRST_PAUSE_S
        groups.table.poke(now)
        group = groups.table.due(now)
        assert group is not None
        tried.append(group.group_id)
        groups.table.no_room(group.group_id, now)
    assert tried == names * 2


def test_the_round_goes_on_when_one_has_found_its_place(groups: Groups) -> None:
    groups.create(G)
    groups.create(H)
    assert groups.table.due(0.0) is groups.table[G]
    groups.table.no_room(G, 0.0)
    assert groups.table.due(0.0) is groups.table[H]
    groups.table.prepared(H, b"r", {0: A, 1: A}, 0.0)
    assert groups.table.next_deadline() == FIRST_PAUSE_S
    assert groups.table.due(FIRST_PAUSE_S) is groups.table[G]


def test_the_bundles_of_a_dead_node_move_and_the_others_stay(groups: Groups) -> None:
    groups.up(places={0: A, 1: B})
    assert groups.table.node_died(B) == [Save(G)]
    assert groups.state() is GroupState.RESCHEDULING
    assert groups.table[G].placed == {0: A}
    assert groups.prepare({1: C}, b"s", 1.0) == [Save(G), Commit(G, C, b"s")]
    assert groups.table.committed(G, C, b"s") == [Save(G)]
    assert groups.state() is GroupState.CREATED
    assert groups.table[G].placed == {0: A, 1: C}


def test_a_group_that_lost_bundles_goes_first(groups: Groups) -> None:
    groups.up(H, places={0: A, 1: B})
    groups.create(b"a" * 16)
    groups.table.node_died(A)
    due = groups.table.due(0.0)
    assert due is not None and due.group_id == H


def test_a_node_that_dies_before_its_commit_loses_its_bundles_only(groups: Groups) -> None:
    groups.create()
    groups.prepare({0: A, 1: B})
    groups.table.node_died(A)
    assert groups.table.committed(G, B, b"r") == []
    assert groups.prepare({0: C}, b"s") == [Save(G), Commit(G, C, b"s")]
    assert groups.table.committed(G, C, b"s") == [Save(G)]
    assert groups.state() is GroupState.CREATED


def test_a_node_that_dies_while_others_are_prepared_is_looked_for_next(groups: Groups) -> None:
    groups.up(places={0: A, 1: B})
    groups.table.node_died(B)
    assert groups.table.due(0.0) is not None
    groups.table.node_died(A)
    groups.table.prepared(G, b"s", {1: C}, 0.0)
    assert groups.table[G].placed == {1: C}
    groups.table.committed(G, C, b"s")
    assert groups.state() is GroupState.RESCHEDULING
    assert groups.prepare({0: C}, b"t") == [Save(G), Commit(G, C, b"t")]


def test_what_a_raylet_has_given_up_is_placed_again(groups: Groups) -> None:
    groups.create()
    groups.prepare({0: A, 1: B})
    groups.table.committed(G, A, b"r")
    assert groups.table.lost(G, B, b"r") == [Save(G)]
    assert groups.table.lost(G, B, b"r") == [], "a late answer changes nothing"
    assert groups.prepare({1: B}, b"s") == [Save(G), Commit(G, B, b"s")]
    assert groups.table.lost(G, B, b"r") == []
    assert groups.table.committed(G, B, b"s") == [Save(G)]
    assert groups.state() is GroupState.CREATED


def test_removal_takes_the_bundles_back_and_is_remembered_until_they_are(groups: Groups) -> None:
    groups.up(places={0: A, 1: B})
    save, removed, *returns = groups.table.remove(G, "why")
    assert (save, removed) == (Save(G), Removed(G))
    assert [(action.node_id, "why" in action.reason) for action in returns if isinstance(action, Return)] == [
        (A, True),
        (B, True),
    ]
    assert groups.table.remove(G, "again") == []
    assert groups.table.returned(G, A) == [Save(G)]
    assert groups.table[G].placed == {1: B}
    assert groups.table.node_died(B) == [Save(G)], "what a dead node held needs not be given back"
    assert groups.table[G].placed == {}
    assert groups.state() is GroupState.REMOVED


def test_what_is_prepared_for_a_group_removed_meanwhile_is_not_taken(groups: Groups) -> None:
    groups.create()
    assert groups.table.due(0.0) is not None
    groups.table.remove(G, "why")
    assert groups.table.prepared(G, b"r", {0: A, 1: B}, 0.0) == []
    groups.create(H)
    assert groups.table.due(0.0) is not None, "the next one is not held up"


def test_groups_end_with_their_job_or_their_detached_actor(groups: Groups) -> None:
    groups.create(G)
    groups.create(H, detached=True)
    groups.create(b"i" * 16, actor_id=ACTOR)
    groups.create(b"j" * 16, job_id=OTHER_JOB)
    groups.table.job_finished(JOB)
    assert [living.group_id[:1] for living in groups.table.living()] == [b"h", b"i", b"j"]
    groups.table.actor_died(ACTOR)
    assert [living.group_id[:1] for living in groups.table.living()] == [b"h", b"j"]


def test_removed_groups_are_forgotten_when_there_are_many(groups: Groups) -> None:
    groups = Groups(removed_kept=1)
    groups.up(G, places={0: A, 1: A})
    groups.create(H)
    assert Forget(G) not in groups.table.remove(G, "why")
    assert Forget(H) in groups.table.remove(H, "why"), "G is not given back yet"
    assert G in groups.table and H not in groups.table


# --- a GCS that takes over ---


def reloaded(groups: Groups, living: tuple[bytes, ...] = (A, B, C)) -> tuple[Groups, list[Action]]:
    """What the next GCS makes of the rows, and what it does first."""
    rows = [group_info(copy.deepcopy(groups.table[i])) for i in (G, H) if i in groups.table]
    successor = Groups()
    return successor, successor.table.load(map(group_of_row, rows), living)


def test_the_next_gcs_places_what_was_pending(groups: Groups) -> None:
    groups.create()
    groups.table.due(0.0)
    successor, actions = reloaded(groups)
    assert actions == []
    assert successor.prepare({0: A, 1: B}, b"s", 10.0) == [Save(G), Commit(G, A, b"s"), Commit(G, B, b"s")]


def test_the_next_gcs_commits_what_was_prepared(groups: Groups) -> None:
    groups.create()
    groups.prepare({0: A, 1: B})
    groups.table.committed(G, A, b"r")
    successor, actions = reloaded(groups)
    assert actions == [Commit(G, A, b"r"), Commit(G, B, b"r")]
    successor.table.committed(G, A, b"r")
    successor.table.lost(G, B, b"r")
    assert successor.state() is GroupState.RESCHEDULING
    assert successor.table.due(10.0) is not None


def test_the_next_gcs_leaves_what_is_created(groups: Groups) -> None:
    groups.up()
    successor, actions = reloaded(groups)
    assert successor.state() is GroupState.CREATED
    assert actions == [Commit(G, A, b"r"), Commit(G, B, b"r")], "whether it is still there"
    assert successor.table.committed(G, A, b"r") == successor.table.committed(G, B, b"r") == []
    assert successor.table.due(10.0) is None


def test_the_next_gcs_moves_what_was_on_a_node_that_died_meanwhile(groups: Groups) -> None:
    groups.up(places={0: A, 1: B})
    successor, actions = reloaded(groups, living=(A, C))
    assert actions == [Save(G), Commit(G, A, b"r")]
    assert successor.state() is GroupState.RESCHEDULING
    successor.table.committed(G, A, b"r")
    assert successor.prepare({1: C}, b"s", 10.0) == [Save(G), Commit(G, C, b"s")]
    assert successor.table.committed(G, C, b"s") == [Save(G)]


def test_the_next_gcs_gives_back_what_was_removed(groups: Groups) -> None:
    groups.up(G, places={0: A, 1: B})
    groups.up(H, places={0: A, 1: A})
    groups.table.remove(G, "why")
    groups.table.returned(G, A)
    groups.table.remove(H, "why")
    _, actions = reloaded(groups)
    assert [(a.group_id, a.node_id) for a in actions if isinstance(a, Return)] == [(G, B), (H, A)]


def test_names_and_the_order_of_creation_are_known_to_the_next_gcs(groups: Groups) -> None:
    groups.create(H, name="n", namespace="x")
    groups.create(G)
    successor, _ = reloaded(groups)
    named = successor.table.named("x", "n")
    assert named is not None and named.group_id == H
    due = successor.table.due(10.0)
    assert due is not None and due.group_id == H
