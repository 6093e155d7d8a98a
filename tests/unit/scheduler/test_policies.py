from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_common.errors import InvalidRequest
from shoal_common.ids import NodeID
from shoal_common.placement.labels import labels_of_node
from shoal_common.placement.resources import ResourceSet
from shoal_scheduler.cluster_view import IN_FLIGHT_S, ClusterView, NodeReport
from shoal_scheduler.policies import Answer, Placer, Request
from shoal_scheduler.policies.ranking import Kind, Ranking

A, B, C = (NodeID(letter * 16) for letter in (b"a", b"b", b"c"))


def cpus(amount: float, **others: float) -> ResourceSet:
    return ResourceSet.of({"CPU": amount, **others})


class Cluster:
    """Nodes with 4 CPUs unless said otherwise, heard just now."""

    def __init__(self, *node_ids: NodeID) -> None:
        self.view = ClusterView(silent_after_s=5.0)
        self.placer = Placer(self.view, random.Random(0))
        self.now = 0.0
        self._sent = 0
        for node_id in node_ids:
            self.hear(node_id)

    def hear(
        self,
        node_id: NodeID,
        *,
        total: ResourceSet | None = None,
        available: ResourceSet | None = None,
        queued: int = 0,
        mean_task_s: float = 1.0,
        **labels: str,
    ) -> None:
        self._sent += 1
        total = total or cpus(4)
        free = total if available is None else available
        report = NodeReport(
            node_id, 1, self._sent, total, free, queued, mean_task_s, "host:1", labels_of_node(node_id, labels)
        )
        self.view.on_report(report, self.now)

    def ask(
        self,
        resources: ResourceSet | None = None,
        strategy: str = "",
        asking: NodeID | None = None,
        arguments: dict[NodeID, int] | None = None,
        count: int = 1,
    ) -> Answer:
        return self.placer.place(Request(resources or cpus(1), strategy, asking, arguments or {}, count), self.now)

    def placed(self, count: int, **options: Any) -> dict[NodeID, int]:
        """Where ``count`` asked for at once go."""
        answer = self.ask(count=count, **options)
        assert not answer.infeasible, answer.reason
        return {node.node_id: n for node, n in answer.placements}

    def chosen(self, resources: ResourceSet | None = None, **options: Any) -> NodeID | None:
        """Where a single one goes."""
        placed = self.placed(1, resources=resources, **options)
        assert sum(placed.values()) <= 1
        return next(iter(placed), None)


# --- DEFAULT ---------------------------------------------------------------------------------------


def test_nodes_are_packed_to_half_one_after_the_other_and_then_evenly() -> None:
    cluster = Cluster(A, B)
    assert [cluster.chosen() for _ in range(4)] == [A, A, B, B]
    assert Counter(cluster.chosen() for _ in range(4)) == {A: 2, B: 2}


def test_above_half_it_is_random_among_the_least_utilized_fifth() -> None:
    nodes = [NodeID(bytes([n]) * 16) for n in range(10)]
    picked = set()
    cluster = Cluster()
    for _ in range(40):
        cluster.now += 1  # the placement before is forgotten
        for n, node_id in enumerate(nodes):
            cluster.hear(node_id, available=cpus(1.9 if n in (3, 7) else 1.5))
        picked.add(cluster.chosen())
    assert picked == {nodes[3], nodes[7]}


def test_the_node_that_holds_the_arguments_is_preferred() -> None:
    cluster = Cluster(A, B)
    assert cluster.chosen(arguments={B: 500_000_000}) == B


def test_arguments_too_small_to_matter_do_not_decide() -> None:
    cluster = Cluster(A, B)
    assert cluster.chosen(arguments={B: 1000}) == A


def test_a_node_with_room_is_preferred_to_one_with_the_arguments_and_a_queue() -> None:
    cluster = Cluster(A)
    cluster.hear(B, available=cpus(0), queued=10)
    assert cluster.chosen(arguments={B: 500_000_000}) == A


def test_the_overloaded_asker_is_left_out() -> None:
    cluster = Cluster(A, B)
    assert cluster.chosen(asking=A) == B


def test_a_node_that_is_too_small_is_never_chosen() -> None:
    cluster = Cluster(A)
    cluster.hear(B, total=cpus(64))
    assert cluster.chosen(cpus(8)) == B


def test_gpu_work_goes_to_the_node_with_gpus() -> None:
    cluster = Cluster(A)
    cluster.hear(B, total=cpus(4, GPU=2))
    assert cluster.chosen(cpus(1, GPU=0.5)) == B


def test_a_burst_between_heartbeats_does_not_overfill_a_node() -> None:
    cluster = Cluster(A, B, C)
    assert Counter(cluster.chosen() for _ in range(12)) == {A: 4, B: 4, C: 4}
    assert [cluster.chosen() for _ in range(3)] == [A, B, C]


# --- all nodes busy --------------------------------------------------------------------------------


def busy(a_queue: int, b_queue: int) -> Cluster:
    cluster = Cluster()
    cluster.hear(A, available=cpus(0), queued=a_queue)
    cluster.hear(B, available=cpus(0), queued=b_queue)
    return cluster


def test_a_request_moves_to_a_much_shorter_queue() -> None:
    assert busy(10, 2).chosen(asking=A) == B


def test_it_stays_where_the_gain_would_be_small() -> None:
    assert busy(2, 2).chosen(asking=A) is None
    assert busy(2, 2).chosen(asking=B) is None


def test_two_busy_nodes_never_hand_a_request_to_and_fro() -> None:
    for a in range(6):
        for b in range(6):
            there = busy(a, b).chosen(asking=A)
            back = busy(a, b).chosen(asking=B)
            assert there is None or back is None


def test_an_actor_is_sent_to_the_shortest_queue() -> None:
    assert busy(10, 9).chosen() == B
    assert busy(10, 9).chosen(strategy="SPREAD") == B


def test_an_asker_that_can_never_hold_it_sends_it_to_queue_elsewhere() -> None:
    cluster = Cluster(A)
    cluster.hear(B, total=cpus(64), available=cpus(0), queued=100)
    assert cluster.chosen(cpus(8), asking=A) == B


def test_moved_requests_lengthen_the_queue_they_join() -> None:
    cluster = busy(7, 0)
    assert [cluster.chosen(asking=A) for _ in range(4)] == [B, B, B, None]


def test_many_requests_of_one_queue_balance_two() -> None:
    assert busy(100, 0).placed(100, asking=A) == {B: 50}


def test_a_bigger_node_takes_more_of_the_queue() -> None:
    cluster = Cluster()
    cluster.hear(A, available=cpus(0), queued=100)
    cluster.hear(B, total=cpus(12), available=cpus(0))
    assert cluster.placed(100, asking=A)[B] == pytest.approx(75, abs=2)


def test_the_queue_that_the_asker_tells_counts_more_than_its_last_heartbeat() -> None:
    assert busy(0, 0).placed(100, asking=A) == {B: 50}


def test_a_place_that_fits_now_is_no_gain_when_the_arguments_take_longer_than_the_queue() -> None:
    cluster = Cluster(B)
    cluster.hear(A, available=cpus(0), queued=8)  # two seconds
    assert cluster.chosen(asking=A, arguments={A: 2_000_000_000}) is None
    assert cluster.chosen(asking=A, arguments={A: 500_000_000}) == B


def test_an_asker_that_was_not_heard_gets_what_fits_now_and_no_foreign_queue() -> None:
    cluster = Cluster(A)
    assert cluster.placed(100, asking=C) == {A: 4}
    assert cluster.placed(100, asking=C) == {}
    # Nor does one whose heartbeats do not arrive.
    cluster = Cluster(C)
    cluster.now = 6.0
    cluster.hear(A)
    assert cluster.placed(100, asking=C) == {A: 4}


def test_a_draining_node_gets_rid_of_its_queue() -> None:
    cluster = Cluster(A)
    cluster.hear(B, available=cpus(0), queued=50)
    cluster.view.on_draining(A, incarnation=1)
    assert cluster.placed(10, asking=A) == {B: 10}


# --- between two heartbeats --------------------------------------------------------------------------------


TEN = [NodeID(bytes([n]) * 16) for n in range(10)]


@pytest.mark.parametrize("strategy", ["", "SPREAD"])
@pytest.mark.parametrize("batch", [1, 8, 1000])
def test_a_thousand_requests_between_two_heartbeats_are_no_herd(strategy: str, batch: int) -> None:
    cluster = Cluster(*TEN[1:])
    cluster.hear(TEN[0], total=cpus(4, GPU=1), available=cpus(4, GPU=1))  # in no way better
    received: Counter[NodeID] = Counter()
    for _ in range(1000 // batch):
        received.update(cluster.placed(batch, strategy=strategy))
    assert received.total() == 1000
    assert set(received.values()) <= {99, 100, 101}


def test_a_thousand_requests_of_one_node_spread_over_ten_and_it_keeps_its_share() -> None:
    cluster = Cluster(*TEN)
    placed = cluster.placed(1000, strategy="SPREAD", asking=TEN[3])
    assert placed == dict.fromkeys(TEN, 100)


def test_a_heartbeat_sent_before_the_placement_arrived_does_not_undo_it() -> None:
    cluster = Cluster(A, B)
    assert cluster.placed(4, asking=C) == {A: 2, B: 2}
    cluster.now = IN_FLIGHT_S / 2
    cluster.hear(A)
    assert cluster.placed(4, asking=C) == {A: 2, B: 2}
    cluster.now = 1.0
    cluster.hear(A)
    assert cluster.placed(8, asking=C) == {A: 4}


def test_one_request_places_only_so_many_and_the_rest_is_asked_for_again() -> None:
    cluster = Cluster(A)
    assert sum(cluster.placed(10**9, strategy="SPREAD").values()) == 1000


@given(st.data())
def test_the_order_is_that_of_sorting_all_nodes(data: st.DataObject) -> None:
    """Whatever happened before, a kind of request asked for long ago is answered as one never asked for."""
    cluster = Cluster()
    amounts = st.integers(0, 4)
    for _ in range(data.draw(st.integers(1, 12))):
        node_id = data.draw(st.sampled_from(TEN[:4]))
        match data.draw(st.sampled_from(["hear", "place", "spread", "drain", "die", "wait"])):
            case "hear":
                cluster.hear(node_id, available=cpus(data.draw(amounts)), queued=data.draw(amounts))
            case "place":
                cluster.ask(cpus(data.draw(amounts)), asking=node_id, count=data.draw(st.integers(1, 5)))
            case "spread":
                cluster.ask(strategy="SPREAD")
            case "drain":
                cluster.view.on_draining(node_id, incarnation=1)
            case "die":
                cluster.view.on_dead(node_id, incarnation=1, now=cluster.now)
            case "wait":
                cluster.now += 3.0
    cluster.view.settle(cluster.now)
    for strategy in ("", "SPREAD"):
        kept = cluster.placer._ranking(Kind(cpus(1), (), bool(strategy)))
        fresh = Ranking(cluster.view, Kind(cpus(1), (), bool(strategy)))
        fresh.refresh()
        assert kept._order == fresh._order
        assert [rank.node_id for rank in kept._order] == sorted(kept._ranks, key=lambda node_id: kept._ranks[node_id])
        assert {rank.node_id for rank in kept._order} == {node.node_id for node in cluster.view.nodes()}


# --- SPREAD ----------------------------------------------------------------------------------------


def test_spread_goes_round() -> None:
    cluster = Cluster(A, B, C)
    assert [cluster.chosen(strategy="SPREAD") for _ in range(6)] == [A, B, C, A, B, C]


def test_spread_goes_round_for_requests_that_need_nothing() -> None:
    cluster = Cluster(A, B)
    nothing = ResourceSet.of({"CPU": 0})
    assert [cluster.chosen(nothing, strategy="SPREAD") for _ in range(4)] == [A, B, A, B]


def test_spread_skips_the_full_and_may_stay_with_the_asker() -> None:
    cluster = Cluster(A, C)
    cluster.hear(B, available=cpus(0))
    assert [cluster.chosen(strategy="SPREAD", asking=A) for _ in range(3)] == [A, C, A]


# --- node affinity ---------------------------------------------------------------------------------


def test_hard_affinity_gets_that_node_even_when_another_is_idle() -> None:
    cluster = Cluster(A)
    cluster.hear(B, available=cpus(0), queued=50)
    assert cluster.chosen(strategy=f"node:{B.hex()}", asking=A) == B


def test_hard_affinity_waits_while_that_node_is_busy() -> None:
    cluster = Cluster(A)
    cluster.hear(B, available=cpus(0))
    for asking in (A, B, None):
        assert cluster.placed(3, strategy=f"node:{B.hex()}", asking=asking) == {B: 3}


def test_hard_affinity_to_a_node_that_is_gone_is_infeasible() -> None:
    choice = Cluster(A).ask(strategy=f"node:{B.hex()}")
    assert choice.infeasible
    assert choice.reason.startswith(f"node {B.hex()}, to which the request is bound, is not in the cluster")


def test_hard_affinity_to_a_node_that_is_too_small_says_what_it_lacks() -> None:
    choice = Cluster(A, B).ask(cpus(6), strategy=f"node:{B.hex()}")
    assert choice.infeasible
    assert choice.reason == f"node {B.hex()}, to which the request is bound, lacks 2 CPU (it has 4)"


def test_soft_affinity_prefers_that_node_and_does_without_it() -> None:
    cluster = Cluster(A, B)
    assert cluster.chosen(strategy=f"node?:{B.hex()}") == B
    assert cluster.chosen(strategy=f"node?:{C.hex()}") == A


@pytest.mark.parametrize("strategy", ["node:xyz", "NODE:00", "PACK", "spread"])
def test_an_unknown_strategy_is_refused(strategy: str) -> None:
    with pytest.raises(InvalidRequest, match=strategy.removeprefix("node:")):
        Cluster(A).ask(strategy=strategy)


def test_affinity_to_a_node_with_the_wrong_labels_is_none() -> None:
    cluster = Cluster()
    cluster.hear(A, zone="a")
    cluster.hear(B, zone="b")
    assert cluster.chosen(strategy=f"node?:{A.hex()};zone=b") == B
    reason = cluster.ask(strategy=f"node:{A.hex()};zone=b").reason
    assert reason.endswith("to which the request is bound, does not meet zone=b (it is 'a')")


# --- labels ----------------------------------------------------------------------------------------


def zones() -> Cluster:
    cluster = Cluster()
    for node_id, zone in ((A, "a"), (B, "b"), (C, "c")):
        cluster.hear(node_id, zone=zone)
    return cluster


def test_only_nodes_with_the_labels_are_chosen() -> None:
    assert zones().placed(20, strategy=";zone=b") == {B: 20}
    assert zones().placed(20, strategy=";zone=!b") == {A: 10, C: 10}
    assert zones().placed(20, strategy="SPREAD;zone=in(b,c)") == {B: 10, C: 10}
    assert zones().chosen(strategy=f";ray.io/node-id={C.hex()}") == C


def test_a_raylet_without_the_labels_sends_all_away() -> None:
    assert zones().placed(20, strategy=";zone=b", asking=A) == {B: 20}


def test_alternatives_are_tried_in_order_while_they_fit() -> None:
    assert zones().placed(12, strategy=";zone=c|zone=b|zone") == {C: 4, B: 4, A: 4}


def test_when_none_fits_now_the_first_alternative_that_exists_is_waited_for() -> None:
    cluster = Cluster()
    cluster.hear(A, available=cpus(0), zone="a")
    cluster.hear(B, available=cpus(0), queued=50, zone="b")
    assert cluster.chosen(strategy=";zone=d|zone=b|zone=a") == B


def test_a_raylet_that_meets_a_later_alternative_keeps_its_share_when_the_better_are_full() -> None:
    assert zones().placed(8, strategy=";zone=c|zone=a", asking=A) == {C: 4, A: 4}


def test_labels_that_no_node_has_are_infeasible_and_the_closest_is_named() -> None:
    cluster = zones()
    cluster.hear(B, zone="b", gpu="h100")
    choice = cluster.ask(cpus(1), strategy=";gpu=h100&zone=x|gpu&zone=y")
    assert choice.infeasible
    assert choice.reason == (
        "no node can hold {CPU: 1} with labels gpu=h100 and zone=x or gpu and zone=y, even when idle: "
        f"the closest of 3, node {B.hex()}, does not meet zone=x (it is 'b')"
    )


def test_the_closest_node_lacks_labels_and_resources() -> None:
    reason = Cluster(A).ask(cpus(6), strategy=";zone=a").reason
    assert reason.endswith(f"node {A.hex()}, lacks 2 CPU (it has 4) and does not meet zone=a (it has no such label)")


# --- infeasible ------------------------------------------------------------------------------------


def test_infeasible_names_the_closest_node_and_what_it_lacks() -> None:
    cluster = Cluster(A)
    cluster.hear(B, total=cpus(6, GPU=1))
    choice = cluster.ask(cpus(8, GPU=1))
    assert choice == Answer(
        infeasible=True,
        reason="no node can hold {CPU: 8, GPU: 1}, even when idle: the closest of 2, "
        f"node {B.hex()}, lacks 2 CPU (it has 6)",
    )


def test_where_all_nodes_drain_nothing_can_be_placed_until_one_joins() -> None:
    cluster = Cluster(A, B)
    for node_id in (A, B):
        assert not cluster.ask().infeasible
        cluster.view.on_draining(node_id, incarnation=1)
    assert cluster.ask() == Answer(infeasible=True, reason="each of the 2 nodes is draining: it takes nothing new")
    cluster.hear(C)
    assert cluster.chosen() == C


def test_a_silent_node_may_be_heard_again_while_all_others_drain() -> None:
    cluster = Cluster(A)
    cluster.now = 6.0
    cluster.hear(B)
    cluster.view.on_draining(B, incarnation=1)
    assert cluster.ask() == Answer()


def test_without_nodes_there_is_nothing_to_say() -> None:
    assert Cluster().ask() == Answer()
