"""Which worker ends for its memory: one that uses more than it may, or one of those that fill the node's. Pure.

When the node runs out, the job whose workers grew most gives one up: the newest of those that run a task which may run
again. The oldest goes on and will end, so that a job whose tasks need too much together still gets through. Only who
grew at least half as much as the largest of them is taken: an innocent newcomer's end would give nothing back. Workers
that may not run again, actors among them, go when no other is to blame.

What a worker had when it registered is not its work's fault; nor is what lies in the node's object store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shoal_common.kinds import ExitKind

GIB = 1 << 30
#: Nobody who grew less than this since it registered is to blame, in bytes.
MIN_GROWTH_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NodeMemory:
    used: int
    #: Of the cgroup or of the machine, whichever is nearer to its end.
    limit: int


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    worker_id: bytes
    job_id: bytes
    #: Private memory now, and when the worker registered, in bytes.
    used: int
    baseline: int
    #: When it was given what it runs.
    since: float
    #: Its work is run again without further ado (a task with retries), or not (an actor).
    retriable: bool
    #: How much it may grow, in bytes; 0 = nobody said.
    limit: int = 0

    @property
    def growth(self) -> int:
        return self.used - self.baseline


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Of any process of the machine."""

    pid: int
    #: For humans.
    name: str
    used: int


@dataclass(frozen=True, slots=True)
class Victim:
    worker_id: bytes
    kind: ExitKind
    detail: str
    #: Others of the node's workers are to blame as well: run again later, it may find the memory it needs.
    shared_blame: bool = False


def over_limit(workers: Iterable[WorkerMemory]) -> list[Victim]:
    """Those that use more than they may."""
    return [
        Victim(
            worker.worker_id,
            ExitKind.MEMORY_LIMIT,
            f"it used {_gib(worker.growth)} of memory, and asked for {_gib(worker.limit)} "
            f"(memory={worker.limit}, enforce_memory=True)",
        )
        for worker in workers
        if worker.limit and worker.growth > worker.limit
    ]


def choose_victim(
    node: NodeMemory, threshold: float, workers: Sequence[WorkerMemory], largest: Sequence[ProcessMemory] = ()
) -> Victim | None:
    """None while the node is at or below ``threshold`` (a share of the limit), or when no worker is to blame.

    ``largest``: the processes that use most, to be named.
    """
    guilty = [worker for worker in workers if worker.growth >= MIN_GROWTH_BYTES]
    if node.used <= threshold * node.limit or not guilty:
        return None
    candidates = [worker for worker in guilty if worker.retriable] or guilty
    by_job: Counter[bytes] = Counter()
    for worker in candidates:
        by_job[worker.job_id] += worker.growth
    job_id, of_job = by_job.most_common(1)[0]
    candidates = [worker for worker in candidates if worker.job_id == job_id]
    worth = max(worker.growth for worker in candidates) / 2
    newest = max((worker for worker in candidates if worker.growth >= worth), key=lambda worker: worker.since)
    detail = (
        f"the node's memory was {node.used / node.limit:.0%} used ({node.used / GIB:.2f} of {node.limit / GIB:.2f} "
        f"GiB, threshold {threshold:.0%}), most of what can run again by job {job_id.hex()} ({_gib(of_job)} in "
        f"{len(candidates)} worker{'s' * (len(candidates) > 1)}), and this was its newest, with {_gib(newest.growth)}."
    )
    if largest:
        users = ", ".join(f"{each.name} (pid {each.pid}) {_gib(each.used)}" for each in largest)
        detail += f" Most was used by {users}."
    return Victim(newest.worker_id, ExitKind.NODE_OUT_OF_MEMORY, detail, shared_blame=len(guilty) > 1)


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"
