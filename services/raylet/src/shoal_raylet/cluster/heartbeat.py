"""Tells the cluster what this node has and does: at once, on change, and every second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from shoal_common.bus import EventBus, EventBusError
from shoal_proto.v1 import events_pb2

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0
#: Changes within this time go out together, in seconds.
DEBOUNCE_S = 0.02
#: In a large cluster changes gather for longer, so that all nodes together send so many a second at most: each one goes
#: to every scheduler and to the GCS.
CLUSTER_RATE = 1000.0


def pause_s(nodes: int) -> float:
    """Least time between two heartbeats of a node in a cluster of so many."""
    return min(INTERVAL_S, max(DEBOUNCE_S, nodes / CLUSTER_RATE))


class Heartbeats:
    def __init__(
        self, bus: EventBus, subject: str, make: Callable[[], events_pb2.Heartbeat], nodes: Callable[[], int]
    ) -> None:
        """``nodes``: how many the cluster has."""
        self._bus = bus
        self._subject = subject
        self._make = make
        self._nodes = nodes
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
                await self._bus.publish(self._subject, self._make().SerializeToString())
                failing = False
            except EventBusError as error:
                # A hint only; without heartbeats the GCS asks directly. One line an outage is enough.
                if not failing:
                    log.warning("heartbeats_not_published", reason=str(error))
                failing = True
            pause = INTERVAL_S if failing else pause_s(self._nodes())
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(INTERVAL_S - pause):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
