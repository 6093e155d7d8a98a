"""How a node stands with its cluster, in virtual time."""

from __future__ import annotations

import pytest

from shoal_common.states import NodeState
from shoal_raylet.cluster.standing import GivenUp, OwnRow, Standing

INCARNATION = 5


@pytest.fixture
def standing() -> Standing:
    return Standing(INCARNATION, 300.0, "head:6381", 0.0)


def row(state: NodeState = NodeState.ALIVE, incarnation: int = INCARNATION) -> OwnRow:
    return OwnRow(state, incarnation, "no heartbeat for 5 s" if state is NodeState.DEAD else "")


@pytest.mark.parametrize("state", [NodeState.ALIVE, NodeState.DRAINING])
def test_a_node_that_is_listed_stays(standing: Standing, state: NodeState) -> None:
    for now in range(0, 10_000, 100):
        assert standing.listed(row(state), float(now)) is None


def test_a_node_that_was_declared_dead_is_fenced_and_may_join_anew(standing: Standing) -> None:
    for outcome in (standing.told(row(NodeState.DEAD)), standing.listed(row(NodeState.DEAD), 1.0)):
        assert outcome == GivenUp("the cluster has declared this node dead: no heartbeat for 5 s", may_rejoin=True)


def test_the_death_of_an_earlier_incarnation_is_past(standing: Standing) -> None:
    assert standing.told(row(NodeState.DEAD, INCARNATION - 1)) is None


def test_two_raylets_with_one_node_id_do_not_replace_each_other_in_turn(standing: Standing) -> None:
    outcome = standing.listed(row(incarnation=INCARNATION + 1), 1.0)
    assert outcome is not None and not outcome.may_rejoin
    assert "another raylet" in outcome.reason


def test_a_gcs_that_does_not_know_the_node_is_another_clusters(standing: Standing) -> None:
    outcome = standing.listed(None, 1.0)
    assert outcome is not None and not outcome.may_rejoin
    assert "head:6381 does not know this node" in outcome.reason


def test_without_a_gcs_it_is_given_up_in_the_end(standing: Standing) -> None:
    standing.listed(row(), 100.0)
    assert standing.unanswered("refused", 399.9) is None
    outcome = standing.unanswered("refused", 400.0)
    assert outcome is not None and not outcome.may_rejoin
    assert "has answered for 300 s" in outcome.reason and "refused" in outcome.reason


def test_every_answer_begins_the_time_anew(standing: Standing) -> None:
    standing.unchanged(200.0)
    assert standing.unanswered("refused", 499.0) is None
    standing.listed(row(), 499.0)
    assert standing.unanswered("refused", 798.0) is None


def test_with_all_the_time_in_the_world_it_is_never_given_up() -> None:
    assert Standing(INCARNATION, -1.0, "head:6381", 0.0).unanswered("refused", 1e9) is None
