"""What is left of a job after its end: nothing but its row, and those of its dead actors and removed groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
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


@dataclass
class Remains:
    """Looks at a deployment from outside."""

    #: Statistics of each node's raylet.
    nodes: dict[str, Callable[[], raylet_pb2.GetStatsResponse]]
    #: Every key in etcd, and its value.
    keys: Callable[[], list[str]]
    value: Callable[[str], bytes | None]
    #: Keys of the blobs below a prefix.
    blobs: Callable[[str], list[str]]
    #: Of each client of NATS: the subjects it has subscribed.
    subscriptions: Callable[[], list[str]]
    #: Those without any job.
    usual_subscriptions: Sequence[str]

    def check(self, job_id: str) -> None:
        """After the end of a job; ``job_id`` in hexadecimal. Raises: AssertionError, which names what is left."""
        eventually(lambda: not self.of(job_id), f"nothing is left of job {job_id}: {self.of(job_id)}")

    def of(self, job_id: str) -> list[str]:
        """Everything that is still there."""
        job = bytes.fromhex(job_id)
        found = []
        for name, stats in self.nodes.items():
            try:
                said = stats()
            except grpc.RpcError as error:
                found.append(f"no answer from {name}: {error.code()}")
                continue
            found += [
                f"process {worker.pid} {command(worker.pid)!r} on {name}"
                for worker in said.workers
                if worker.job_id == job and alive(worker.pid)
            ]
            if said.store_objects:
                found.append(f"{said.store_objects} objects, {said.store_used_bytes:,} bytes in the store of {name}")
            if said.available != said.total:
                found.append(f"resources of {name}: {said.available.grains} of {said.total.grains} are free")
        for key in self.keys():
            table, _, row_id = key.split("/", 3)[3].partition("/")
            if job_id in row_id and not _ENDED.get(table, lambda row: False)(self.value(key) or b""):
                found.append(f"key {key}")
        found += [f"blob {key}" for prefix in ("spill/", "checkpoint/") for key in self.blobs(prefix) if job_id in key]
        found += [f"subscription of {subject}" for subject in self._new_subscriptions()]
        return found

    def _new_subscriptions(self) -> list[str]:
        return sorted((Counter(self.subscriptions()) - Counter(self.usual_subscriptions)).elements())
