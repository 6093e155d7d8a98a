"""The replicas of the global scheduler: any may be asked, and another one when it does not answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

import grpc.aio

from shoal_common.errors import DeadlineExceeded, Unavailable
from shoal_common.rpc.client import service_errors
from shoal_proto.v1 import scheduler_pb2
from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceStub

if TYPE_CHECKING:  # this class is in the stub files only
    from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceAsyncStub

#: A replica that has not answered by then is passed over, in seconds.
DEADLINE_S = 2.0


class Schedulers:
    def __init__(self, channels: Mapping[str, grpc.aio.Channel], rng: random.Random | None = None) -> None:
        """``channels`` by address; they stay their maker's to close.

        ``rng``: each time another replica is asked, so that the nodes together use all. None: the one that answered
        last, which knows what it has just placed.
        """
        self._stubs: dict[str, SchedulerServiceAsyncStub] = {
            address: SchedulerServiceStub(channel) for address, channel in channels.items()
        }
        self._rng = rng
        #: In which they are asked, without ``rng``.
        self._order = list(self._stubs)

    async def pick_node(self, request: scheduler_pb2.PickNodeRequest) -> scheduler_pb2.PickNodeResponse:
        """Raises: ServiceError; Unavailable when none answers."""
        problems: list[str] = []
        for address in self._rng.sample(self._order, len(self._order)) if self._rng else list(self._order):
            try:
                with service_errors():
                    return await self._stubs[address].PickNode(request, timeout=DEADLINE_S)
            except (Unavailable, DeadlineExceeded) as error:
                problems.append(f"{address}: {error}")
                if self._order[0] == address:  # else somebody else has passed it over already
                    self._order.append(self._order.pop(0))
        raise Unavailable("no scheduler answers: " + ("; ".join(problems) or "no address is configured"))
