"""Protobuf in, protobuf out; nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from shoal_common.bus import EventBus, EventBusError
from shoal_common.bus.memory import EventQueue
from shoal_common.bus.subjects import check_subject, matcher
from shoal_common.errors import InvalidRequest, Unavailable
from shoal_gcs.actors import messages
from shoal_gcs.actors.manager import ActorManager
from shoal_gcs.jobs.functions import FunctionTable
from shoal_gcs.jobs.manager import JobManager
from shoal_gcs.jobs.table import JobTable
from shoal_gcs.nodes.manager import NodeManager
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class JobServicer(rpc.JobServiceServicer):
    def __init__(self, jobs: JobManager, table: JobTable, cluster_id: str, session_name: str) -> None:
        self._jobs = jobs
        self._table = table
        self._cluster_id = cluster_id
        self._session_name = session_name

    async def StartJob(self, request: pb.StartJobRequest, context: Context) -> pb.StartJobResponse:
        job = await self._jobs.start(
            request.driver_id,
            request.namespace,
            request.pid,
            request.entrypoint,
            request.metadata,
            request.node_id,
        )
        return pb.StartJobResponse(
            job_id=job.job_id, namespace=job.namespace, cluster_id=self._cluster_id, session_name=self._session_name
        )

    async def FinishJob(self, request: pb.FinishJobRequest, context: Context) -> pb.FinishJobResponse:
        await self._jobs.finish(request.job_id)
        return pb.FinishJobResponse()

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        return pb.ListJobsResponse(jobs=[messages.job_info(job) for job in self._table.all()])


class NodeServicer(rpc.NodeServiceServicer):
    def __init__(self, nodes: NodeManager, actors: ActorManager, cluster: pb.GetClusterResponse) -> None:
        self._nodes = nodes
        self._actors = actors
        self._cluster = cluster

    async def GetCluster(self, request: pb.GetClusterRequest, context: Context) -> pb.GetClusterResponse:
        return self._cluster

    async def RegisterNode(self, request: pb.RegisterNodeRequest, context: Context) -> pb.RegisterNodeResponse:
        await self._nodes.register(request.node)
        return pb.RegisterNodeResponse(cluster_id=self._cluster.cluster_id)

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Context) -> pb.DrainNodeResponse:
        await self._nodes.drain(request.node_id, request.reason)
        return pb.DrainNodeResponse()

    async def UnregisterNode(self, request: pb.UnregisterNodeRequest, context: Context) -> pb.UnregisterNodeResponse:
        await self._nodes.unregister(request.node_id, request.reason)
        return pb.UnregisterNodeResponse()

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        return pb.ListNodesResponse(nodes=self._nodes.list_nodes())

    async def ReportWorkerDeath(
        self, request: pb.ReportWorkerDeathRequest, context: Context
    ) -> pb.ReportWorkerDeathResponse:
        await self._actors.worker_died(request)
        return pb.ReportWorkerDeathResponse()


class ActorServicer(rpc.ActorServiceServicer):
    def __init__(self, actors: ActorManager) -> None:
        self._actors = actors

    async def CreateActor(self, request: pb.CreateActorRequest, context: Context) -> pb.CreateActorResponse:
        await self._actors.create(request.spec)
        return pb.CreateActorResponse()

    async def WaitActor(self, request: pb.WaitActorRequest, context: Context) -> pb.WaitActorResponse:
        info = await self._actors.wait(request.actor_id, request.known_version, request.wait_ms)
        return pb.WaitActorResponse(actor=info)

    async def GetNamedActor(self, request: pb.GetNamedActorRequest, context: Context) -> pb.GetNamedActorResponse:
        info, handle = await self._actors.get_named(request.name, request.namespace)
        return pb.GetNamedActorResponse(actor=info, handle=handle)

    async def ListActors(self, request: pb.ListActorsRequest, context: Context) -> pb.ListActorsResponse:
        return pb.ListActorsResponse(actors=self._actors.list_actors(request.named_only, request.namespace))

    async def KillActor(self, request: pb.KillActorRequest, context: Context) -> pb.KillActorResponse:
        await self._actors.kill(request.actor_id, request.no_restart)
        return pb.KillActorResponse()

    async def ReleaseActor(self, request: pb.ReleaseActorRequest, context: Context) -> pb.ReleaseActorResponse:
        await self._actors.release(request.actor_id)
        return pb.ReleaseActorResponse()

    async def ReportActorStarted(
        self, request: pb.ReportActorStartedRequest, context: Context
    ) -> pb.ReportActorStartedResponse:
        await self._actors.report_started(request)
        return pb.ReportActorStartedResponse()


class FunctionServicer(rpc.FunctionServiceServicer):
    def __init__(self, functions: FunctionTable) -> None:
        self._functions = functions

    async def PutFunction(self, request: pb.PutFunctionRequest, context: Context) -> pb.PutFunctionResponse:
        await self._functions.put(request.job_id, request.function_id, request.data)
        return pb.PutFunctionResponse()

    async def GetFunction(self, request: pb.GetFunctionRequest, context: Context) -> pb.GetFunctionResponse:
        return pb.GetFunctionResponse(data=await self._functions.get(request.function_id, request.wait_ms))


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
