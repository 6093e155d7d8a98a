"""The other nodes of the cluster: where their raylets are, and which are lost.

Follows the GCS's node events. These are hints, so the GCS's own list is read at the start, after each interruption,
every few seconds, and when somebody asks for a node that is not known yet. An answer that nothing has changed is small.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from shoal_common.bus import EventBus, EventBusError, Subscription, subjects
from shoal_common.errors import ServiceError
from shoal_proto.v1 import events_pb2, gcs_pb2

log = structlog.get_logger(__name__)

#: The list is read again after so many seconds: for events that were lost.
REFRESH_S = 5.0
#: In a large cluster it is read less often, so that the GCS is asked so many times a second at most.
_CLUSTER_RATE = 100.0
#: After a read that failed, in seconds; the read itself waits for a GCS for a while.
_RETRY_S = 1.0
#: Asking for unknown nodes reads the list at most this often, in seconds.
_READ_AGAIN_S = 0.2
#: Whoever asks for an unknown node waits so long for a GCS that answers, in seconds.
FIND_WITHIN_S = 60.0
_SUBSCRIBE_AGAIN_S = 2.0


def refresh_s(nodes: int) -> float:
    """Between two reads of the list, in a cluster of so many nodes."""
    return max(REFRESH_S, nodes / _CLUSTER_RATE)


class NodeDirectory:
    """Belongs to one event loop."""

    def __init__(
        self,
        bus: EventBus,
        cluster_id: str,
        list_nodes: Callable[[int], Awaitable[gcs_pb2.ListNodesResponse]],
    ) -> None:
        """``list_nodes(known version)`` raises ServiceError."""
        self._bus = bus
        self._subject = subjects.all_nodes(cluster_id)
        self._list_nodes = list_nodes
        self._nodes: dict[bytes, gcs_pb2.NodeInfo] = {}
        self._subscription: Subscription | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._reading: asyncio.Task[bool] | None = None
        #: When the newest read that the GCS has answered was begun.
        self._read_at = float("-inf")
        #: Of the list that was read last, and who was in it.
        self._version = 0
        self._listed: set[bytes] = set()

    def tell(self, on_lost: Callable[[gcs_pb2.NodeInfo], None], on_change: Callable[[], None]) -> None:
        """``on_lost`` is told once of each node that is dead or has left and was known before; ``on_change`` after any
        change. Before ``start``."""
        self._on_lost = on_lost
        self._on_change = on_change

    async def start(self) -> None:
        """Returns when the list is read; without a bus that answers it is read from time to time.

        Raises: ServiceError when the GCS does not answer.
        """
        self._tasks = [
            asyncio.create_task(self._follow(), name="node events"),
            asyncio.create_task(self._refresh(), name="node list"),
        ]
        await self._read()

    async def stop(self) -> None:
        tasks = [*self._tasks, *([self._reading] if self._reading is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def get(self, node_id: bytes) -> gcs_pb2.NodeInfo | None:
        """A node that lives, as far as is known here."""
        node = self._nodes.get(node_id)
        return node if node is not None and node.state != gcs_pb2.NODE_STATE_DEAD else None

    def is_dead(self, node_id: bytes) -> bool:
        """False also of one that is not known here."""
        node = self._nodes.get(node_id)
        return node is not None and node.state == gcs_pb2.NODE_STATE_DEAD

    def why_dead(self, node_id: bytes) -> str:
        node = self._nodes.get(node_id)
        return (node.death_reason if node is not None else "") or "nothing more is known of it"

    def living(self) -> list[gcs_pb2.NodeInfo]:
        return [node for node in self._nodes.values() if node.state != gcs_pb2.NODE_STATE_DEAD]

    async def find(self, node_id: bytes) -> gcs_pb2.NodeInfo | None:
        """As ``get``, but a node that is not known is looked for in the GCS's list, which is waited for: that there is
        none is said only when a list that was read after this question says so, or after ``FIND_WITHIN_S``."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        while node_id not in self._nodes and self._read_at < asked_at and loop.time() < asked_at + FIND_WITHIN_S:
            await asyncio.sleep(self._read_at + _READ_AGAIN_S - loop.time())
            if not await asyncio.shield(self._begin_to_read()):
                await asyncio.sleep(_RETRY_S)
        return self.get(node_id)

    def update(self, node: gcs_pb2.NodeInfo) -> None:
        """What an event or the list says; what is older than known, is ignored."""
        known = self._nodes.get(node.node_id)
        if known is not None:
            if node.incarnation < known.incarnation:
                return
            if node.incarnation == known.incarnation and known.state == gcs_pb2.NODE_STATE_DEAD:
                return
        self._nodes[node.node_id] = node
        was_alive = known is not None and known.state != gcs_pb2.NODE_STATE_DEAD
        if was_alive and node.state == gcs_pb2.NODE_STATE_DEAD:
            self._on_lost(node)
        elif was_alive and known is not None and known.incarnation != node.incarnation:
            # It has been started again, and its end in between was missed.
            gone = gcs_pb2.NodeInfo()
            gone.CopyFrom(known)
            gone.death_reason = "its raylet was started again"
            self._on_lost(gone)

    def _on_event(self, _subject: str, data: bytes) -> None:
        self.update(events_pb2.NodeEvent.FromString(data).node)
        self._on_change()

    async def _follow(self) -> None:
        while self._subscription is None:
            try:
                self._subscription = await self._bus.subscribe(
                    self._subject, self._on_event, on_gap=self._begin_to_read
                )
            except EventBusError as error:
                log.warning("node_events_not_followed", reason=str(error))
                await asyncio.sleep(_SUBSCRIBE_AGAIN_S)
        await self._read_if_possible()

    async def _refresh(self) -> None:
        answered = True
        while True:
            pause_s = refresh_s(len(self._nodes)) if answered else _RETRY_S
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))
            answered = await asyncio.shield(self._begin_to_read())

    def _begin_to_read(self) -> asyncio.Task[bool]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_if_possible())
        return self._reading

    async def _read_if_possible(self) -> bool:
        """False = no GCS has answered."""
        try:
            await self._read()
        except ServiceError as error:
            log.info("nodes_not_read", reason=str(error))
            return False
        return True

    async def _read(self) -> None:
        began_at = asyncio.get_running_loop().time()
        response = await self._list_nodes(self._version)
        self._read_at = began_at
        if response.version == self._version:
            return
        self._version = response.version
        for node in response.nodes:
            self.update(node)
        before, self._listed = self._listed, {node.node_id for node in response.nodes}
        for node_id in before - self._listed:
            self._forget(node_id)
        self._on_change()

    def _forget(self, node_id: bytes) -> None:
        """The GCS had it in its list, and has not any more: it is dead for long, or this GCS is another cluster's."""
        node = self._nodes.pop(node_id, None)
        if node is not None and node.state != gcs_pb2.NODE_STATE_DEAD:
            gone = gcs_pb2.NodeInfo()
            gone.CopyFrom(node)
            gone.state, gone.death_reason = gcs_pb2.NODE_STATE_DEAD, "the GCS does not know it any more"
            self._on_lost(gone)
