"""Which nodes are alive, in virtual time."""

from __future__ import annotations

import dataclasses

import pytest

from shoal_common.errors import AlreadyExists, NotFound, PreconditionFailed
from shoal_gcs.config import GcsConfig
from shoal_gcs.nodes.table import CHECK_EVERY_S, CheckHealth, Died, Drains, Forget, Joined, Node, NodeState, NodeTable
from shoal_gcs.peers import HEALTH_DEADLINE_S

N1, N2 = b"\x01", b"\x02"
ADDRESS = "10.0.0.1:7000"
SILENCE = 5.0


def table(dead_kept: int = 10) -> NodeTable:
    return NodeTable(silence_s=SILENCE, checks=3, dead_kept=dead_kept)


@pytest.fixture
def nodes() -> NodeTable:
    nodes = table()
    nodes.register(N1, 1, ADDRESS, 0.0)
    return nodes


def test_a_node_joins_once() -> None:
    nodes = table()
    assert nodes.register(N1, 1, ADDRESS, 0.0) == [Joined(N1)]
    assert nodes.register(N1, 1, ADDRESS, 1.0) == []
    assert nodes.address_of(N1) == ADDRESS
    assert nodes.address_of(N2) == ""


@pytest.mark.parametrize(("incarnation", "address"), [(1, "10.0.0.2:7000"), (0, ADDRESS)])
def test_a_node_id_in_use_is_refused(nodes: NodeTable, incarnation: int, address: str) -> None:
    with pytest.raises(AlreadyExists, match="is alive at"):
        nodes.register(N1, incarnation, address, 1.0)
    assert nodes[N1].incarnation == 1


def test_a_raylet_started_again_loses_what_it_held(nodes: NodeTable) -> None:
    assert nodes.register(N1, 2, "10.0.0.1:7001", 1.0) == [
        Died(N1, 1, "its raylet was started again"),
        Joined(N1),
    ]
    assert nodes.address_of(N1) == "10.0.0.1:7001"
    assert nodes.heartbeat(N1, 1, 10, 1.0) is False, "the earlier raylet's"
    assert nodes.heartbeat(N1, 2, 10, 1.0) is True


def test_a_beating_node_is_never_asked(nodes: NodeTable) -> None:
    for now in range(1, 100):
        assert nodes.heartbeat(N1, 1, now, float(now))
        assert nodes.tick(float(now)) == []
    assert nodes.next_deadline() == 99.0 + SILENCE


def test_overtaken_heartbeats_are_dropped(nodes: NodeTable) -> None:
    assert nodes.heartbeat(N1, 1, 100, 1.0) is True
    assert nodes.heartbeat(N1, 1, 99, 2.0) is False
    assert nodes.heartbeat(b"unknown", 1, 100, 2.0) is False


def test_a_silent_node_is_asked_directly_before_it_is_dead(nodes: NodeTable) -> None:
    check = CheckHealth(N1, 1, ADDRESS)
    assert nodes.tick(SILENCE - 0.1) == []
    assert nodes.tick(SILENCE) == [check]
    assert nodes.tick(SILENCE + 1) == [], "the question is under way"
    assert nodes.next_deadline() is None
    now = SILENCE
    for _ in range(2):
        assert nodes.checked(N1, 1, "no answer", now) == []
        assert nodes.next_deadline() == now + CHECK_EVERY_S
        assert nodes.tick(now) == []
        now += CHECK_EVERY_S
        assert nodes.tick(now) == [check]
    (died,) = nodes.checked(N1, 1, "no answer", now)
    assert isinstance(died, Died)
    assert died.reason == "no heartbeat for 6 s, and 3 direct checks failed: no answer"
    assert nodes[N1].state is NodeState.DEAD
    assert nodes.address_of(N1) == ""
    assert nodes.next_deadline() is None


def died_at(resumes_at: float = float("inf")) -> float | None:
    """When a node that hangs after its heartbeat at 0 is dead, with the settings of a GCS that is told none; None = it
    lives, and goes on at ``resumes_at``."""
    usual = {field.name: field.default for field in dataclasses.fields(GcsConfig)}
    nodes = NodeTable(silence_s=usual["silence_s"], checks=usual["checks"], dead_kept=10)
    nodes.register(N1, 1, ADDRESS, 0.0)
    while nodes[N1].state is NodeState.ALIVE:
        now = nodes.next_deadline()
        assert now is not None
        if now > resumes_at:
            return None
        assert nodes.tick(now) == [CheckHealth(N1, 1, ADDRESS)]
        answers_at = max(now, resumes_at)
        if answers_at <= now + HEALTH_DEADLINE_S:
            assert nodes.checked(N1, 1, "", answers_at) == []
        elif nodes.checked(N1, 1, "no answer", now + HEALTH_DEADLINE_S):
            return now + HEALTH_DEADLINE_S
    raise AssertionError("unreachable")


def test_with_the_usual_settings_a_node_is_dead_in_five_seconds_and_not_for_a_pause_of_three() -> None:
    dead = died_at()
    assert dead is not None and dead <= 5.0
    # The pause begins at any time until the next heartbeat was due, a second later.
    assert [died_at(begins / 10 + 3.0) for begins in range(11)] == [None] * 11


def test_when_the_bus_is_down_a_node_that_answers_lives(nodes: NodeTable) -> None:
    now = 0.0
    for _ in range(20):
        now += SILENCE
        assert nodes.tick(now) == [CheckHealth(N1, 1, ADDRESS)]
        assert nodes.checked(N1, 1, "", now) == []


def test_a_gcs_that_is_cut_off_itself_declares_nobody_dead(nodes: NodeTable) -> None:
    now = SILENCE
    for cut_off in (False, False, *[True] * 20, False, False):
        assert nodes.tick(now) == [CheckHealth(N1, 1, ADDRESS)]
        assert nodes.checked(N1, 1, "no answer", now, cut_off=cut_off) == []
        assert nodes.next_deadline() == now + CHECK_EVERY_S
        now += CHECK_EVERY_S
    assert nodes[N1].state is NodeState.ALIVE


def test_an_answer_or_a_heartbeat_begins_the_count_anew(nodes: NodeTable) -> None:
    nodes.tick(5.0)
    nodes.checked(N1, 1, "no answer", 5.0)
    nodes.tick(6.0)
    nodes.checked(N1, 1, "no answer", 6.0)
    nodes.heartbeat(N1, 1, 1, 6.5)
    assert nodes.next_deadline() == 6.5 + SILENCE
    nodes.tick(12.0)
    assert nodes.checked(N1, 1, "no answer", 12.0) == []
    assert nodes[N1].state is NodeState.ALIVE


def test_a_heartbeat_during_the_question_counts_more(nodes: NodeTable) -> None:
    nodes.tick(5.0)
    nodes.heartbeat(N1, 1, 1, 6.0)
    assert nodes.checked(N1, 1, "no answer", 7.0) == []
    assert nodes[N1].failed_checks == 0


def test_the_answer_about_an_earlier_raylet_says_nothing_of_the_new_one(nodes: NodeTable) -> None:
    nodes.tick(5.0)
    nodes.register(N1, 2, ADDRESS, 6.0)
    for _ in range(3):
        assert nodes.checked(N1, 1, "no answer", 20.0) == []
    assert nodes[N1].state is NodeState.ALIVE


def test_the_dead_must_come_back_as_somebody_new(nodes: NodeTable) -> None:
    assert nodes.unregister(N1, "drained") == [Died(N1, 1, "drained")]
    assert nodes.unregister(N1, "drained") == []
    assert nodes.heartbeat(N1, 1, 1, 1.0) is False
    with pytest.raises(PreconditionFailed, match="declared dead"):
        nodes.register(N1, 1, ADDRESS, 2.0)
    assert nodes.register(N1, 2, ADDRESS, 2.0) == [Joined(N1)]


def test_only_the_newest_dead_are_remembered() -> None:
    nodes = table(dead_kept=1)
    for node_id in (N1, N2):
        nodes.register(node_id, 1, ADDRESS, 0.0)
    nodes.unregister(N1, "drained")
    assert nodes.unregister(N2, "drained") == [Died(N2, 1, "drained"), Forget(N1)]
    assert N1 not in nodes


def test_after_a_restart_silence_begins_anew() -> None:
    nodes = table(dead_kept=1)
    stored = [
        Node(b"old", "", 1, NodeState.DEAD, "silent"),
        Node(b"dead", "", 1, NodeState.DEAD, "silent"),
        Node(N1, ADDRESS, 1),
    ]
    assert nodes.load(stored, 1000.0) == [Forget(b"old")]
    assert nodes.tick(1000.0 + SILENCE - 0.1) == []
    assert nodes.tick(1000.0 + SILENCE) == [CheckHealth(N1, 1, ADDRESS)]
    assert [node.node_id for node in nodes.living()] == [N1]


def test_a_draining_node_still_lives_and_dies_when_it_leaves(nodes: NodeTable) -> None:
    assert nodes.drain(N1, "asked to stop") == [Drains(N1, "asked to stop")]
    assert nodes.drain(N1, "asked to stop") == []
    assert nodes[N1].state is NodeState.DRAINING
    assert nodes.address_of(N1) == ADDRESS
    assert nodes.heartbeat(N1, 1, 5, 1.0)
    assert nodes.unregister(N1, "it left") == [Died(N1, 1, "it left", drained=True)]


def test_only_a_living_node_drains(nodes: NodeTable) -> None:
    with pytest.raises(NotFound, match="unknown or dead"):
        nodes.drain(N2, "asked to stop")
