"""EventService, the bus for those that are not on it themselves: protobuf in, protobuf out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from shoal_common.bus import EventBus, EventBusError
from shoal_common.bus.memory import EventQueue
from shoal_common.bus.subjects import check_subject, matcher
from shoal_common.errors import InvalidRequest, Unavailable
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class EventServicer(rpc.EventServiceServicer):
    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    async def Publish(self, request: pb.PublishRequest, context: Context) -> pb.PublishResponse:
        try:
            check_subject(request.event.subject)
            await self._bus.publish(request.event.subject, request.event.data)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
        except EventBusError as error:
            raise Unavailable(str(error)) from error
        return pb.PublishResponse()

    async def Subscribe(self, request: pb.SubscribeRequest, context: Context) -> AsyncIterator[pb.Event]:
        for pattern in request.patterns:
            try:
                matcher(pattern)
            except ValueError as error:
                raise InvalidRequest(str(error)) from error
        loop = asyncio.get_running_loop()
        queue = EventQueue(", ".join(request.patterns) + f" at {context.peer()}")
        arrived = asyncio.Event()

        def on_event(subject: str, data: bytes) -> None:
            queue.push(subject, data, loop.time())
            arrived.set()

        subscriptions = []
        try:
            for pattern in request.patterns:
                subscriptions.append(await self._bus.subscribe(pattern, on_event))
            yield pb.Event()
            while True:
                await arrived.wait()
                arrived.clear()
                while queue:
                    subject, data = queue.pop()
                    yield pb.Event(subject=subject, data=data)
        except EventBusError as error:
            raise Unavailable(str(error)) from error
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()
