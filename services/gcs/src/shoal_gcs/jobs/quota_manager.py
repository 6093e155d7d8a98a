"""Quotas of jobs: the shell of ``quotas``, with their rows and what raylets ask.

Actors and placement groups that live on from earlier drivers of a named job count with the job of its last driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from shoal_common.errors import NotFound, PreconditionFailed
from shoal_common.placement.resources import ResourceSet
from shoal_common.rpc.values import amounts, resource_set
from shoal_gcs.jobs.quotas import Allowance, Quota
from shoal_gcs.jobs.table import Job
from shoal_gcs.nodes.table import NodeTable
from shoal_gcs.store.rows import Rows, message, written
from shoal_proto.v1 import gcs_pb2


class QuotaManager:
    """Of a job without a quota it knows what its actors and groups hold: the next driver of its name may have one."""

    def __init__(self, *, rows: Rows, nodes: NodeTable) -> None:
        self._rows = rows
        self._nodes = nodes
        self._quotas: dict[bytes, Quota] = {}
        #: What actors and placement groups hold, by the job that made them.
        self._held: dict[bytes, dict[bytes, ResourceSet]] = {}
        #: The job with which those of an earlier one count.
        self._charged: dict[bytes, bytes] = {}

    async def load(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.begin(job)
        for row in await self._rows.load(message(gcs_pb2.AllowanceRow, lambda row: row.job_id.hex())):
            if (quota := self._quotas.get(row.job_id)) is not None:
                quota.load(
                    {
                        each.node_id: Allowance(each.incarnation, each.number, resource_set(each.granted))
                        for each in row.nodes
                    }
                )
            else:
                self._rows.delete(row.job_id.hex())

    def begin(self, job: Job) -> None:
        """Idempotent."""
        if job.quota is not None:
            self._quotas.setdefault(job.job_id, Quota(job.quota))

    async def ask(self, request: gcs_pb2.AskAllowanceRequest) -> gcs_pb2.AskAllowanceResponse:
        """Raises: NotFound, PreconditionFailed, Unavailable."""
        quota = self._quotas.get(request.job_id)
        if quota is None:
            raise NotFound(f"job {request.job_id.hex()} is over, or has no quota")
        if not self._nodes.is_alive(request.node_id, request.incarnation):
            raise PreconditionFailed(f"node {request.node_id.hex()} is not alive")
        before = quota.allowances.get(request.node_id)
        wants = [resource_set(each) for each in request.wants]
        keeps = resource_set(request.keeps)
        answer = quota.ask(request.node_id, request.incarnation, request.number, keeps, wants, self._now())
        if answer is None:
            raise PreconditionFailed(f"question {request.number} was overtaken, or is a repeat")
        if answer.granted != (before.granted if before is not None else ResourceSet()):
            await written([self._save(request.job_id)])
        return gcs_pb2.AskAllowanceResponse(
            granted=amounts(answer.granted),
            left=amounts(answer.left),
            for_tasks=amounts(answer.for_tasks),
            asked_back=amounts(answer.asked_back),
        )

    def goes_on(self, job_id: bytes, earlier: Iterable[bytes]) -> None:
        """What these jobs have left counts with this one from now on, also where it is more than that may hold: then
        nothing else of it begins. Idempotent."""
        for each in earlier:
            if self._charged.get(each, each) != job_id:
                self._charge(each, job_id)

    def take(self, job_id: bytes, holder: bytes, resources: ResourceSet) -> bool:
        """An actor or a placement group is to hold so much; False = its job may not hold as much now."""
        quota = self._quota_for(job_id)
        if quota is not None and not quota.take(holder, resources, self._now()):
            return False
        self._note(job_id, holder, resources)
        return True

    def holds(self, job_id: bytes, holder: bytes, resources: ResourceSet) -> None:
        """So much an actor or a placement group holds by now."""
        self._note(job_id, holder, resources)
        if (quota := self._quota_for(job_id)) is not None:
            quota.holds(holder, resources)

    def has_room(self, job_id: bytes, holder: bytes, resources: ResourceSet) -> bool:
        """Whether it could hold so much now."""
        quota = self._quota_for(job_id)
        return quota is None or quota.lacking(holder, resources).fits_in(quota.left)

    def is_waiting(self, job_id: bytes, holder: bytes) -> bool:
        """It waits for what others of its job hold."""
        quota = self._quota_for(job_id)
        return quota is not None and quota.is_waiting(holder)

    def node_died(self, node_id: bytes) -> list[asyncio.Future[None]]:
        """Returns the writes that an answer must wait for."""
        return [self._save(job_id) for job_id, quota in self._quotas.items() if quota.node_died(node_id)]

    def job_unused(self, job_id: bytes) -> None:
        """Nothing of it runs any more. What counted with it counts with the jobs that made it again."""
        for earlier in [each for each, charged in self._charged.items() if charged == job_id]:
            self._charge(earlier, earlier)
        if self._quotas.pop(job_id, None) is not None:
            self._rows.delete(job_id.hex())

    def _quota_for(self, job_id: bytes) -> Quota | None:
        """With which its actors and groups count."""
        return self._quotas.get(self._charged.get(job_id, job_id))

    def _charge(self, earlier: bytes, job_id: bytes) -> None:
        held = self._held.get(earlier, {})
        if (before := self._quota_for(earlier)) is not None:
            for holder in held:
                before.holds(holder, ResourceSet())
        self._charged[earlier] = job_id
        if earlier == job_id:
            del self._charged[earlier]
        if (quota := self._quota_for(earlier)) is not None:
            for holder, resources in held.items():
                quota.holds(holder, resources)

    def _note(self, job_id: bytes, holder: bytes, resources: ResourceSet) -> None:
        if resources:
            self._held.setdefault(job_id, {})[holder] = resources
        elif (held := self._held.get(job_id)) is not None:
            held.pop(holder, None)
            if not held:
                del self._held[job_id]

    def _save(self, job_id: bytes) -> asyncio.Future[None]:
        row = gcs_pb2.AllowanceRow(job_id=job_id)
        for node_id, each in self._quotas[job_id].allowances.items():
            row.nodes.add(
                node_id=node_id, incarnation=each.incarnation, number=each.number, granted=amounts(each.granted)
            )
        return self._rows.put(job_id.hex(), row.SerializeToString())

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
