"""What the autoscaler sees of the cluster: heartbeats as they come, and the rest by asking the GCS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from shoal_autoscaler.idleness import Idleness
from shoal_autoscaler.plan import Demand, Group, Node, Started, View
from shoal_common.bus import EventBus, Subscription, subjects
from shoal_common.errors import InvalidRequest
from shoal_common.placement import requested
from shoal_common.placement.labels import Selector, decode_selector, parse_selector
from shoal_common.placement.resources import OBJECT_STORE_MEMORY, ResourceSet
from shoal_common.placement.strategy import Strategy
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_common.states import PlacementStrategy
from shoal_common.tls import Tls
from shoal_proto.v1 import common_pb2, events_pb2
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

#: Of one call to the GCS, in seconds.
_DEADLINE_S = 10.0
_PENDING_GROUPS = (pb.PLACEMENT_GROUP_STATE_PENDING, pb.PLACEMENT_GROUP_STATE_RESCHEDULING)


class Cluster:
    """Belongs to one event loop. All that asks raises: ServiceError, EventBusError."""

    def __init__(self, gcs_address: str, token: str, tls: Tls | None, bus: EventBus) -> None:
        self._bus = bus
        self._channel = channel = aio_channel(gcs_address, token, _DEADLINE_S, tls=tls)
        self._nodes = rpc.NodeServiceStub(channel)
        self._actors = rpc.ActorServiceStub(channel)
        self._groups = rpc.PlacementGroupServiceStub(channel)
        self._kv = rpc.KvServiceStub(channel)
        self._heartbeats: dict[bytes, events_pb2.Heartbeat] = {}
        self._idleness = Idleness()
        self._subscription: Subscription | None = None

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        await self._channel.close()

    def _on_heartbeat(self, _subject: str, data: bytes) -> None:
        heartbeat = events_pb2.Heartbeat.FromString(data)
        self._heartbeats[heartbeat.node_id] = heartbeat

    async def view(self, started: Sequence[Started], now: float) -> View:
        with service_errors():
            if self._subscription is None:
                about = await self._nodes.GetCluster(pb.GetClusterRequest())
                pattern = subjects.all_heartbeats(about.cluster_id)
                self._subscription = await self._bus.subscribe(pattern, self._on_heartbeat)
            nodes = (await self._nodes.ListNodes(pb.ListNodesRequest())).nodes
            actors = (await self._actors.ListWaitingActors(pb.ListWaitingActorsRequest())).waiting
            groups = (await self._groups.ListPlacementGroups(pb.ListPlacementGroupsRequest())).groups
            wanted = await self._kv.GetKv(pb.GetKvRequest(namespace=requested.NAMESPACE, key=requested.KEY))
        living = {node.node_id: node for node in nodes if node.state != pb.NODE_STATE_DEAD}
        self._heartbeats = {node_id: beat for node_id, beat in self._heartbeats.items() if node_id in living}
        waiting = [each for beat in self._heartbeats.values() if beat.node_id in living for each in beat.waiting]
        return View(
            nodes=[self._node(node, now) for node in living.values()],
            started=started,
            demands=_demands([*waiting, *actors]),
            groups=[_group(group) for group in groups if group.state in _PENDING_GROUPS and not group.waits_for_quota],
            requested=_requested(wanted.value),
        )

    async def drain(self, node_id: bytes, reason: str) -> None:
        with service_errors():
            await self._nodes.DrainNode(pb.DrainNodeRequest(node_id=node_id, reason=reason))

    def _node(self, info: pb.NodeInfo, now: float) -> Node:
        beat = self._heartbeats.get(info.node_id)
        total = ResourceSet(beat.total.grains if beat is not None else info.total.grains)
        available = ResourceSet(beat.available.grains if beat is not None else info.available.grains)
        busy = beat is None or _busy(total, available) or beat.queued_leases > 0
        return Node(
            info.node_id,
            total,
            available,
            dict(info.labels),
            self._idleness.since(info.node_id, busy=busy, now=now),
            info.state == pb.NODE_STATE_DRAINING,
        )


def _busy(total: ResourceSet, available: ResourceSet) -> bool:
    """Objects alone keep no node: they go to others when it is drained."""
    return any(available[name] < grains for name, grains in total.grains.items() if name != OBJECT_STORE_MEMORY)


def _demands(waiting: Iterable[common_pb2.WaitingDemand]) -> list[Demand]:
    """Without what only nodes that are there can serve: those of an affinity, and bundles."""
    found: list[Demand] = []
    for each in waiting:
        try:
            strategy = Strategy.decode(each.strategy)
        except InvalidRequest:
            continue  # of a newer version
        if strategy.group_id or (strategy.node_id is not None and not strategy.soft):
            continue
        found.append(Demand(ResourceSet(each.resources.grains), each.count, strategy.selectors))
    return found


def _group(info: pb.PlacementGroupInfo) -> Group:
    bundles = tuple(
        (ResourceSet(bundle.resources.grains), decode_selector(bundle.selector))
        for bundle in info.bundles
        if not bundle.node_id
    )
    return Group(PlacementStrategy(info.strategy), bundles)


def _requested(value: bytes) -> list[Demand]:
    bundles: Iterable[requested.Bundle] = requested.decode(value) if value else ()
    return [
        Demand(ResourceSet.of(bundle.resources), bundle.count, _selectors(bundle.label_selector)) for bundle in bundles
    ]


def _selectors(selector: Mapping[str, str]) -> tuple[Selector, ...]:
    return (parse_selector(selector),) if selector else ()
