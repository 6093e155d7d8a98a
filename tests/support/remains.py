"""What is left of jobs after their end: nothing but their rows, and those of their dead actors and removed groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc
from support.processes import alive, command, eventually

from shoal_proto.v1 import gcs_pb2, raylet_pb2

#: Rows of the GCS that outlive a job, up to a number of them, for those who ask: by table, whether one tells of an end.
_ENDED: dict[str, Callable[[bytes], bool]] = {
    "job": lambda row: bool(gcs_pb2.JobInfo.FromString(row).end_unix_ms),
    "actor": lambda row: gcs_pb2.ActorInfo.FromString(row).state == gcs_pb2.ACTOR_STATE_DEAD,
    "placement_group": lambda row: (
        gcs_pb2.PlacementGroupInfo.FromString(row).state == gcs_pb2.PLACEMENT_GROUP_STATE_REMOVED
    ),
}


@dataclass(kw_only=True)
class Remains:
    """Looks at a deployment from outside."""

    #: Statistics of the raylet of each node that runs.
    nodes: Callable[[], Mapping[str, Callable[[], raylet_pb2.GetStatsResponse]]]
    #: Every key of this cluster in its metadata store, without what all have in common, and its value.
    rows: Callable[[], Mapping[str, bytes]]
    #: Keys of the blobs below a prefix.
    blobs: Callable[[str], Iterable[str]]
    #: Of each client of NATS: the subjects it has subscribed.
    subscriptions: Callable[[], Sequence[str]] = list
    #: Those without any job; None: they are not known, and only those that name a job are looked at.
    usual_subscriptions: Sequence[str] | None = None

    def check(self) -> None:
        """After the end of all drivers: nothing is left but detached actors, and what these have. Raises:
        AssertionError, which names what is left."""
        eventually(lambda: not self.found(), lambda: f"nothing is left of jobs that have ended: {self.found()}")

    def found(self) -> list[str]:
        """Everything that is still there."""
        rows = self.rows()
        job_ids, all_over = _jobs(rows)
        found = [f"key {key}" for key, value in rows.items() if _names(key, job_ids) and not _has_ended(key, value)]
        found += self._of_nodes({bytes.fromhex(job_id) for job_id in job_ids}, all_over)
        for prefix in ("spill/", "checkpoint/"):
            found += [f"blob {key}" for key in self.blobs(prefix) if _names(key, job_ids)]
        subscriptions = Counter(self.subscriptions())
        if self.usual_subscriptions is not None:
            new = (subscriptions - Counter(self.usual_subscriptions)).elements()
        else:
            new = (subject for subject in subscriptions if _names(subject, job_ids))
        return found + [f"subscription of {subject}" for subject in sorted(new)]

    def _of_nodes(self, jobs: Collection[bytes], all_over: bool) -> list[str]:
        found = []
        for name, stats in self.nodes().items():
            try:
                said = stats()
            except grpc.RpcError as error:
                found.append(f"no answer from {name}: {error.code()}")
                continue
            found += [
                f"process {worker.pid} {command(worker.pid)!r} on {name}"
                for worker in said.workers
                if worker.job_id in jobs and alive(worker.pid)
            ]
            if all_over and said.store_objects:
                found.append(f"{said.store_objects} objects, {said.store_used_bytes:,} bytes in the store of {name}")
            if all_over and said.available != said.total:
                found.append(f"resources of {name}: {said.available.grains} of {said.total.grains} are free")
        return found


def _jobs(rows: Mapping[str, bytes]) -> tuple[set[str], bool]:
    """Those without detached actors, in hexadecimal; whether that is all of them."""
    ids = {kind: {key for key in rows if key.startswith(f"{kind}/")} for kind in ("job", "actor")}
    detached = {
        actor.job_id.hex()
        for actor in (gcs_pb2.ActorInfo.FromString(rows[key]) for key in ids["actor"])
        if actor.detached and actor.state != gcs_pb2.ACTOR_STATE_DEAD
    }
    return {key.partition("/")[2] for key in ids["job"]} - detached, not detached


def _has_ended(key: str, value: bytes) -> bool:
    return _ENDED.get(key.partition("/")[0], lambda row: False)(value)


def _names(text: str, job_ids: Iterable[str]) -> bool:
    return any(job_id in text for job_id in job_ids)
