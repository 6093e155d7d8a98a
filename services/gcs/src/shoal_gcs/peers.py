"""The services that the GCS calls: raylets and schedulers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from shoal_common.errors import DeadlineExceeded, ServiceError, Unavailable
from shoal_common.ids import JobID
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_common.tls import Tls
from shoal_proto.v1 import raylet_pb2, scheduler_pb2
from shoal_proto.v1.raylet_pb2_grpc import RayletServiceStub
from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceStub

if TYPE_CHECKING:  # these classes are in the stub files only
    from shoal_proto.v1.raylet_pb2_grpc import RayletServiceAsyncStub
    from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceAsyncStub

#: Starting a process answers when it is begun, not when it is done.
START_DEADLINE_S = 10.0
STOP_DEADLINE_S = 5.0
BUNDLES_DEADLINE_S = 5.0
HEALTH_DEADLINE_S = 2.0
PICK_DEADLINE_S = 2.0
#: Pauses between the tries to tell a raylet what it has to hear, in seconds.
INSIST_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)


class Raylets:
    """One channel for each raylet that was called, by address. All calls raise ``ServiceError``."""

    def __init__(self, token: str, tls: Tls | None) -> None:
        self._token = token
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[str, RayletServiceAsyncStub] = {}

    async def start_actor(self, address: str, request: raylet_pb2.StartActorRequest) -> None:
        with service_errors():
            await self._stub(address).StartActor(request, timeout=START_DEADLINE_S)

    async def stop_worker(self, address: str, request: raylet_pb2.StopWorkerRequest) -> None:
        with service_errors():
            await self._stub(address).StopWorker(request, timeout=STOP_DEADLINE_S)

    async def end_job(self, address: str, job_id: JobID, keep_actor_ids: list[bytes]) -> None:
        request = raylet_pb2.EndJobRequest(job_id=job_id, keep_actor_ids=keep_actor_ids)
        with service_errors():
            await self._stub(address).EndJob(request, timeout=STOP_DEADLINE_S)

    async def prepare_bundles(self, address: str, request: raylet_pb2.PrepareBundlesRequest) -> None:
        with service_errors():
            await self._stub(address).PrepareBundles(request, timeout=BUNDLES_DEADLINE_S)

    async def commit_bundles(self, address: str, request: raylet_pb2.CommitBundlesRequest) -> None:
        with service_errors():
            await self._stub(address).CommitBundles(request, timeout=BUNDLES_DEADLINE_S)

    async def return_bundles(self, address: str, request: raylet_pb2.ReturnBundlesRequest) -> None:
        with service_errors():
            await self._stub(address).ReturnBundles(request, timeout=BUNDLES_DEADLINE_S)

    async def check_health(self, address: str) -> str:
        """Why the raylet is not healthy, or ""."""
        stub = health_pb2_grpc.HealthStub(self._channel(address))
        try:
            with service_errors():
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_DEADLINE_S)
        except ServiceError as error:
            return f"{type(error).__name__}: {error}"
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            return f"it is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"
        return ""

    async def forget(self, address: str) -> None:
        """The raylet is gone: calls under way are cancelled."""
        self._stubs.pop(address, None)
        channel = self._channels.pop(address, None)
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        await asyncio.gather(*(self.forget(address) for address in list(self._channels)))

    def _stub(self, address: str) -> RayletServiceAsyncStub:
        stub = self._stubs.get(address)
        if stub is None:
            stub = self._stubs[address] = RayletServiceStub(self._channel(address))
        return stub

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = aio_channel(address, self._token, tls=self._tls)
        return channel


async def insist(address_of: Callable[[], str], tell: Callable[[str], Awaitable[None]]) -> ServiceError | None:
    """Tell a raylet something until it has heard, or ``address_of`` is empty: its node is dead, and what was on it.

    Returns why it has still not heard after several tries: its node is left to prove that it lives.
    """
    problem: ServiceError | None = None
    for pause_s in (0.0, *INSIST_PAUSES_S):
        await asyncio.sleep(pause_s)
        address = address_of()
        if not address:
            return None
        try:
            await tell(address)
            return None
        except ServiceError as error:
            problem = error
    return problem


class Schedulers:
    """The replicas of the scheduler; the one that answered last is asked first."""

    def __init__(self, token: str, tls: Tls | None, addresses: tuple[str, ...]) -> None:
        self._token = token
        self._tls = tls
        self._addresses = list(addresses)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[str, SchedulerServiceAsyncStub] = {}

    async def pick_node(self, request: scheduler_pb2.PickNodeRequest) -> scheduler_pb2.PickNodeResponse:
        """Raises: ServiceError; ``Unavailable`` when no replica answers."""
        problems: list[str] = []
        for address in list(self._addresses):
            if address not in self._stubs:
                self._channels[address] = aio_channel(address, self._token, tls=self._tls)
                self._stubs[address] = SchedulerServiceStub(self._channels[address])
            try:
                with service_errors():
                    return await self._stubs[address].PickNode(request, timeout=PICK_DEADLINE_S)
            except (Unavailable, DeadlineExceeded) as error:
                problems.append(f"{address}: {error}")
                if self._addresses and self._addresses[0] == address:
                    self._addresses.append(self._addresses.pop(0))
        raise Unavailable("no scheduler answers: " + ("; ".join(problems) or "no address is configured"))

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
