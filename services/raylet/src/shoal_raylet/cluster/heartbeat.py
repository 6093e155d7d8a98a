"""Tells the cluster what this node has and does: at once, on change, and every second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import structlog

from shoal_common.bus import EventBus, EventBusError, subjects
from shoal_common.placement.resources import GRAINS, OBJECT_STORE_MEMORY, ResourceSet
from shoal_proto.v1 import common_pb2, events_pb2
from shoal_raylet.cluster.nodes import NodeDirectory
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_leases import WorkerLeases
from shoal_raylet.objects.index import ObjectIndex

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0
#: Changes within this time go out together, in seconds.
DEBOUNCE_S = 0.02
#: In a large cluster changes gather for longer, so that all nodes together send so many a second at most: each one goes
#: to every scheduler and to the GCS.
CLUSTER_RATE = 1000.0
#: So many kinds of what waits are told: whoever adds nodes for these will hear of the others.
MOST_NEEDS = 50


def pause_s(nodes: int) -> float:
    """Least time between two heartbeats of a node in a cluster of so many."""
    return min(INTERVAL_S, max(DEBOUNCE_S, nodes / CLUSTER_RATE))


class HeartbeatDocument:
    """What a heartbeat says of this node."""

    def __init__(
        self,
        node_id: bytes,
        incarnation: int,
        labels: dict[str, str],
        ledger: ResourceLedger,
        leases: WorkerLeases,
        index: ObjectIndex,
    ) -> None:
        self.node_id = node_id
        self._incarnation = incarnation
        self._labels = labels
        self._ledger = ledger
        self._leases = leases
        self._index = index
        self._made_at = time.monotonic()
        #: gRPC, host:port; known once it is served.
        self.raylet_address = ""

    def make(self) -> events_pb2.Heartbeat:
        store_used = self._index.allocator.used
        set_aside = self._ledger.available - self._ledger.unclaimed
        available = self._ledger.available - ResourceSet({OBJECT_STORE_MEMORY: store_used * GRAINS})
        return events_pb2.Heartbeat(
            node_id=self.node_id,
            incarnation=self._incarnation,
            # Never goes back, as a clock that is corrected does: the heartbeats after that would seem overtaken.
            sent_unix_ms=self._incarnation + int((time.monotonic() - self._made_at) * 1000),
            total=common_pb2.ResourceAmounts(grains=self._ledger.total.grains),
            available=common_pb2.ResourceAmounts(grains=available.grains),
            queued_leases=self._leases.queued,
            mean_task_us=self._leases.mean_task_us,
            store_bytes=self._index.allocator.capacity,
            store_used_bytes=store_used,
            labels=self._labels,
            raylet_address=self.raylet_address,
            draining=self._leases.draining,
            leased=common_pb2.ResourceAmounts(grains=self._leases.leased.grains),
            waiting=self._waiting(),
            set_aside=common_pb2.ResourceAmounts(grains=set_aside.grains),
        )

    def _waiting(self) -> Iterator[common_pb2.WaitingDemand]:
        for (resources, strategy), count in islice(self._leases.queued_by_need.items(), MOST_NEEDS):
            yield common_pb2.WaitingDemand(
                resources=common_pb2.ResourceAmounts(grains=resources.grains), strategy=strategy, count=count
            )


class Heartbeats:
    def __init__(self, bus: EventBus, cluster_id: str, document: HeartbeatDocument, directory: NodeDirectory) -> None:
        self._bus = bus
        self._subject = subjects.heartbeat(cluster_id, document.node_id)
        self._document = document
        self._directory = directory
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="heartbeats")

    def changed(self) -> None:
        self._changed.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        failing = False
        while True:
            try:
                await self._bus.publish(self._subject, self._document.make().SerializeToString())
                failing = False
            except EventBusError as error:
                # A hint only; without heartbeats the GCS asks directly. One line an outage is enough.
                if not failing:
                    log.warning("heartbeats_not_published", reason=str(error))
                failing = True
            pause = INTERVAL_S if failing else pause_s(len(self._directory.living()))
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(INTERVAL_S - pause):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
