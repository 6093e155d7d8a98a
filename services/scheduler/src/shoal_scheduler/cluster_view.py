"""What the scheduler believes about every node: soft state, fed by heartbeats, rebuilt in seconds. Pure.

Between two heartbeats a node's load is not known, so every placement is charged to it at once: without that, a burst
of requests would all go to the node that was idle at its last heartbeat. The next heartbeat replaces the guess.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shoal_common.ids import NodeID
from shoal_common.placement.resources import ResourceSet
from shoal_common.service.story import Story, explained, noted

#: Assumed duration of a task, in seconds, while a node has not measured one.
UNKNOWN_TASK_S = 0.1
#: A heartbeat that comes so soon after a placement, in seconds, may have been sent before the node knew of it: the
#: placement stays charged. Nodes whose load changes send many heartbeats a second.
IN_FLIGHT_S = 0.1
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
    #: In their canonical form, ``labels.labels_of_node``.
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False


class NodeView:
    """One node: its last report, and what was placed on it since."""

    __slots__ = ("_available", "_load", "_placed", "draining", "heard_at", "last_spread", "queued", "report", "silent")

    def __init__(self, report: NodeReport, now: float) -> None:
        self.draining = False
        #: Number of the last SPREAD placement here; the smallest is next.
        self.last_spread = 0
        #: (when, what) placed lately, oldest first.
        self._placed: deque[tuple[float, ResourceSet]] = deque()
        self.update(report, now)

    def update(self, report: NodeReport, now: float) -> None:
        self.report = report
        self.heard_at = now
        self.silent = False
        # The GCS's word may have come first; and who starts after it hears this alone.
        self.draining = self.draining or report.draining
        #: Requests that wait there for what is in use.
        self.queued = report.queued_leases
        self._available = dict(report.available.grains)
        while self._placed and self._placed[0][0] < now - IN_FLIGHT_S:
            self._placed.popleft()
        self._load = max(
            (1 - self._available.get(name, 0) / grains for name, grains in report.total.grains.items()), default=0.0
        )
        for _at, resources in self._placed:
            self._charge(resources)

    def place(self, resources: ResourceSet, now: float) -> None:
        self._placed.append((now, resources))
        self._charge(resources)

    def _charge(self, resources: ResourceSet) -> None:
        """It takes what is free, or joins the queue."""
        load = self.load_with(resources)
        if load is not None:
            self._load = load
            for name, grains in resources.grains.items():
                self._available[name] -= grains
        else:
            self.queued += 1

    @property
    def node_id(self) -> NodeID:
        return self.report.node_id

    @property
    def usable(self) -> bool:
        return not self.silent and not self.draining

    def feasible(self, resources: ResourceSet) -> bool:
        """Could it hold them when idle?"""
        return resources.fits_in(self.report.total)

    def queue_s(self, resources: ResourceSet, ahead: int = 0) -> float:
        """Seconds until a request has its turn after those that queue, ``ahead`` more, and those that run."""
        total = self.report.total
        slots = min((total[name] // grains for name, grains in resources.grains.items()), default=0)
        return (self.queued + ahead + 1) * (self.report.mean_task_s or UNKNOWN_TASK_S) / max(slots, 1)

    def load_with(self, resources: ResourceSet) -> float | None:
        """Used share, 0 to 1, of the scarcest resource once ``resources`` are placed here; None: no room now."""
        load, total, available = self._load, self.report.total.grains, self._available
        for name, grains in resources.grains.items():
            left = available.get(name, 0) - grains
            if left < 0:
                return None
            used = 1 - left / total[name]
            if used > load:
                load = used
        return load


class ClusterView:
    """All nodes that were heard lately. Times are monotonic seconds."""

    def __init__(self, silent_after_s: float) -> None:
        """A node that is silent for ``silent_after_s`` is left out, without being declared dead: that is the GCS's."""
        self._silent_after_s = silent_after_s
        self._nodes: dict[NodeID, NodeView] = {}
        #: Those that are not silent, the longest unheard first.
        self._heard: OrderedDict[NodeID, NodeView] = OrderedDict()
        #: When each node changed last, as a number that grows by one with every change; in that order.
        self._changed: OrderedDict[NodeID, int] = OrderedDict()
        self._changes = 0
        #: Changes up to this one are not all known any more.
        self._forgotten = 0
        #: (incarnation, when) the GCS declared dead: a heartbeat that was still under way does not revive it.
        self._dead: dict[NodeID, tuple[int, float]] = {}
        self._spreads = 0
        self._story = Story("the view of the cluster")

    # --- what happens ---

    @explained
    def on_report(self, report: NodeReport, now: float) -> None:
        node_id = report.node_id
        self._story.note("on_report", node_id)
        if report.incarnation <= self._dead.get(node_id, (-1, now))[0]:
            return
        node = self._nodes.get(node_id)
        if node is None or report.incarnation > node.report.incarnation:
            self._forget(now)
            node = self._nodes[node_id] = NodeView(report, now)
        elif (report.incarnation, report.sent_unix_ms) >= (node.report.incarnation, node.report.sent_unix_ms):
            node.update(report, now)
        else:
            return
        self._heard[node_id] = node
        self._heard.move_to_end(node_id)
        self._touch(node_id)

    @noted
    def on_dead(self, node_id: NodeID, incarnation: int, now: float) -> None:
        """The GCS declared it dead, or it was drained."""
        node = self._nodes.get(node_id)
        if node is not None and node.report.incarnation > incarnation:
            return
        self._dead[node_id] = (incarnation, now)
        if node is not None:
            del self._nodes[node_id]
            self._heard.pop(node_id, None)
            self._touch(node_id)

    @noted
    def on_draining(self, node_id: NodeID, incarnation: int) -> None:
        """Nothing new goes to it."""
        node = self._nodes.get(node_id)
        if node is not None and node.report.incarnation == incarnation:
            node.draining = True
            self._touch(node_id)

    @explained
    def place(self, node: NodeView, resources: ResourceSet, now: float, *, spread: bool = False) -> None:
        """Charge a placement at once."""
        self._story.note("place", node.node_id)
        node.place(resources, now)
        if spread:
            self._spreads += 1
            node.last_spread = self._spreads
        self._touch(node.node_id)

    def requeue(self, node: NodeView, requests: int) -> None:
        """So many more (or, negative, fewer) wait in the queue of the node."""
        node.queued = max(0, node.queued + requests)
        self._touch(node.node_id)

    @explained
    def settle(self, now: float) -> None:
        """Leave out the nodes that have fallen silent by now."""
        while self._heard:
            node_id, node = next(iter(self._heard.items()))
            if now - node.heard_at <= self._silent_after_s:
                return
            node.silent = True
            del self._heard[node_id]
            self._touch(node_id)

    # --- what is believed ---

    def nodes(self) -> list[NodeView]:
        """The nodes that may be chosen, by id."""
        return [node for _id, node in sorted(self._heard.items()) if node.usable]

    def leaving(self) -> list[NodeView]:
        """All that are not dead, if each of them drains, so that nothing new begins anywhere; else none."""
        nodes = self.known()
        return nodes if all(node.draining for node in nodes) else []

    def known(self) -> list[NodeView]:
        """All that are not dead."""
        return list(self._nodes.values())

    def node(self, node_id: NodeID | None) -> NodeView | None:
        """The node, unless it is unknown; it may be silent or draining."""
        return self._nodes.get(node_id) if node_id is not None else None

    @property
    def changes(self) -> int:
        return self._changes

    def changed_since(self, change: int) -> Iterable[NodeID] | None:
        """The nodes that have changed after that change, some of which may be gone; None when that is forgotten."""
        return self._later_than(change) if change >= self._forgotten else None

    def validate(self) -> None:
        """For tests: what is always true of it."""
        assert self._heard == {node_id: node for node_id, node in self._nodes.items() if not node.silent}
        heard = [node.heard_at for node in self._heard.values()]
        assert heard == sorted(heard), "the longest unheard first"
        numbers = list(self._changed.values())
        assert numbers == sorted(set(numbers)) and all(number <= self._changes for number in numbers)
        assert self._nodes.keys() <= self._changed.keys()
        assert self._forgotten <= self._changes
        for node_id, node in self._nodes.items():
            assert node.node_id == node_id
            assert node.queued >= 0
            assert node.last_spread <= self._spreads

    def _later_than(self, change: int) -> Iterable[NodeID]:
        for node_id, changed in reversed(self._changed.items()):
            if changed <= change:
                return
            yield node_id

    def _touch(self, node_id: NodeID) -> None:
        self._changes += 1
        self._changed[node_id] = self._changes
        self._changed.move_to_end(node_id)

    def _forget(self, now: float) -> None:
        """Keep the tables as small as the cluster; they grow only where a new node appears."""
        self._dead = {key: dead for key, dead in self._dead.items() if now - dead[1] <= FORGET_AFTER_S}
        for node_id in [key for key, node in self._nodes.items() if now - node.heard_at > FORGET_AFTER_S]:
            del self._nodes[node_id]
            self._heard.pop(node_id, None)
        for node_id in [key for key in self._changed if key not in self._nodes and key not in self._dead]:
            self._forgotten = max(self._forgotten, self._changed.pop(node_id))
