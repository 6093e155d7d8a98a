"""What the dashboard knows of its cluster: read from the GCS and the raylets when somebody asks.

Nobody who does not look costs the cluster anything, and those who do share what is read (`Listing`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc.aio

from shoal_common.blob.client import BlobClient
from shoal_common.errors import NO_ANSWER, NotFound, ServiceError
from shoal_common.rpc.client import aio_channel, retrying, service_errors
from shoal_dashboard.cluster.announcement import announce
from shoal_dashboard.cluster.listing import Listing
from shoal_dashboard.cluster.raylets import Answers, Raylets
from shoal_dashboard.config import DashboardConfig
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc
from shoal_proto.v1 import raylet_pb2, settings_pb2
from shoal_proto.v1.settings_pb2_grpc import SettingsServiceStub

if TYPE_CHECKING:  # this class is in the stub file only
    from shoal_proto.v1.raylet_pb2_grpc import RayletServiceAsyncStub

#: Of one call to the GCS, in seconds.
DEADLINE_S = 10.0
#: Of the question what a service runs with, in seconds.
SETTINGS_DEADLINE_S = 2.0

#: Objects that are told of all nodes together, about; of a node not fewer than ``LEAST_OBJECTS``, its newest.
MAX_OBJECTS, LEAST_OBJECTS = 200_000, 100

T = TypeVar("T")


class Cluster:
    """Belongs to one event loop. All that reads raises: Unavailable, DeadlineExceeded (the GCS does not answer, the
    first time after some seconds of trying), Unauthenticated.

    What is read is as it was after the question. Who gives ``patience_s`` waits no longer than that for what takes long
    to read, and gets what was read last (`Listing.recent`)."""

    def __init__(self, config: DashboardConfig) -> None:
        self._config = config
        #: Why the GCS did not answer when it was asked last, while it may be asked again; None = it did.
        self.away: ServiceError | None = None
        #: It was asked again and again for some seconds, in vain; since then each question is asked once.
        self._given_up = False
        self._channel = channel = aio_channel(config.gcs_address, config.token, DEADLINE_S, tls=config.tls)
        nodes, jobs = rpc.NodeServiceStub(channel), rpc.JobServiceStub(channel)
        actors, groups = rpc.ActorServiceStub(channel), rpc.PlacementGroupServiceStub(channel)

        async def list_nodes() -> Sequence[pb.NodeInfo]:
            return (await nodes.ListNodes(pb.ListNodesRequest())).nodes

        async def list_jobs() -> Sequence[pb.JobInfo]:
            return (await jobs.ListJobs(pb.ListJobsRequest())).jobs

        async def list_actors() -> Sequence[pb.ActorInfo]:
            return (await actors.ListActors(pb.ListActorsRequest())).actors

        async def list_groups() -> Sequence[pb.PlacementGroupInfo]:
            return (await groups.ListPlacementGroups(pb.ListPlacementGroupsRequest())).groups

        async def get_cluster() -> pb.GetClusterResponse:
            return await nodes.GetCluster(pb.GetClusterRequest())

        self._about = Listing(self._asked(get_cluster))
        self._nodes = Listing(self._asked(list_nodes))
        self._jobs = Listing(self._asked(list_jobs))
        self._actors = Listing(self._asked(list_actors))
        self._groups = Listing(self._asked(list_groups))
        self.raylets = Raylets(config.token, config.tls)

        async def get_stats() -> Answers[raylet_pb2.GetStatsResponse]:
            return await self.raylets.ask(await self.nodes(), _stats)

        async def list_objects() -> Answers[raylet_pb2.ListObjectsResponse]:
            nodes = await self.nodes()
            limit = max(LEAST_OBJECTS, min(MAX_OBJECTS // max(1, len(nodes)), 10_000))
            request = raylet_pb2.ListObjectsRequest(limit=limit)
            return await self.raylets.ask(nodes, lambda raylet: raylet.ListObjects(request))

        self._blobs: tuple[BlobClient, grpc.aio.Channel] | None = None
        self._stats = Listing(get_stats)
        self._objects = Listing(list_objects)

    def _asked(self, ask: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """With our errors, and again when the GCS does not answer at once: another one may be taking over."""

        async def once() -> T:
            try:
                with service_errors():
                    answer = await ask()
            except NO_ANSWER as error:
                self.away = error
                raise
            self.away, self._given_up = None, False
            return answer

        async def again() -> T:
            if self._given_up:
                return await once()
            try:
                return await retrying(once)
            except NO_ANSWER:
                self._given_up = True
                raise

        return again

    async def announce(self, url: str) -> None:
        """Tell the cluster where its dashboard is, until this is cancelled."""
        await announce(self._channel, url)

    async def about(self) -> pb.GetClusterResponse:
        """Its names and addresses."""
        return await self._about.rows()

    async def blobs(self) -> BlobClient:
        """Raises also: NotFound: the cluster has no store of blobs."""
        about = await self.about()
        if not about.objectstore_addresses:
            raise NotFound("this cluster has no objectstore service, in which logs are kept")
        if self._blobs is None:
            address = ",".join(about.objectstore_addresses)
            channel = aio_channel(address, self._config.token, tls=self._config.tls)
            self._blobs = BlobClient(channel), channel
        return self._blobs[0]

    async def nodes(self, patience_s: float = math.inf) -> Sequence[pb.NodeInfo]:
        """Dead ones, too."""
        return await _read(self._nodes, patience_s)

    async def jobs(self) -> Sequence[pb.JobInfo]:
        """In the order they began."""
        return await self._jobs.rows()

    async def actors(self) -> Sequence[pb.ActorInfo]:
        """Newest first."""
        return await self._actors.rows()

    async def placement_groups(self) -> Sequence[pb.PlacementGroupInfo]:
        """In the order of their creation, removed ones too."""
        return await self._groups.rows()

    async def stats(self, patience_s: float = math.inf) -> Answers[raylet_pb2.GetStatsResponse]:
        """Of each node that lives: its workers, its store, its runtime environments."""
        return await _read(self._stats, patience_s)

    async def stats_of(self, node: pb.NodeInfo) -> Answers[raylet_pb2.GetStatsResponse]:
        """As ``stats``, of one node that lives, which alone is asked."""
        return await self.raylets.ask_one(node, _stats)

    async def objects(self, patience_s: float = math.inf) -> Answers[raylet_pb2.ListObjectsResponse]:
        """Of each node that lives, its newest objects."""
        return await _read(self._objects, patience_s)

    async def settings_at(self, addresses: Sequence[str]) -> list[settings_pb2.GetSettingsResponse | str]:
        """What the services at these run with, or why one does not say."""
        return list(await asyncio.gather(*map(self._settings_at, addresses)))

    async def _settings_at(self, address: str) -> settings_pb2.GetSettingsResponse | str:
        channel = aio_channel(address, self._config.token, SETTINGS_DEADLINE_S, tls=self._config.tls)
        try:
            with service_errors():
                return await SettingsServiceStub(channel).GetSettings(settings_pb2.GetSettingsRequest())
        except ServiceError as error:
            return str(error)
        finally:
            await channel.close()

    async def close(self) -> None:
        listings = (self._about, self._nodes, self._jobs, self._actors, self._groups, self._stats, self._objects)
        await asyncio.gather(*(listing.close() for listing in listings))
        if self._blobs is not None:
            client, channel = self._blobs
            await client.close()
            await channel.close()
        await self.raylets.close()
        await self._channel.close()


def _stats(raylet: RayletServiceAsyncStub) -> Awaitable[raylet_pb2.GetStatsResponse]:
    return raylet.GetStats(raylet_pb2.GetStatsRequest())


async def _read(listing: Listing[T], patience_s: float) -> T:
    return await (listing.rows() if patience_s == math.inf else listing.recent(patience_s))
