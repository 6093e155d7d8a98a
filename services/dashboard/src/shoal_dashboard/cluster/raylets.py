"""The raylets of a cluster, asked all at once: who does not answer in time is left out, and named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc.aio

from shoal_common.errors import ServiceError
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_common.tls import Tls
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import raylet_pb2
from shoal_proto.v1.raylet_pb2_grpc import RayletServiceStub

if TYPE_CHECKING:  # this class is in the stub file only
    from shoal_proto.v1.raylet_pb2_grpc import RayletServiceAsyncStub

#: Of one call to a raylet, in seconds.
DEADLINE_S = 5.0
#: A log may be followed for so long, in seconds.
FOLLOWED_S = 24 * 3600.0
#: Raylets that are asked at a time.
AT_ONCE = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """Of the nodes that live."""

    given: list[tuple[pb.NodeInfo, T]]
    #: Those that did not answer, and why.
    missing: list[tuple[pb.NodeInfo, str]]
    #: When they were asked, in seconds since 1970.
    asked_at: float

    @property
    def warning(self) -> str:
        """For humans; empty = all have answered."""
        if not self.missing:
            return ""
        node, reason = self.missing[0]
        return (
            f"{len(self.missing)} of {len(self.given) + len(self.missing)} nodes did not answer, so what is there is "
            f"not listed: {node.host} ({node.node_id.hex()}): {reason}"
        )


class Raylets:
    """Belongs to one event loop. One channel to each node that lives."""

    def __init__(self, token: str, tls: Tls | None) -> None:
        self._token = token
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(
        self, nodes: Sequence[pb.NodeInfo], call: Callable[[RayletServiceAsyncStub], Awaitable[T]]
    ) -> Answers[T]:
        """``nodes``: all there are; those that are dead are not asked."""
        living = [node for node in nodes if node.state != pb.NODE_STATE_DEAD]
        await self._forget_others({node.raylet_address for node in living})
        return await self._all(living, call)

    async def ask_one(self, node: pb.NodeInfo, call: Callable[[RayletServiceAsyncStub], Awaitable[T]]) -> Answers[T]:
        return await self._all([node], call)

    async def list_logs(self, node: pb.NodeInfo, pattern: str) -> Sequence[raylet_pb2.LogFile]:
        """Raises: ServiceError."""
        raylet = RayletServiceStub(self._channel(node.raylet_address))
        with service_errors():
            return (await raylet.ListLogs(raylet_pb2.ListLogsRequest(pattern=pattern))).files

    async def read_log(self, node: pb.NodeInfo, request: raylet_pb2.ReadLogRequest) -> AsyncGenerator[bytes, None]:
        """As the node's raylet sends it, until the reader leaves. Raises: ServiceError."""
        with service_errors():
            call = RayletServiceStub(self._channel(node.raylet_address)).ReadLog(request, timeout=FOLLOWED_S)
            try:
                async for piece in call:
                    yield piece.data
            finally:
                call.cancel()

    async def explain_wait(self, node: pb.NodeInfo, request: raylet_pb2.ExplainWaitRequest) -> str:
        """Raises: ServiceError."""
        async with self._turns:
            with service_errors():
                return (await RayletServiceStub(self._channel(node.raylet_address)).ExplainWait(request)).text

    async def profile(self, node: pb.NodeInfo, request: raylet_pb2.ProfileRequest, within_s: float) -> bytes:
        """Raises: ServiceError."""
        with service_errors():
            call = RayletServiceStub(self._channel(node.raylet_address)).Profile(request, timeout=within_s)
            try:
                return b"".join([piece.data async for piece in call])
            finally:
                call.cancel()  # nobody is looked into for nobody

    async def close(self) -> None:
        await self._forget_others(set())

    async def _all(
        self, nodes: Sequence[pb.NodeInfo], call: Callable[[RayletServiceAsyncStub], Awaitable[T]]
    ) -> Answers[T]:
        asked_at = time.time()
        answers = await asyncio.gather(*(self._one(node, call) for node in nodes))
        pairs = list(zip(nodes, answers, strict=True))
        return Answers(
            [(node, answer) for node, answer in pairs if not isinstance(answer, ServiceError)],
            [(node, str(answer)) for node, answer in pairs if isinstance(answer, ServiceError)],
            asked_at,
        )

    async def _one(self, node: pb.NodeInfo, call: Callable[[RayletServiceAsyncStub], Awaitable[T]]) -> T | ServiceError:
        channel = self._channel(node.raylet_address)
        async with self._turns:
            try:
                with service_errors():
                    return await call(RayletServiceStub(channel))
            except ServiceError as error:
                return error

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = aio_channel(address, self._token, DEADLINE_S, tls=self._tls)
        return self._channels[address]

    async def _forget_others(self, addresses: set[str]) -> None:
        gone = [self._channels.pop(address) for address in set(self._channels) - addresses]
        await asyncio.gather(*(channel.close() for channel in gone))
