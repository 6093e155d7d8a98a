"""How actors and placement groups stand, in words."""

from __future__ import annotations

from shoal_common.placement.resources import GRAINS
from shoal_common.standing import ActorStanding, Room, group_told
from shoal_common.states import ActorState, GroupState, NodeState


def test_an_actor_that_seeks_a_node_is_told_of_those_that_drain() -> None:
    waits = ActorStanding(ActorState.PENDING_CREATION, 0, False, "", "")
    assert waits.told() == "pending creation, no node has room for it yet, or its process starts"
    nodes = [NodeState.ALIVE, NodeState.DRAINING, NodeState.DEAD]
    assert waits.told(nodes).endswith("; 1 of 2 nodes drain, and take nothing new")
    placed = ActorStanding(ActorState.PENDING_CREATION, 12, True, "", "")
    assert placed.told(nodes) == "pending creation, its constructor runs (pid 12)"


def test_actors_tell_how_they_ended() -> None:
    assert ActorStanding(ActorState.DEAD, 0, False, "", "killed").told() == "dead: killed"
    restarts = ActorStanding(ActorState.RESTARTING, 0, False, "signal 9", "")
    assert restarts.told() == "restarting: its last process ended (signal 9)"


def test_a_group_tells_what_its_bundles_lack() -> None:
    rooms = [Room({"CPU": 2 * GRAINS}, {"CPU": 0}), Room({"CPU": 4 * GRAINS}, {"CPU": 1 * GRAINS})]
    one, three, eight, gpu = {"CPU": GRAINS}, {"CPU": 3 * GRAINS}, {"CPU": 8 * GRAINS}, {"GPU": GRAINS // 2}
    text = group_told(GroupState.RESCHEDULING, False, [None, one, three, three, eight, gpu], rooms)
    assert text[0] == "rescheduling: 1 of 6 bundles have a node"
    assert text[1].startswith("1 needs 1 CPU: 1 of 2 nodes have room for one now")
    assert text[2] == "2 need 3 CPU each: 1 of 2 nodes are large enough, and none has so much free now"
    assert text[3].startswith("1 needs 8 CPU: no node has so much") and "most that one has is 4 CPU" in text[3]
    assert "0 GPU" in text[4]
    assert group_told(GroupState.PENDING, False, [one], []) == ["pending: 0 of 1 bundles have a node"]
    assert "max_resources" in group_told(GroupState.PENDING, True, [one], rooms)[1]
    assert group_told(GroupState.CREATED, False, [None], rooms) == ["created"]
    assert group_told(GroupState.REMOVED, False, [one], rooms) == ["removed"]
