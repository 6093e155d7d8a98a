"""``EventBus`` over the GCS: its EventService carries the embedded bus to processes on other machines.

A subscription is one stream. When it breaks it is opened again with backoff for as long as the subscriber wants
it; the events of the meantime are lost, as the interface allows.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from shoal_common.bus.bus import EventBusError, Handler, OnGap
from shoal_common.bus.memory import call_handler
from shoal_common.bus.subjects import check_subject, matcher
from shoal_proto.v1 import gcs_pb2
from shoal_proto.v1.gcs_pb2_grpc import EventServiceStub

if TYPE_CHECKING:  # this class is in the stub file only
    from shoal_proto.v1.gcs_pb2_grpc import EventServiceAsyncStub

PUBLISH_DEADLINE_S = 5.0
#: ``subscribe`` gives up when the GCS has not confirmed by then, in seconds, unless it is told another time.
SUBSCRIBE_DEADLINE_S = 10.0
#: Bounds of the pause before a broken stream is opened again, in seconds.
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 2.0

_log = logging.getLogger(__name__)


class GcsBus:
    """Belongs to the event loop of ``channel``, which its maker closes, or the bus if it is to own it."""

    def __init__(
        self, channel: grpc.aio.Channel, *, owns_channel: bool = False, deadline_s: float = SUBSCRIBE_DEADLINE_S
    ) -> None:
        """``deadline_s``: how long ``subscribe`` waits for the GCS."""
        self._deadline_s = deadline_s
        self._own = channel if owns_channel else None
        self._stub = EventServiceStub(channel)
        self._subscriptions: set[_GcsSubscription] = set()
        self._closed = False

    async def publish(self, subject: str, data: bytes) -> None:
        check_subject(subject)
        if self._closed:
            raise EventBusError(f"cannot publish {subject}: the event bus is closed")
        event = gcs_pb2.Event(subject=subject, data=data)
        try:
            await self._stub.Publish(gcs_pb2.PublishRequest(event=event), timeout=PUBLISH_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            raise EventBusError(f"cannot publish {subject}: {error.code().name}: {error.details()}") from error

    async def subscribe(self, pattern: str, handler: Handler, on_gap: OnGap = lambda: None) -> _GcsSubscription:
        matcher(pattern)
        if self._closed:
            raise EventBusError(f"cannot subscribe to {pattern}: the event bus is closed")
        subscription = _GcsSubscription(self._stub, pattern, handler, on_gap, self._subscriptions)
        self._subscriptions.add(subscription)
        try:
            await subscription.in_force(self._deadline_s)
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(subscription.unsubscribe() for subscription in list(self._subscriptions)))
        if self._own is not None:
            await self._own.close()


class _GcsSubscription:
    def __init__(
        self,
        stub: EventServiceAsyncStub,
        pattern: str,
        handler: Handler,
        on_gap: OnGap,
        registry: set[_GcsSubscription],
    ) -> None:
        self._stub = stub
        self._pattern = pattern
        self._handler = handler
        self._on_gap = on_gap
        self._registry = registry
        self._active = True
        self._confirmed = asyncio.Event()
        self._problem = "no answer"
        self._task = asyncio.create_task(self._run(), name=f"subscription {pattern}")

    async def in_force(self, deadline_s: float) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                await self._confirmed.wait()
        except TimeoutError:
            raise EventBusError(
                f"cannot subscribe to {self._pattern}: the GCS did not confirm it in {deadline_s:g} s ({self._problem})"
            ) from None

    async def unsubscribe(self) -> None:
        self._active = False
        self._registry.discard(self)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async for event in self._stub.Subscribe(gcs_pb2.SubscribeRequest(patterns=[self._pattern])):
                    if event.subject:
                        if self._active:
                            call_handler(self._handler, event.subject, event.data)
                    else:
                        pause_s = FIRST_PAUSE_S
                        if self._confirmed.is_set():
                            self._on_gap()
                        self._confirmed.set()
                self._problem = "the GCS ended the stream"
            except grpc.aio.AioRpcError as error:
                self._problem = f"{error.code().name}: {error.details()}"
            _log.info("subscription of %s interrupted, trying again: %s", self._pattern, self._problem)
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
