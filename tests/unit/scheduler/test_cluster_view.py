from __future__ import annotations

from dataclasses import replace

from shoal_common.ids import NodeID
from shoal_common.placement.resources import ResourceSet
from shoal_scheduler.cluster_view import FORGET_AFTER_S, UNKNOWN_TASK_S, ClusterView, NodeReport, NodeView

A, B = NodeID(b"a" * 16), NodeID(b"b" * 16)
FOUR = ResourceSet.of({"CPU": 4})
ONE = ResourceSet.of({"CPU": 1})


def report(
    node_id: NodeID = A,
    *,
    incarnation: int = 1,
    sent: int = 1,
    available: ResourceSet = FOUR,
    queued: int = 0,
    mean_task_s: float = 0.0,
) -> NodeReport:
    return NodeReport(node_id, incarnation, sent, FOUR, available, queued, mean_task_s, "host:1")


def view_of(*reports: NodeReport, silent_after_s: float = 5.0) -> ClusterView:
    view = ClusterView(silent_after_s)
    for each in reports:
        view.on_report(each, now=0.0)
    return view


def nodes(view: ClusterView, now: float) -> list[NodeView]:
    view.settle(now)
    return view.nodes()


def fits_now(node: NodeView, resources: ResourceSet) -> bool:
    return node.load_with(resources) is not None


def ids_of(view: ClusterView, now: float) -> list[NodeID]:
    return [node.node_id for node in nodes(view, now)]


def test_a_silent_node_is_left_out_and_comes_back_when_heard() -> None:
    view = view_of(report())
    assert ids_of(view, now=5.0) == [A]
    assert ids_of(view, now=5.1) == []
    view.on_report(report(sent=2), now=6.0)
    assert ids_of(view, now=6.0) == [A]


def test_placements_count_at_once_and_until_the_next_report() -> None:
    view = view_of(report(available=ONE))
    (node,) = nodes(view, 0.0)
    view.place(node, ONE, now=0.0)
    assert not fits_now(node, ONE)
    before = node.queue_s(FOUR)
    view.place(node, ONE, now=0.0)
    assert node.queue_s(FOUR) > before
    view.on_report(report(sent=2, available=ONE), now=1.0)
    assert fits_now(node, ONE)
    assert node.queue_s(FOUR) == before


def test_a_report_that_was_overtaken_is_dropped() -> None:
    view = view_of(report(sent=10, available=ONE))
    view.on_report(report(sent=9, available=FOUR), now=1.0)
    (node,) = nodes(view, 1.0)
    assert not fits_now(node, FOUR)


def test_a_report_of_an_earlier_incarnation_is_dropped() -> None:
    view = view_of(report(incarnation=2, sent=1, available=ONE))
    view.on_report(report(incarnation=1, sent=99, available=FOUR), now=1.0)
    (node,) = nodes(view, 1.0)
    assert not fits_now(node, FOUR)


def test_a_dead_node_is_not_revived_by_a_late_heartbeat() -> None:
    view = view_of(report(incarnation=3))
    view.on_dead(A, incarnation=3, now=1.0)
    view.on_report(report(incarnation=3, sent=2), now=1.1)
    assert ids_of(view, now=1.1) == []
    view.on_report(report(incarnation=4), now=1.2)
    assert ids_of(view, now=1.2) == [A]


def test_the_death_of_an_earlier_incarnation_does_not_concern_the_next() -> None:
    view = view_of(report(incarnation=4))
    view.on_dead(A, incarnation=3, now=1.0)
    assert ids_of(view, now=1.0) == [A]


def test_a_draining_node_takes_nothing_until_it_starts_anew() -> None:
    view = view_of(report(A), report(B))
    view.on_draining(A, incarnation=1)
    view.on_report(report(A, sent=2), now=1.0)
    assert ids_of(view, now=1.0) == [B]
    view.on_report(report(A, incarnation=2), now=2.0)
    assert ids_of(view, now=2.0) == [A, B]


def test_a_scheduler_that_hears_of_a_node_only_once_it_drains_gives_it_nothing() -> None:
    view = view_of(replace(report(A), draining=True), report(B))
    assert ids_of(view, now=0.0) == [B]


def test_an_unmeasured_task_is_assumed_to_take_a_moment() -> None:
    (node,) = view_of(report(queued=3)).nodes()
    assert node.queue_s(FOUR) == 4 * UNKNOWN_TASK_S
    (node,) = view_of(report(queued=3, mean_task_s=2.0)).nodes()
    assert node.queue_s(FOUR) == 8.0


def test_utilization_is_that_of_the_scarcest_resource() -> None:
    total = ResourceSet.of({"CPU": 4, "GPU": 1})
    view = view_of(NodeReport(A, 1, 1, total, ResourceSet.of({"CPU": 3, "GPU": 1}), 0, 0.0, ""))
    (node,) = nodes(view, 0.0)
    assert node.load_with(ONE) == 0.5
    assert node.load_with(ResourceSet.of({"GPU": 1})) == 1.0


def test_long_gone_nodes_are_forgotten() -> None:
    view = view_of(report(A))
    view.on_dead(B, incarnation=1, now=0.0)
    later = FORGET_AFTER_S + 1
    view.on_report(report(NodeID(b"c" * 16)), now=later)
    assert ids_of(view, now=later) == [b"c" * 16]
    # Nothing remembers that B once died, which it would if the table had kept it.
    view.on_report(report(B), now=later)
    assert B in ids_of(view, now=later)
