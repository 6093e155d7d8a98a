from __future__ import annotations

import random
from collections import Counter

import pytest

from shoal_common.errors import InvalidRequest
from shoal_common.ids import NodeID
from shoal_common.resources import ResourceSet
from shoal_scheduler.cluster_view import ClusterView, NodeReport
from shoal_scheduler.policies import Choice, Request, pick

A, B, C = (NodeID(letter * 16) for letter in (b"a", b"b", b"c"))


def cpus(amount: float, **others: float) -> ResourceSet:
    return ResourceSet.of({"CPU": amount, **others})


class Cluster:
    """Nodes with 4 CPUs unless said otherwise, heard just now."""

    def __init__(self, *node_ids: NodeID) -> None:
        self.view = ClusterView(silent_after_s=5.0)
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
    ) -> None:
        self._sent += 1
        total = total or cpus(4)
        free = total if available is None else available
        report = NodeReport(node_id, 1, self._sent, total, free, queued, mean_task_s, f"{node_id[:1].decode()}:1")
        self.view.on_report(report, self.now)

    def ask(
        self,
        resources: ResourceSet | None = None,
        strategy: str = "",
        asking: NodeID | None = None,
        arguments: dict[NodeID, int] | None = None,
        seed: int = 0,
    ) -> Choice:
        request = Request(resources or cpus(1), strategy, asking, arguments or {})
        return pick(request, self.view, self.now, random.Random(seed))

    def chosen(self, *args: object, **options: object) -> NodeID | None:
        choice = self.ask(*args, **options)  # type: ignore[arg-type]
        assert not choice.infeasible
        return choice.node.node_id if choice.node else None


# --- DEFAULT ---------------------------------------------------------------------------------------


def test_nodes_are_packed_to_half_one_after_the_other_and_then_evenly() -> None:
    cluster = Cluster(A, B)
    assert [cluster.chosen() for _ in range(4)] == [A, A, B, B]
    assert Counter(cluster.chosen() for _ in range(4)) == {A: 2, B: 2}


def test_above_half_it_is_random_among_the_least_utilized_fifth() -> None:
    nodes = [NodeID(bytes([n]) * 16) for n in range(10)]
    picked = set()
    for seed in range(40):
        cluster = Cluster()
        for n, node_id in enumerate(nodes):
            cluster.hear(node_id, available=cpus(1.9 if n in (3, 7) else 1.5))
        picked.add(cluster.chosen(seed=seed))
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
    cluster = busy(3, 0)
    assert [cluster.chosen(asking=A) for _ in range(4)] == [B, B, B, None]


# --- SPREAD ----------------------------------------------------------------------------------------


def test_spread_goes_round() -> None:
    cluster = Cluster(A, B, C)
    assert [cluster.chosen(strategy="SPREAD") for _ in range(6)] == [A, B, C, A, B, C]


def test_spread_goes_round_for_requests_that_need_nothing() -> None:
    cluster = Cluster(A, B)
    nothing = ResourceSet.of({"CPU": 0})
    picked = [pick(Request(nothing, "SPREAD"), cluster.view, cluster.now, random.Random(0)).node for _ in range(4)]
    assert [node.node_id for node in picked if node] == [A, B, A, B]


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
    assert cluster.chosen(strategy=f"node:{B.hex()}", asking=B) is None
    assert cluster.chosen(strategy=f"node:{B.hex()}") == B


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


# --- infeasible ------------------------------------------------------------------------------------


def test_infeasible_names_the_closest_node_and_what_it_lacks() -> None:
    cluster = Cluster(A)
    cluster.hear(B, total=cpus(6, GPU=1))
    choice = cluster.ask(cpus(8, GPU=1))
    assert choice == Choice(
        infeasible=True,
        reason="no node can hold {CPU: 8, GPU: 1}, even when idle: the closest of 2, "
        f"node {B.hex()}, lacks 2 CPU (it has 6)",
    )


def test_without_nodes_there_is_nothing_to_say() -> None:
    assert Cluster().ask() == Choice()
