"""The raylets, as the GCS calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from shoal_common.errors import ServiceError, Unavailable
from shoal_common.ids import JobID
from shoal_common.rpc.client import aio_channel, retrying, service_errors
from shoal_common.rpc.retry import RetryPolicy
from shoal_common.tls import Tls
from shoal_proto.v1 import raylet_pb2
from shoal_proto.v1.raylet_pb2_grpc import RayletServiceStub

if TYPE_CHECKING:  # this class is in the stub files only
    from shoal_proto.v1.raylet_pb2_grpc import RayletServiceAsyncStub

#: Starting a process answers when it is begun, not when it is done.
START_DEADLINE_S = 10.0
STOP_DEADLINE_S = 5.0
BUNDLES_DEADLINE_S = 5.0
#: With the usual settings a node is dead 4.8 s after its last heartbeat: 1.5 s, and two checks half a second apart. One
#: that hangs for 3 s, a second after a heartbeat, still answers the last check.
HEALTH_DEADLINE_S = 1.4
#: Of telling a raylet what it has to hear: for about ten seconds.
_INSIST = RetryPolicy(attempts=8, initial_s=0.2, maximum_s=5.0)


@contextmanager
def _calling() -> Iterator[None]:
    """As `service_errors`, also when the raylet is forgotten during the call. gRPC tells that as a cancellation, which
    would end the caller's task without a word."""
    try:
        with service_errors():
            yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unavailable("its node is gone") from None


class Raylets:
    """One channel for each raylet that was called, by address. All calls raise ``ServiceError``."""

    def __init__(self, token: str, tls: Tls | None) -> None:
        self._token = token
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[str, RayletServiceAsyncStub] = {}

    async def start_actor(self, address: str, request: raylet_pb2.StartActorRequest) -> None:
        with _calling():
            await self._stub(address).StartActor(request, timeout=START_DEADLINE_S)

    async def stop_worker(self, address: str, request: raylet_pb2.StopWorkerRequest) -> None:
        with _calling():
            await self._stub(address).StopWorker(request, timeout=STOP_DEADLINE_S)

    async def end_job(self, address: str, job_id: JobID, keep_actor_ids: list[bytes]) -> None:
        request = raylet_pb2.EndJobRequest(job_id=job_id, keep_actor_ids=keep_actor_ids)
        with _calling():
            await self._stub(address).EndJob(request, timeout=STOP_DEADLINE_S)

    async def prepare_bundles(self, address: str, request: raylet_pb2.PrepareBundlesRequest) -> None:
        with _calling():
            await self._stub(address).PrepareBundles(request, timeout=BUNDLES_DEADLINE_S)

    async def commit_bundles(self, address: str, request: raylet_pb2.CommitBundlesRequest) -> None:
        with _calling():
            await self._stub(address).CommitBundles(request, timeout=BUNDLES_DEADLINE_S)

    async def return_bundles(self, address: str, request: raylet_pb2.ReturnBundlesRequest) -> None:
        with _calling():
            await self._stub(address).ReturnBundles(request, timeout=BUNDLES_DEADLINE_S)

    async def set_aside(self, address: str, request: raylet_pb2.SetAsideRequest) -> None:
        with _calling():
            await self._stub(address).SetAside(request, timeout=BUNDLES_DEADLINE_S)

    async def check_health(self, address: str) -> str:
        """Why the raylet is not healthy, or ""."""
        stub = health_pb2_grpc.HealthStub(self._channel(address))
        try:
            with _calling():
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
    try:
        await retrying(lambda: tell(address_of()), _INSIST, until=lambda: not address_of(), on=(ServiceError,))
    except ServiceError as problem:
        return problem
    return None
