"""Which nodes are alive.

A node tells that it lives by heartbeats. These come over the event bus, which may fail by itself, so silence is only a
suspicion: the raylet is then asked directly, and the node is dead when it does not answer several times in a row.
A GCS that is cut off, or kept from running, hears from nobody either: what it asks in vain while its own store is out
of reach, or learns long after the deadline, does not count.
A raylet that starts again under the same node id has a higher incarnation; the earlier one is dead with all it held.

Pure: takes the time (monotonic seconds), keeps no clock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from shoal_common.errors import AlreadyExists, NotFound, PreconditionFailed
from shoal_common.service.story import Story, noted
from shoal_common.states import NodeState

#: Seconds between two direct questions to a silent node: the second one finds a connection that was tried anew.
CHECK_EVERY_S = 0.5


@dataclass(slots=True)
class Node:
    node_id: bytes
    #: host:port of its gRPC server.
    raylet_address: str
    incarnation: int
    state: NodeState = NodeState.ALIVE
    death_reason: str = ""
    #: When it gave the last sign of life.
    seen_at: float = 0.0
    #: By the raylet's own clock; an older heartbeat has been overtaken.
    heartbeat_unix_ms: int = 0
    failed_checks: int = 0
    #: A direct question is under way.
    checking: bool = False
    check_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Joined:
    node_id: bytes


@dataclass(frozen=True, slots=True)
class Drains:
    """Nothing new is to be placed on it."""

    node_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Ask the raylet whether it lives; answer with ``checked``."""

    node_id: bytes
    incarnation: int
    raylet_address: str


@dataclass(frozen=True, slots=True)
class Died:
    node_id: bytes
    incarnation: int
    reason: str
    #: It was leaving on purpose.
    drained: bool = False


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the row of a node that has been dead for long."""

    node_id: bytes


Action = Joined | Drains | CheckHealth | Died | Forget


class NodeTable:
    def __init__(self, *, silence_s: float, checks: int, dead_kept: int) -> None:
        """``silence_s``: without a heartbeat until the raylet is asked; ``checks``: unanswered until it is dead."""
        self._silence_s = silence_s
        self._checks = checks
        self._story = Story("the node table")
        self._dead_kept = dead_kept
        self._nodes: dict[bytes, Node] = {}
        self._dead: OrderedDict[bytes, None] = OrderedDict()

    def __getitem__(self, node_id: bytes) -> Node:
        return self._nodes[node_id]

    def __contains__(self, node_id: bytes) -> bool:
        return node_id in self._nodes

    def states(self) -> Counter[NodeState]:
        """How many are in each, dead ones that are remembered among them."""
        return Counter(node.state for node in self._nodes.values())

    def living(self) -> list[Node]:
        return [node for node in self._nodes.values() if node.state is not NodeState.DEAD]

    @property
    def has_dead(self) -> bool:
        """Some node has died, not too long ago to be remembered."""
        return bool(self._dead)

    def address_of(self, node_id: bytes) -> str:
        """host:port of a living node's raylet; empty = there is no such node."""
        node = self._nodes.get(node_id)
        return node.raylet_address if node is not None and node.state is not NodeState.DEAD else ""

    def is_alive(self, node_id: bytes, incarnation: int) -> bool:
        """And it is this start of its raylet."""
        node = self._nodes.get(node_id)
        return node is not None and node.state is not NodeState.DEAD and node.incarnation == incarnation

    def load(self, nodes: Iterable[Node], now: float) -> list[Action]:
        """Take over stored nodes, the oldest first; the silence of the living begins now."""
        for node in nodes:
            self._nodes[node.node_id] = node
            node.seen_at = now
            if node.state is NodeState.DEAD:
                self._dead[node.node_id] = None
        return self._forget_excess()

    @noted
    def register(self, node_id: bytes, incarnation: int, raylet_address: str, now: float) -> list[Action]:
        """A raylet announces itself; a repeat asks for nothing.

        Raises: AlreadyExists when the node id is in use by another raylet, PreconditionFailed when this raylet
        has been declared dead.
        """
        node = self._nodes.get(node_id)
        died: list[Action] = []
        if node is not None and incarnation <= node.incarnation:
            if node.state is NodeState.DEAD:
                raise PreconditionFailed(
                    f"incarnation {incarnation} of node {node_id.hex()} was declared dead ({node.death_reason}): "
                    "start the raylet again, so that it joins with a new incarnation"
                )
            if incarnation < node.incarnation or raylet_address != node.raylet_address:
                raise AlreadyExists(
                    f"node {node_id.hex()} is alive at {node.raylet_address} with incarnation {node.incarnation}: "
                    "give this raylet a node id of its own, or stop the other one first"
                )
            node.seen_at = now
            return []
        if node is not None and node.state is not NodeState.DEAD:
            died = self._die(node, "its raylet was started again")
        self._dead.pop(node_id, None)
        self._nodes[node_id] = Node(node_id, raylet_address, incarnation, seen_at=now)
        return [*died, Joined(node_id), *self._forget_excess()]

    def heartbeat(self, node_id: bytes, incarnation: int, sent_unix_ms: int, now: float) -> bool:
        """False = not to be used: of an unknown or dead node, of an earlier raylet, or overtaken by a newer one."""
        node = self._nodes.get(node_id)
        if node is None or node.state is NodeState.DEAD or node.incarnation != incarnation:
            return False
        if sent_unix_ms < node.heartbeat_unix_ms:
            return False
        node.heartbeat_unix_ms = sent_unix_ms
        node.seen_at = now
        node.failed_checks = 0
        return True

    @noted
    def drain(self, node_id: bytes, reason: str) -> list[Action]:
        """A node is about to leave. Raises: NotFound when it is unknown or dead."""
        node = self._nodes.get(node_id)
        if node is None or node.state is NodeState.DEAD:
            raise NotFound(f"node {node_id.hex()} is not in the cluster: it is unknown or dead")
        if node.state is NodeState.DRAINING:
            return []
        node.state = NodeState.DRAINING
        return [Drains(node_id, reason)]

    @noted
    def unregister(self, node_id: bytes, reason: str) -> list[Action]:
        """A node leaves on purpose."""
        node = self._nodes.get(node_id)
        if node is None or node.state is NodeState.DEAD:
            return []
        return [*self._die(node, reason), *self._forget_excess()]

    def tick(self, now: float) -> list[Action]:
        """Suspect those that have been silent for too long."""
        actions: list[Action] = []
        for node in self.living():
            if not node.checking and now >= self._next_check(node):
                node.checking = True
                actions.append(CheckHealth(node.node_id, node.incarnation, node.raylet_address))
        return actions

    @noted
    def checked(
        self, node_id: bytes, incarnation: int, problem: str, now: float, *, cut_off: bool = False
    ) -> list[Action]:
        """The outcome of a direct question; ``problem`` empty = it lives. ``cut_off``: it may be the GCS that reaches
        nobody."""
        node = self._nodes.get(node_id)
        if node is None or node.state is NodeState.DEAD or node.incarnation != incarnation:
            return []
        node.checking = False
        if not problem:
            node.seen_at = now
            node.failed_checks = 0
            return []
        if now - node.seen_at < self._silence_s:
            return []  # a heartbeat came while the question was under way
        node.check_at = now + CHECK_EVERY_S
        if cut_off:
            node.failed_checks = 0
            return []
        node.failed_checks += 1
        if node.failed_checks < self._checks:
            return []
        silent_s = now - node.seen_at
        reason = f"no heartbeat for {silent_s:.0f} s, and {node.failed_checks} direct checks failed: {problem}"
        return [*self._die(node, reason), *self._forget_excess()]

    def next_deadline(self) -> float | None:
        """When ``tick`` may have something to do."""
        return min((self._next_check(node) for node in self.living() if not node.checking), default=None)

    def validate(self) -> None:
        """For tests: what is always true of it."""
        assert set(self._dead) == {i for i, node in self._nodes.items() if node.state is NodeState.DEAD}
        assert len(self._dead) <= self._dead_kept
        for node_id, node in self._nodes.items():
            assert node.node_id == node_id
            assert bool(node.death_reason) == (node.state is NodeState.DEAD), "who is dead died of something"
            assert node.state is NodeState.DEAD or node.failed_checks < self._checks

    def _next_check(self, node: Node) -> float:
        return max(node.check_at, node.seen_at + self._silence_s)

    def _die(self, node: Node, reason: str) -> list[Action]:
        drained = node.state is NodeState.DRAINING
        node.state = NodeState.DEAD
        node.death_reason = reason
        self._dead[node.node_id] = None
        return [Died(node.node_id, node.incarnation, reason, drained)]

    def _forget_excess(self) -> list[Action]:
        actions: list[Action] = []
        while len(self._dead) > self._dead_kept:
            node_id, _ = self._dead.popitem(last=False)
            del self._nodes[node_id]
            actions.append(Forget(node_id))
        return actions
