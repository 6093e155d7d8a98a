"""ActorService: protobuf in, protobuf out."""

from __future__ import annotations

from typing import Any

import grpc.aio

from shoal_gcs.actors.manager import ActorManager
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


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

    async def ListWaitingActors(
        self, request: pb.ListWaitingActorsRequest, context: Context
    ) -> pb.ListWaitingActorsResponse:
        return pb.ListWaitingActorsResponse(waiting=self._actors.waiting())

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

    async def NoteCheckpoint(self, request: pb.NoteCheckpointRequest, context: Context) -> pb.NoteCheckpointResponse:
        await self._actors.note_checkpoint(request.actor_id, request.incarnation)
        return pb.NoteCheckpointResponse()
