"""The replicas of the global scheduler: any may be asked, and another one when it does not answer."""

from __future__ import annotations

import random

import grpc.aio

from shoal_common.errors import DeadlineExceeded, Unavailable
from shoal_common.rpc.client import service_errors
from shoal_proto.v1 import scheduler_pb2
from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceStub

#: A replica that has not answered by then is passed over, in seconds.
DEADLINE_S = 2.0


class Schedulers:
    def __init__(self, channels: dict[str, grpc.aio.Channel], rng: random.Random) -> None:
        """``channels`` by address; they stay their maker's to close."""
        self._stubs = {address: SchedulerServiceStub(channel) for address, channel in channels.items()}
        self._rng = rng

    async def pick(self, request: scheduler_pb2.PickNodeRequest) -> scheduler_pb2.PickNodeResponse:
        """Each time another replica, so that all are used. Raises: ServiceError; Unavailable when none answers."""
        problems: list[str] = []
        for address in self._rng.sample(list(self._stubs), len(self._stubs)):
            try:
                with service_errors():
                    return await self._stubs[address].PickNode(request, timeout=DEADLINE_S)
            except (Unavailable, DeadlineExceeded) as error:
                problems.append(f"{address}: {error}")
        raise Unavailable("no scheduler answers: " + "; ".join(problems))
