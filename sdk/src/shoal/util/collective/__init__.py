"""Collective operations between tasks and actors, as ``ray.util.collective``, on numpy arrays (and torch's tensors in
main memory): each rank calls the same functions in the same order.

Arrays go through the object store, so within a node they are copied once; a reduction moves each byte twice, however
many ranks there are.
"""

from __future__ import annotations

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
