"""From the event bus into the view: heartbeats, and the GCS's word that a node is dead or draining."""

from __future__ import annotations

import time

from shoal_common.bus import EventBus, Subscription, subjects
from shoal_common.ids import NodeID
from shoal_common.placement.resources import ResourceSet
from shoal_proto.v1 import events_pb2, gcs_pb2
from shoal_scheduler.cluster_view import ClusterView, NodeReport


class ViewFeed:
    """Missed events do no harm: the next heartbeat says it all again, and a dead node falls silent."""

    def __init__(self, bus: EventBus, cluster_id: str, view: ClusterView) -> None:
        self._bus = bus
        self._cluster_id = cluster_id
        self._view = view
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Raises: EventBusError when the bus does not answer."""
        handlers = {
            subjects.all_heartbeats(self._cluster_id): self._on_heartbeat,
            subjects.all_nodes(self._cluster_id): self._on_node,
        }
        for pattern, handler in handlers.items():
            self._subscriptions.append(await self._bus.subscribe(pattern, handler))

    async def stop(self) -> None:
        while self._subscriptions:
            await self._subscriptions.pop().unsubscribe()

    def _on_heartbeat(self, _subject: str, data: bytes) -> None:
        heartbeat = events_pb2.Heartbeat.FromString(data)
        self._view.on_report(
            NodeReport(
                node_id=NodeID(heartbeat.node_id),
                incarnation=heartbeat.incarnation,
                sent_unix_ms=heartbeat.sent_unix_ms,
                total=ResourceSet(heartbeat.total.grains),
                available=ResourceSet(heartbeat.available.grains) - ResourceSet(heartbeat.set_aside.grains),
                queued_leases=heartbeat.queued_leases,
                mean_task_s=heartbeat.mean_task_us / 1e6,
                raylet_address=heartbeat.raylet_address,
                labels=dict(heartbeat.labels),
                draining=heartbeat.draining,
            ),
            time.monotonic(),
        )

    def _on_node(self, _subject: str, data: bytes) -> None:
        node = events_pb2.NodeEvent.FromString(data).node
        if node.state == gcs_pb2.NODE_STATE_DEAD:
            self._view.on_dead(NodeID(node.node_id), node.incarnation, time.monotonic())
        elif node.state == gcs_pb2.NODE_STATE_DRAINING:
            self._view.on_draining(NodeID(node.node_id), node.incarnation)
