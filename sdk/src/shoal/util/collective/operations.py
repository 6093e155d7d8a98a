"""The functions that users call, by the name of a group."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import shoal
from shoal import _current
from shoal._values.numbers import plain, seconds
from shoal.util.collective.group import Group, ReduceOp
from shoal.util.collective.meeting import Meeting

if TYPE_CHECKING:
    from shoal.util.collective.group import Array

#: Of this process, with the session in which each was made.
_groups: dict[str, tuple[int, Group]] = {}
#: Of groups that this process has left: the others may still need the meeting, which lives as long as the handle of
#: whoever made it. The last one to leave ends it.
_left: dict[str, Any] = {}
_BACKENDS = ("gloo", "shoal", "torch_gloo")
#: A meeting that is over may take so long to be gone, in seconds.
_GONE_S = 60.0


def gloo_available() -> bool:
    """What "gloo" names is there: Shoal's own channels."""
    return True


def nccl_available() -> bool:
    return False


def init_collective_group(
    world_size: int, rank: int, backend: str = "gloo", group_name: str = "default", gloo_timeout: int = 30_000
) -> None:
    """Join a group, in a task or actor; returns when all ranks have. ``backend``: "gloo" (or "shoal") is Shoal's own,
    "torch_gloo" torch's gloo. ``gloo_timeout``: of this and of each operation, in milliseconds.

    Raises: ValueError (a rank that there is not or that is taken, a backend that there is not), RuntimeError (this
    process is in a group of that name), TimeoutError, which says who is missing.
    """
    _check_backend(backend)
    timeout_s = seconds(gloo_timeout, "gloo_timeout", "milliseconds") / 1000
    if not isinstance(plain(world_size), int) or not isinstance(plain(rank), int):
        raise TypeError(f"world_size and rank must be ints, not {world_size!r} and {rank!r}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not one of a group of {world_size}: 0 to {world_size - 1}")
    if is_group_initialized(group_name):
        raise RuntimeError(f"this process is in a collective group named {group_name!r} already: destroy that first")
    meetings: Any = shoal.remote(Meeting).options(
        name=f"shoal.collective:{group_name}", get_if_exists=True, num_cpus=0, max_concurrency=10_000
    )
    deadline = time.monotonic() + _GONE_S
    while True:
        meeting = meetings.remote(world_size, timeout_s)
        try:
            if shoal.get(meeting.join.remote(rank, world_size)):
                break
        except shoal.exceptions.ActorDiedError:
            pass  # it was of an earlier group
        if time.monotonic() > deadline:
            raise TimeoutError(f"an earlier collective group named {group_name!r} has not been destroyed by all ranks")
        time.sleep(0.02)
    _left.pop(group_name, None)
    if backend == "torch_gloo":
        from shoal.util.collective.gloo_group import GlooGroup

        group: Group = GlooGroup(meeting, rank, world_size, timeout_s)
    else:
        group = Group(meeting, rank, world_size)
    _groups[group_name] = (_current.epoch, group)


def create_collective_group(
    actors: Sequence[Any],
    world_size: int,
    ranks: Sequence[int],
    backend: str = "gloo",
    group_name: str = "default",
    gloo_timeout: int = 30_000,
) -> None:
    """Have actors join a group, each as one call of it; returns when all have.

    Raises: ValueError when actors, ranks and world_size do not fit each other; as ``init_collective_group``.
    """
    _check_backend(backend)
    if len(actors) != len(ranks) or len(actors) != world_size:
        raise ValueError(
            f"each actor should correspond to one rank. Got '{len(actors)}' actors, '{len(ranks)}' ranks and a "
            f"world_size of {world_size}"
        )
    if sorted(ranks) != list(range(world_size)):
        raise ValueError(f"ranks must be a permutation from 0 to '{world_size}'. Got '{list(ranks)}'")

    def join(_: Any, rank: int) -> None:
        init_collective_group(world_size, rank, backend, group_name, gloo_timeout)

    shoal.get([actor.__ray_call__.remote(join, rank) for actor, rank in zip(actors, ranks, strict=True)])


def destroy_collective_group(group_name: str = "default") -> None:
    """Leave it; nothing where this process is in none. A group can be made anew when all ranks have left."""
    epoch, group = _groups.pop(group_name, (0, None))
    if group is None or epoch != _current.epoch:
        return
    _left[group_name] = group.meeting
    try:
        if shoal.get(group.meeting.leave.remote()):
            shoal.kill(group.meeting)
    except shoal.exceptions.ActorError:
        pass  # it has ended with the process that made it


def is_group_initialized(group_name: str = "default") -> bool:
    return group_name in _groups and _groups[group_name][0] == _current.epoch


def get_rank(group_name: str = "default") -> int:
    """-1 where this process is not in the group."""
    return _groups[group_name][1].rank if is_group_initialized(group_name) else -1


def get_collective_group_size(group_name: str = "default") -> int:
    """-1 where this process is not in the group."""
    return _groups[group_name][1].world_size if is_group_initialized(group_name) else -1


def barrier(group_name: str = "default") -> None:
    """Returns when all ranks have called it."""
    _group(group_name).barrier()


def allreduce(tensor: Any, group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """All ranks' arrays, reduced, into each of them."""
    _group(group_name).allreduce(_array(tensor), _op(op))


def reduce(tensor: Any, dst_rank: int = 0, group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """All ranks' arrays, reduced, into that of ``dst_rank``."""
    group = _group(group_name)
    group.reduce(_array(tensor), _rank(group, dst_rank), _op(op))


def broadcast(tensor: Any, src_rank: int = 0, group_name: str = "default") -> None:
    """The array of ``src_rank`` into those of all."""
    group = _group(group_name)
    group.broadcast(_array(tensor), _rank(group, src_rank))


def allgather(tensor_list: Sequence[Any], tensor: Any, group_name: str = "default") -> None:
    """The arrays of all ranks into ``tensor_list``, by rank."""
    group = _group(group_name)
    group.allgather(_arrays(group, tensor_list), _array(tensor))


def reducescatter(
    tensor: Any, tensor_list: Sequence[Any], group_name: str = "default", op: ReduceOp = ReduceOp.SUM
) -> None:
    """Of all ranks' lists, the items at this one's place, reduced, into ``tensor``."""
    group = _group(group_name)
    group.reducescatter(_array(tensor), _arrays(group, tensor_list), _op(op))


def send(tensor: Any, dst_rank: int, group_name: str = "default") -> None:
    """Returns when the array is copied, 16 ahead of ``recv`` at most."""
    group = _group(group_name)
    if _rank(group, dst_rank) == group.rank:
        raise RuntimeError(f"The destination rank '{dst_rank}' is self.")
    group.send(_array(tensor), dst_rank)


def recv(tensor: Any, src_rank: int, group_name: str = "default") -> None:
    """The next array that ``src_rank`` has sent here, into ``tensor``."""
    group = _group(group_name)
    if _rank(group, src_rank) == group.rank:
        raise RuntimeError(f"The source rank '{src_rank}' is self.")
    group.recv(_array(tensor), src_rank)


def _check_backend(backend: str) -> None:
    if backend not in _BACKENDS:
        raise ValueError(
            f"there is no backend {backend!r}, only 'gloo' and 'shoal', which both name Shoal's own, and 'torch_gloo'"
        )
    if backend == "torch_gloo" and importlib.util.find_spec("torch") is None:
        raise ValueError("the backend 'torch_gloo' needs torch: install it, or take 'gloo', which is Shoal's own")


def _group(name: str) -> Group:
    """Raises: RuntimeError."""
    if not is_group_initialized(name):
        raise RuntimeError(f"The collective group {name!r} is not initialized in the process.")
    return _groups[name][1]


def _rank(group: Group, rank: int) -> int:
    """Raises: ValueError."""
    if not 0 <= rank < group.world_size:
        raise ValueError(f"rank '{rank}' must be between 0 and {group.world_size - 1}")
    return rank


def _op(op: ReduceOp) -> ReduceOp:
    """Raises: TypeError."""
    if not isinstance(op, ReduceOp):
        raise TypeError(f"op must be a ReduceOp, as ReduceOp.SUM, not {op!r}")
    return op


def _array(tensor: Any) -> Array:
    """In whose memory the tensor is. Raises: TypeError, ValueError."""
    import numpy as np

    array = tensor if isinstance(tensor, np.ndarray) else getattr(tensor, "numpy", lambda: None)()
    if not isinstance(array, np.ndarray):
        raise TypeError(f"collective operations take numpy arrays (or torch's tensors on the CPU), not {type(tensor)}")
    if not array.flags.writeable:
        raise ValueError("the array is read-only, as arrays out of get() are: give a copy")
    return array


def _arrays(group: Group, tensors: Sequence[Any]) -> list[Array]:
    """Raises: RuntimeError, and as ``_array``."""
    if len(tensors) != group.world_size:
        raise RuntimeError(f"the list has {len(tensors)} tensors, and the group {group.world_size} ranks")
    return [_array(each) for each in tensors]
