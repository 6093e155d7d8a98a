"""Where leases that this node does not grant shall go: asked of a scheduler, unless there is nothing to choose."""

from __future__ import annotations

from shoal_common.placement.resources import ResourceSet
from shoal_common.rpc.schedulers import Schedulers
from shoal_proto.v1 import common_pb2, gcs_pb2, scheduler_pb2
from shoal_raylet.actions import AskScheduler
from shoal_raylet.cluster.group_states import GroupStates
from shoal_raylet.cluster.nodes import NodeDirectory
from shoal_raylet.leases.scheduler_answer import LeasesPlaced, SchedulerAnswer


class PlacementQuestions:
    def __init__(
        self, node_id: bytes, directory: NodeDirectory, group_states: GroupStates, schedulers: Schedulers
    ) -> None:
        self._node_id = node_id
        self._directory = directory
        self._group_states = group_states
        self._schedulers = schedulers

    async def ask(self, question: AskScheduler) -> SchedulerAnswer:
        """Raises: ServiceError when nobody answers."""
        strategy = question.strategy
        if strategy.group_id:
            reason = await self._group_states.why_removed(strategy.group_id)
            if reason:
                return SchedulerAnswer(infeasible=True, reason=reason)
        if strategy.node_id is not None:
            # There is nothing to choose, and a scheduler that has just started may not know that node yet.
            soft, wanted = strategy.soft, strategy.node_id
            node = self._directory.get(wanted) if soft else await self._directory.find(wanted)
            alive = node is not None and node.state == gcs_pb2.NODE_STATE_ALIVE
            if node is not None and alive and (not soft or self._can_hold(node, question)):
                return SchedulerAnswer((LeasesPlaced(node.node_id, node.host, node.channel_port, question.count),))
            if not alive and not soft:
                reason = f"node {wanted.hex()} is not alive, and the task may run nowhere else (soft=False)"
                return SchedulerAnswer(infeasible=True, reason=reason)
        request = scheduler_pb2.PickNodeRequest(
            resources=common_pb2.ResourceAmounts(grains=question.resources.grains),
            strategy=strategy.outside_group().encode(),
            asking_node_id=self._node_id,
            argument_bytes={node_id.hex(): size for node_id, size in question.argument_bytes.items()},
            count=question.count,
        )
        response = await self._schedulers.pick_node(request)
        placed: list[LeasesPlaced] = []
        for placement in response.placements:
            node = await self._directory.find(placement.node_id)
            # A node that the GCS does not know (any more), or that others cannot reach, is none.
            if node is not None and (node.channel_port or node.node_id == self._node_id):
                placed.append(LeasesPlaced(node.node_id, node.host, node.channel_port, placement.count))
        # Bundles that no scheduler has heard of are being made, or moved.
        return SchedulerAnswer(tuple(placed), response.infeasible and not strategy.group_id, response.reason)

    def _can_hold(self, node: gcs_pb2.NodeInfo, question: AskScheduler) -> bool:
        """When it is idle, and is reached from here."""
        reached = node.channel_port or node.node_id == self._node_id
        fits = question.resources.fits_in(ResourceSet(node.total.grains))
        return bool(reached) and fits and question.strategy.alternative(node.labels) is not None
