"""A rank of a group whose arrays go through torch's gloo (backend "torch_gloo").

The ranks meet where those of other groups do, and tell each other there where gloo listens. It connects them over TCP
by itself: without the cluster's token and without TLS, which is why nobody gets it who has not asked for it.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from shoal import _current
from shoal.util.collective.group import Group, ReduceOp
from shoal_common.tls import Tls

if TYPE_CHECKING:
    from shoal.util.collective.group import Array


class GlooGroup(Group):
    """As `Group`, but for ``reducescatter``, which gloo does not have. ``send`` may wait for its ``recv``, and arrays
    that differ between the ranks may end their processes."""

    def __init__(self, meeting: Any, rank: int, world_size: int, timeout_s: float) -> None:
        """Returns when all ranks are connected. Raises: ValueError where the cluster speaks TLS, ImportError without
        torch, TimeoutError, RuntimeError of gloo."""
        if Tls.from_environ(os.environ) is not None:
            raise ValueError("the backend 'torch_gloo' sends in the clear, and this cluster speaks TLS: take 'gloo'")
        super().__init__(meeting, rank, world_size)
        import torch
        from torch import distributed

        self._torch, self._distributed = torch, distributed
        timeout = datetime.timedelta(seconds=timeout_s)
        host = _current.current().host
        store = None
        if rank == 0:
            store = distributed.TCPStore(host, 0, world_size, True, timeout, wait_for_workers=False)
        [(address, port), *_] = self._exchange([(host, store.port) if store else None] * world_size)
        store = store or distributed.TCPStore(address, port, world_size, False, timeout, wait_for_workers=False)
        options = distributed.ProcessGroupGloo._Options()
        options._devices = [distributed.ProcessGroupGloo.create_device(hostname=host)]
        options._timeout = timeout
        self._gloo = distributed.ProcessGroupGloo(store, rank, world_size, options)

    def barrier(self) -> None:
        _wait(self._gloo.barrier())

    def broadcast(self, array: Array, source: int) -> None:
        options = self._distributed.BroadcastOptions()
        options.rootRank = source
        self._run(array, lambda tensor: self._gloo.broadcast([tensor], options))

    def allgather(self, arrays: Sequence[Array], array: Array) -> None:
        received = [self._torch.from_numpy(each.copy()) for each in arrays]
        self._run(array, lambda tensor: self._gloo.allgather([received], [tensor]))
        for target, tensor in zip(arrays, received, strict=True):
            target[...] = tensor.numpy()

    def allreduce(self, array: Array, op: ReduceOp) -> None:
        options = self._distributed.AllreduceOptions()
        options.reduceOp = self._op(op)
        self._run(array, lambda tensor: self._gloo.allreduce([tensor], options))

    def reduce(self, array: Array, target: int, op: ReduceOp) -> None:
        options = self._distributed.ReduceOptions()
        options.reduceOp, options.rootRank = self._op(op), target
        # Gloo leaves what it has reduced so far in the others' tensors.
        self._run(array if self.rank == target else array.copy(), lambda tensor: self._gloo.reduce([tensor], options))

    def send(self, array: Array, target: int) -> None:
        self._run(array, lambda tensor: self._gloo.send([tensor], target, 0))

    def recv(self, array: Array, source: int) -> None:
        self._run(array, lambda tensor: self._gloo.recv([tensor], source, 0))

    def _run(self, array: Array, begin: Callable[[Any], Any]) -> None:
        """In the array's own memory where it is in one piece."""
        import numpy as np

        whole = np.ascontiguousarray(array)
        _wait(begin(self._torch.from_numpy(whole)))
        if whole is not array:
            array[...] = whole.reshape(array.shape)

    def _op(self, op: ReduceOp) -> Any:
        return getattr(self._distributed.ReduceOp, op.name)


def _wait(work: Any) -> None:
    """Raises: TimeoutError, RuntimeError of gloo."""
    try:
        work.wait()
    except RuntimeError as error:
        if "timed out" in str(error).lower():
            raise TimeoutError(str(error)) from None
        raise
