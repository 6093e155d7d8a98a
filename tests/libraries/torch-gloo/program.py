"""Collective operations on torch's gloo give what Shoal's own give, on tensors and on arrays with gaps."""

from __future__ import annotations

import numpy as np
import torch

import ray
from ray.util import collective

RANKS = 3


@ray.remote(num_cpus=0)
class Rank:
    def __init__(self, rank):
        self.rank = rank

    def run(self, backend):
        collective.init_collective_group(RANKS, self.rank, backend=backend, group_name=backend)
        results = [getattr(self, name)(backend) for name in ("reduced", "moved", "gathered", "passed")]
        collective.barrier(backend)
        collective.destroy_collective_group(backend)
        return results

    def reduced(self, group):
        tensor = torch.arange(5, dtype=torch.float64) + self.rank
        collective.allreduce(tensor, group)
        largest = np.arange(5.0) + self.rank
        collective.reduce(largest, 1, group, collective.ReduceOp.MAX)
        scattered = np.zeros(2)
        collective.reducescatter(scattered, [np.full(2, float(self.rank + place)) for place in range(RANKS)], group)
        return tensor.tolist(), largest.tolist(), scattered.tolist()

    def moved(self, group):
        transposed = (np.arange(6.0).reshape(2, 3) + self.rank).T
        collective.broadcast(transposed, 2, group)
        return transposed.tolist()

    def gathered(self, group):
        tensors = [torch.zeros(3) for _ in range(RANKS)]
        collective.allgather(tensors, torch.full((3,), float(self.rank)), group)
        return [each.tolist() for each in tensors]

    def passed(self, group):
        array = np.full(100_001, float(self.rank))
        if self.rank == 0:
            collective.send(array, 1, group)
        elif self.rank == 1:
            collective.recv(array, 0, group)
        return float(array.mean())

    def wait_in_vain(self):
        collective.init_collective_group(RANKS, self.rank, backend="torch_gloo", gloo_timeout=2_000)
        try:
            if self.rank:
                collective.barrier()
        except (TimeoutError, RuntimeError) as error:
            return type(error).__name__
        return None


with ray.init("local", num_cpus=2, log_to_driver=False):
    ranks = [Rank.remote(rank) for rank in range(RANKS)]
    own, gloo = (ray.get([rank.run.remote(backend) for rank in ranks]) for backend in ("gloo", "torch_gloo"))
    assert own == gloo, (own, gloo)
    assert gloo[0][0][0] == [3.0, 6.0, 9.0, 12.0, 15.0]
    waited = ray.get([rank.wait_in_vain.remote() for rank in ranks])
    assert waited[0] is None and set(waited[1:]) <= {"TimeoutError", "RuntimeError"}, waited
print("gloo of torch", torch.__version__, "gives what Shoal's own channels give")
