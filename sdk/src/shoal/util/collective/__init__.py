"""Collective operations between tasks and actors, as ``ray.util.collective``, on numpy arrays (and torch's tensors in
main memory): each rank calls the same functions in the same order.

Arrays go through the object store, so within a node they are copied once; a reduction moves each byte twice, however
many ranks there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal._not_implemented import missing
from shoal.util.collective.group import ReduceOp
from shoal.util.collective.operations import (
    allgather,
    allreduce,
    barrier,
    broadcast,
    create_collective_group,
    destroy_collective_group,
    get_collective_group_size,
    get_rank,
    gloo_available,
    init_collective_group,
    is_group_initialized,
    nccl_available,
    recv,
    reduce,
    reducescatter,
    send,
)

__all__ = [
    "ReduceOp",
    "allgather",
    "allreduce",
    "barrier",
    "broadcast",
    "create_collective_group",
    "destroy_collective_group",
    "get_collective_group_size",
    "get_rank",
    "gloo_available",
    "init_collective_group",
    "is_group_initialized",
    "nccl_available",
    "recv",
    "reduce",
    "reducescatter",
    "send",
]

_NO_GPUS = "the same function without `_multigpu`, on tensors in main memory: Shoal has no NCCL"
_NOT_THERE = {
    f"{name}_multigpu": _NO_GPUS
    for name in ("allgather", "allreduce", "broadcast", "recv", "reduce", "reducescatter", "send")
}


if not TYPE_CHECKING:  # a type checker would take every name for one of the module's

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name, _NOT_THERE)
