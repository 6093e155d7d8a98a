"""What the scheduler believes about every node: soft state, fed by heartbeats, rebuilt in seconds. Pure.

Between two heartbeats a node's load is not known, so every placement is charged to it at once: without that, a burst
of requests would all go to the node that was idle at its last heartbeat. The next heartbeat replaces the guess.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal_common.ids import NodeID
from shoal_common.resources import ResourceSet

#: Assumed duration of a task, in seconds, while a node has not measured one.
UNKNOWN_TASK_S = 0.1
#: What is known of a node that fell silent, or was declared dead, is forgotten after so many seconds.
FORGET_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A heartbeat, decoded."""

    node_id: NodeID
    incarnation: int
    sent_unix_ms: int
    total: ResourceSet
    available: ResourceSet
    queued_leases: int = 0
    #: Mean duration of recent tasks, in seconds; 0 = unknown.
    mean_task_s: float = 0.0
    raylet_address: str = ""


class NodeView:
    """One node: its last report, and what was placed on it since."""

    __slots__ = ("_available", "_queued", "draining", "heard_at", "last_spread", "report")

    def __init__(self, report: NodeReport, now: float) -> None:
        self.draining = False
        #: Number of the last SPREAD placement here; the smallest is next.
        self.last_spread = 0
        self.update(report, now)

    def update(self, report: NodeReport, now: float) -> None:
        self.report = report
        self.heard_at = now
        self._available = report.available
        self._queued = report.queued_leases

    def place(self, resources: ResourceSet) -> None:
        """Charge a placement until the next report: it takes what is free, or joins the queue."""
        if self.fits_now(resources):
            self._available -= resources
        else:
            self._queued += 1

    @property
    def node_id(self) -> NodeID:
        return self.report.node_id

    def feasible(self, resources: ResourceSet) -> bool:
        """Could it hold them when idle?"""
        return resources.fits_in(self.report.total)

    def fits_now(self, resources: ResourceSet) -> bool:
        return resources.fits_in(self._available)

    def queue_s(self) -> float:
        """Seconds until a request that does not fit now has its turn: those that queue and the one that runs."""
        return (self._queued + 1) * (self.report.mean_task_s or UNKNOWN_TASK_S)

    def utilization(self, resources: ResourceSet) -> float:
        """Share, 0 to 1, of the scarcest resource that is used once ``resources`` are placed here."""
        used = self.report.total - self._available + resources
        return max((used[name] / amount for name, amount in self.report.total.grains.items()), default=0.0)


class ClusterView:
    """All nodes that were heard lately. Times are monotonic seconds."""

    def __init__(self, silent_after_s: float) -> None:
        """A node that is silent for ``silent_after_s`` is left out, without being declared dead: that is the GCS's."""
        self._silent_after_s = silent_after_s
        self._nodes: dict[NodeID, NodeView] = {}
        #: (incarnation, when) the GCS declared dead: a heartbeat that was still under way does not revive it.
        self._dead: dict[NodeID, tuple[int, float]] = {}
        self._spreads = 0

    def on_report(self, report: NodeReport, now: float) -> None:
        if report.incarnation <= self._dead.get(report.node_id, (-1, now))[0]:
            return
        node = self._nodes.get(report.node_id)
        if node is None or report.incarnation > node.report.incarnation:
            self._forget(now)
            self._nodes[report.node_id] = NodeView(report, now)
        elif (report.incarnation, report.sent_unix_ms) >= (node.report.incarnation, node.report.sent_unix_ms):
            node.update(report, now)

    def on_dead(self, node_id: NodeID, incarnation: int, now: float) -> None:
        """The GCS declared it dead, or it was drained."""
        node = self._nodes.get(node_id)
        if node is not None and node.report.incarnation > incarnation:
            return
        self._nodes.pop(node_id, None)
        self._dead[node_id] = (incarnation, now)

    def on_draining(self, node_id: NodeID) -> None:
        """Nothing new goes to it."""
        if node_id in self._nodes:
            self._nodes[node_id].draining = True

    def nodes(self, now: float) -> list[NodeView]:
        """The nodes that may be chosen, by id."""
        return [
            node
            for _id, node in sorted(self._nodes.items())
            if now - node.heard_at <= self._silent_after_s and not node.draining
        ]

    def node(self, node_id: NodeID, now: float) -> NodeView | None:
        """The node, unless it is unknown or silent."""
        node = self._nodes.get(node_id)
        return node if node is not None and now - node.heard_at <= self._silent_after_s else None

    def place(self, node: NodeView, resources: ResourceSet, spread: bool) -> None:
        """Charge a placement at once."""
        node.place(resources)
        if spread:
            self._spreads += 1
            node.last_spread = self._spreads

    def _forget(self, now: float) -> None:
        """Keep the tables as small as the cluster; they grow only where a new node appears."""
        self._nodes = {key: node for key, node in self._nodes.items() if now - node.heard_at <= FORGET_AFTER_S}
        self._dead = {key: dead for key, dead in self._dead.items() if now - dead[1] <= FORGET_AFTER_S}
