"""RayletService: protobuf in, protobuf out."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from shoal_common.errors import InvalidRequest, NotFound, ResourceExhausted
from shoal_common.logs.lines import Wanted
from shoal_common.placement.resources import GRAINS, ResourceSet
from shoal_common.placement.strategy import Strategy
from shoal_proto.v1 import common_pb2, raylet_pb2
from shoal_proto.v1.raylet_pb2_grpc import RayletServiceServicer
from shoal_raylet.inspection import Inspection
from shoal_raylet.leases.actor_placement import PlacedActor
from shoal_raylet.node import Node
from shoal_raylet.objects.pins import SELF
from shoal_raylet.workers.log_service import LogService

#: Objects in one answer at most.
MAX_OBJECTS = 10_000
#: Of a profile, in one piece of the answer.
PIECE_BYTES = 1024 * 1024


class RayletServicer(RayletServiceServicer):
    def __init__(self, node: Node, logs: LogService, inspection: Inspection, node_id: bytes) -> None:
        self._node = node
        self._logs = logs
        self._inspection = inspection
        self._node_id = node_id

    async def StartActor(self, request: raylet_pb2.StartActorRequest, context: Any) -> raylet_pb2.StartActorResponse:
        spec = request.spec
        if not spec.actor_id or request.incarnation < 1:
            raise InvalidRequest("StartActor needs an actor_id and an incarnation from 1")
        strategy = Strategy.decode(spec.strategy)
        asked, placement = ResourceSet(spec.held.grains), spec.placement.grains
        need = ResourceSet({name: max(placement[name], asked[name]) for name in {*placement, *asked}})
        actor = PlacedActor(
            actor_id=spec.actor_id,
            incarnation=request.incarnation,
            job_id=spec.job_id,
            class_name=spec.class_name,
            creation=spec.creation,
            detached=spec.detached,
            held=strategy.needed(asked),
            asked=asked,
            strategy=spec.strategy,
            runtime_env=spec.runtime_env,
            memory_limit=asked["memory"] // GRAINS if spec.enforce_memory else 0,
            checkpoints=spec.checkpoints,
        )
        if lacking := self._node.start_actor(actor, strategy.needed(need)):
            raise ResourceExhausted(lacking)
        return raylet_pb2.StartActorResponse()

    async def StopWorker(self, request: raylet_pb2.StopWorkerRequest, context: Any) -> raylet_pb2.StopWorkerResponse:
        if not request.worker_id and not request.actor_id:
            raise InvalidRequest("StopWorker needs a worker_id or an actor_id")
        self._node.stop_worker(request.worker_id, request.actor_id, request.force, request.reason)
        return raylet_pb2.StopWorkerResponse()

    async def EndJob(self, request: raylet_pb2.EndJobRequest, context: Any) -> raylet_pb2.EndJobResponse:
        if not request.job_id:
            raise InvalidRequest("EndJob needs a job_id")
        self._node.end_job(request.job_id, set(request.keep_actor_ids))
        return raylet_pb2.EndJobResponse()

    async def PrepareBundles(
        self, request: raylet_pb2.PrepareBundlesRequest, context: Any
    ) -> raylet_pb2.PrepareBundlesResponse:
        if not request.group_id or not request.reservation:
            raise InvalidRequest("PrepareBundles needs a group_id and a reservation")
        wanted = {bundle.index: ResourceSet(bundle.resources.grains) for bundle in request.bundles}
        if lacking := self._node.prepare_bundles(request.group_id, request.reservation, wanted):
            raise ResourceExhausted(lacking)
        return raylet_pb2.PrepareBundlesResponse()

    async def CommitBundles(
        self, request: raylet_pb2.CommitBundlesRequest, context: Any
    ) -> raylet_pb2.CommitBundlesResponse:
        if not self._node.commit_bundles(request.group_id, request.reservation):
            raise NotFound(f"reservation {request.reservation.hex()} is not held here: it was given up, or never made")
        return raylet_pb2.CommitBundlesResponse()

    async def ReturnBundles(
        self, request: raylet_pb2.ReturnBundlesRequest, context: Any
    ) -> raylet_pb2.ReturnBundlesResponse:
        self._node.return_bundles(request.group_id, request.reservation, request.reason)
        return raylet_pb2.ReturnBundlesResponse()

    async def SetAside(self, request: raylet_pb2.SetAsideRequest, context: Any) -> raylet_pb2.SetAsideResponse:
        if not request.group_id:
            raise InvalidRequest("SetAside needs a group_id")
        self._node.set_aside(request.group_id, ResourceSet(request.resources.grains), request.for_ms / 1000)
        return raylet_pb2.SetAsideResponse()

    async def GetStats(self, request: raylet_pb2.GetStatsRequest, context: Any) -> raylet_pb2.GetStatsResponse:
        node = self._node
        index = node.store.index
        return raylet_pb2.GetStatsResponse(
            node_id=self._node_id,
            total=common_pb2.ResourceAmounts(grains=node.ledger.total.grains),
            available=common_pb2.ResourceAmounts(grains=node.ledger.available.grains),
            workers=[
                raylet_pb2.WorkerStats(
                    worker_id=worker.worker_id,
                    pid=worker.pid,
                    state=worker.state.value,
                    actor_id=worker.actor_id,
                    name=worker.name,
                    job_id=worker.job_id,
                )
                for worker in node.workers()
            ],
            queued_leases=node.leases.queued,
            store_bytes=index.allocator.capacity,
            store_used_bytes=index.allocator.used,
            store_objects=index.count,
            spilled_bytes=index.spilled_bytes,
            restored_bytes=index.restored_bytes,
            environments=self._environments(),
        )

    async def ListLogs(self, request: raylet_pb2.ListLogsRequest, context: Any) -> raylet_pb2.ListLogsResponse:
        files = await self._logs.list(request.pattern)
        return raylet_pb2.ListLogsResponse(
            files=[raylet_pb2.LogFile(name=f.name, size=f.size, modified_unix_ms=f.modified_unix_ms) for f in files]
        )

    async def ReadLog(
        self, request: raylet_pb2.ReadLogRequest, context: Any
    ) -> AsyncIterator[raylet_pb2.ReadLogResponse]:
        wanted = Wanted(request.task_id, request.attempt - 1 if request.attempt else None, request.actor_id)
        lines = self._logs.read(
            request.file,
            wanted,
            stderr=request.stderr,
            last=request.last_lines,
            follow=request.follow,
            fields=request.json,
        )
        async for data in lines:
            yield raylet_pb2.ReadLogResponse(data=data)

    async def Profile(
        self, request: raylet_pb2.ProfileRequest, context: Any
    ) -> AsyncIterator[raylet_pb2.ProfileResponse]:
        look, pid, seconds, native = self._inspection, request.pid, request.seconds, request.native
        if request.kind == raylet_pb2.PROFILE_KIND_STACKS:
            found = await look.stacks(pid, native=native)
        elif request.kind == raylet_pb2.PROFILE_KIND_CPU:
            found = await look.cpu(pid, seconds, native=native, idle=request.idle)
        elif request.kind == raylet_pb2.PROFILE_KIND_MEMORY:
            found = await look.memory(pid, seconds, native=native, leaks=request.leaks)
        else:
            raise InvalidRequest("Profile needs a kind")
        for start in range(0, len(found), PIECE_BYTES):
            yield raylet_pb2.ProfileResponse(data=found[start : start + PIECE_BYTES])

    async def ExplainWait(self, request: raylet_pb2.ExplainWaitRequest, context: Any) -> raylet_pb2.ExplainWaitResponse:
        if request.object_id:
            text = await self._inspection.waits(object_id=request.object_id)
        elif (actor := self._node.actors.get(request.actor_id)) is None:
            raise NotFound(f"actor {request.actor_id.hex()} is not on this node (any more)")
        elif actor.worker_id in self._node.peers:
            text = await self._inspection.waits(worker_id=actor.worker_id)
        else:
            text = "It waits for a worker process."
        return raylet_pb2.ExplainWaitResponse(text=text)

    def _environments(self) -> list[raylet_pb2.EnvironmentStats]:
        environments = self._node.environments
        used = Counter(worker.environment for worker in self._node.workers())
        made = [
            raylet_pb2.EnvironmentStats(document=document, ready=True, workers=used[key])
            for key, document in environments.made.items()
        ]
        failed = [
            raylet_pb2.EnvironmentStats(document=document, error=reason)
            for document, reason in environments.failures.items()
        ]
        return made + failed

    async def ListObjects(self, request: raylet_pb2.ListObjectsRequest, context: Any) -> raylet_pb2.ListObjectsResponse:
        index = self._node.store.index
        objects = [
            raylet_pb2.ObjectStats(
                object_id=entry.object_id,
                size_bytes=entry.size,
                owner_id=entry.owner,
                sealed=entry.sealed,
                in_memory=entry.offset is not None and not entry.path,
                spilled=entry.blob is not None,
                secondary=bool(entry.home),
                pins=sum(count for peer, count in entry.pins.items() if peer != SELF),
            )
            for entry in index.newest(min(request.limit or MAX_OBJECTS, MAX_OBJECTS))
        ]
        return raylet_pb2.ListObjectsResponse(objects=objects, total=index.count)
