"""Which leases are placed without a scheduler."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from shoal_common.ids import NodeID
from shoal_common.placement.resources import ResourceSet
from shoal_common.placement.strategy import Strategy
from shoal_proto.v1 import gcs_pb2, scheduler_pb2
from shoal_raylet.actions import AskScheduler
from shoal_raylet.cluster.placement_questions import PlacementQuestions

HERE, FAR, OTHER = NodeID(b"here" * 4), NodeID(b"far1" * 4), NodeID(b"othr" * 4)
ALIVE, DRAINING = gcs_pb2.NODE_STATE_ALIVE, gcs_pb2.NODE_STATE_DRAINING


def node(node_id: bytes, state: gcs_pb2.NodeState.ValueType = ALIVE, cpus: float = 4) -> gcs_pb2.NodeInfo:
    info = gcs_pb2.NodeInfo(node_id=node_id, state=state, host="far", channel_port=7)
    info.total.grains.update(ResourceSet.of({"CPU": cpus}).grains)
    return info


def placed_on(strategy: Strategy, *known: gcs_pb2.NodeInfo) -> list[bytes] | None:
    """None: a scheduler says that no node can. One that has just started, and has only heard of one node."""
    nodes = {info.node_id: info for info in (*known, node(OTHER))}

    async def find(node_id: bytes) -> gcs_pb2.NodeInfo | None:
        return nodes.get(node_id)

    async def pick_node(request: scheduler_pb2.PickNodeRequest) -> scheduler_pb2.PickNodeResponse:
        return scheduler_pb2.PickNodeResponse(placements=[scheduler_pb2.Placement(node_id=OTHER, count=request.count)])

    directory: Any = SimpleNamespace(get=nodes.get, find=find)
    schedulers: Any = SimpleNamespace(pick_node=pick_node)
    questions = PlacementQuestions(HERE, directory, SimpleNamespace(), schedulers)  # type: ignore[arg-type]
    question = AskScheduler(b"owner", 1, ResourceSet.of({"CPU": 2}), strategy, 3, {})
    answer = asyncio.run(questions.ask(question))
    assert answer.infeasible or sum(each.count for each in answer.placed) == 3
    return None if answer.infeasible else [each.node_id for each in answer.placed]


@pytest.mark.parametrize("soft", [True, False])
def test_affinity_to_a_living_node_does_not_depend_on_what_a_scheduler_has_heard(soft: bool) -> None:
    assert placed_on(Strategy(node_id=FAR, soft=soft), node(FAR)) == [FAR]


@pytest.mark.parametrize("known", [(), (node(FAR, DRAINING),), (node(FAR, cpus=1),)], ids=["gone", "leaving", "small"])
def test_a_wish_for_a_node_that_cannot_is_left_to_a_scheduler(known: tuple[gcs_pb2.NodeInfo, ...]) -> None:
    assert placed_on(Strategy(node_id=FAR, soft=True), *known) == [OTHER]


@pytest.mark.parametrize("known", [(), (node(FAR, DRAINING),)], ids=["gone", "leaving"])
def test_hard_affinity_to_a_node_that_is_not_there(known: tuple[gcs_pb2.NodeInfo, ...]) -> None:
    assert placed_on(Strategy(node_id=FAR), *known) is None
