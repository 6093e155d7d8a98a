"""Which worker ends when the node runs out of memory. Pure.

The process that *grew* most goes, not the newest: the one that fills the memory is seldom the one that came last.
Leased workers go before actors, because their tasks are simply run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GIB = 1 << 30
#: Nobody who grew less than this since it was assigned work is to blame, in bytes.
MIN_GROWTH_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NodeMemory:
    used: int
    #: Of the cgroup or of the machine, whichever is nearer to its end.
    limit: int


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    worker_id: bytes
    name: str
    #: Private memory now, and when the worker registered, in bytes.
    used: int
    baseline: int
    #: Its work is run again without further ado (a task), or not (an actor).
    retriable: bool


@dataclass(frozen=True, slots=True)
class Victim:
    worker_id: bytes
    detail: str


def choose_victim(node: NodeMemory, threshold: float, workers: Sequence[WorkerMemory]) -> Victim | None:
    """None while the node is at or below ``threshold`` (a share of the limit), or when no worker is to blame."""
    if node.used <= threshold * node.limit:
        return None
    guilty = [worker for worker in workers if worker.used - worker.baseline >= MIN_GROWTH_BYTES]
    if not guilty:
        return None
    worst = max(guilty, key=lambda worker: (worker.retriable, worker.used - worker.baseline))
    detail = (
        f"the node's memory was {node.used / node.limit:.0%} used ({node.used / GIB:.2f} of {node.limit / GIB:.2f} "
        f"GiB, threshold {threshold:.0%}), and this worker had grown most of all, to "
        f"{worst.used / GIB:.2f} GiB."
    )
    return Victim(worst.worker_id, detail)
