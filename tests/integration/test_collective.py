"""``shoal.util.collective``: operations of actors together, on numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.util import collective
from shoal.util.collective import ReduceOp

RANKS = 3
#: Elements: one array that goes along with messages, one that goes through the store and does not divide evenly.
SMALL, LARGE = 4, 100_001


@shoal.remote(num_cpus=0)
class Rank:
    def __init__(self, rank: int) -> None:
        self.rank = rank

    def join(self, group: str = "default", timeout_ms: int = 120_000) -> int:
        collective.init_collective_group(RANKS, self.rank, group_name=group, gloo_timeout=timeout_ms)
        return collective.get_rank(group)

    def leave(self, group: str = "default") -> None:
        collective.destroy_collective_group(group)
        assert (collective.get_rank(group), collective.get_collective_group_size(group)) == (-1, -1)

    def run(self, name: str, size: int, **arguments: Any) -> Any:
        """An operation on ``[rank + 1, rank + 2, ...]``; what is in the array then, or in the arrays."""
        own = np.arange(size, dtype=np.float64) + self.rank + 1
        if name == "allgather":
            gathered = [np.zeros(size) for _ in range(RANKS)]
            collective.allgather(gathered, own, **arguments)
            return gathered
        if name == "reducescatter":
            collective.reducescatter(own, [np.full(size, self.rank * 10.0 + place) for place in range(RANKS)])
            return own
        getattr(collective, name)(own, **arguments)
        return own

    def pass_around(self) -> list[float]:
        """To the next one, from the one before, in order."""
        received = []
        for size in (SMALL, LARGE):
            collective.send(np.full(size, float(self.rank)), (self.rank + 1) % RANKS)
        for size in (SMALL, LARGE):
            array = np.zeros(size)
            collective.recv(array, (self.rank - 1) % RANKS)
            received.append(float(array.mean()))
        return received

    def barrier(self) -> None:
        collective.barrier()

    def misuse(self) -> list[str]:
        found = []
        for call in (
            lambda: collective.allreduce([1.0]),
            lambda: collective.broadcast(np.zeros(1), src_rank=RANKS),
            lambda: collective.send(np.zeros(1), self.rank),
            lambda: collective.allgather([np.zeros(1)], np.zeros(1)),
            lambda: collective.barrier("another"),
            lambda: collective.init_collective_group(RANKS, self.rank),
            lambda: collective.init_collective_group(2, 5, group_name="another"),
            lambda: collective.init_collective_group(2, 0, backend="nccl", group_name="another"),
        ):
            try:
                call()
            except (RuntimeError, TypeError, ValueError) as error:
                found.append(f"{type(error).__name__}: {error}")
        return found


@pytest.fixture(scope="module")
def ranks(cluster: None) -> Iterator[list[Any]]:
    ranks = [Rank.remote(rank) for rank in range(RANKS)]
    collective.create_collective_group(ranks, RANKS, list(range(RANKS)), gloo_timeout=120_000)
    yield ranks


def together(ranks: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
    return shoal.get([rank.run.remote(*args, **kwargs) for rank in ranks])


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_reductions(ranks: list[Any], size: int) -> None:
    base = np.arange(size, dtype=np.float64)
    inputs = [base + rank + 1 for rank in range(RANKS)]
    for result in together(ranks, "allreduce", size):
        assert np.array_equal(result, sum(inputs))
    for op, expected in ((ReduceOp.MAX, inputs[2]), (ReduceOp.MIN, inputs[0])):
        for result in together(ranks, "allreduce", size, op=op):
            assert np.array_equal(result, expected)
    for result in together(ranks, "allreduce", size, op=ReduceOp.PRODUCT):
        assert np.array_equal(result, inputs[0] * inputs[1] * inputs[2])
    results = together(ranks, "reduce", size, dst_rank=1)
    assert np.array_equal(results[1], sum(inputs))
    assert np.array_equal(results[0], inputs[0]), "only the target's array changes"
    for place, result in enumerate(together(ranks, "reducescatter", size)):
        assert np.array_equal(result, np.full(size, 30.0 + 3 * place))


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_others(ranks: list[Any], size: int) -> None:
    base = np.arange(size, dtype=np.float64)
    for result in together(ranks, "broadcast", size, src_rank=2):
        assert np.array_equal(result, base + 3)
    for gathered in together(ranks, "allgather", size):
        assert all(np.array_equal(each, base + rank + 1) for rank, each in enumerate(gathered))


def test_from_one_to_another(ranks: list[Any]) -> None:
    received = shoal.get([rank.pass_around.remote() for rank in ranks])
    assert received == [[2.0, 2.0], [0.0, 0.0], [1.0, 1.0]]


def test_a_barrier_waits_for_all(ranks: list[Any]) -> None:
    early = [rank.barrier.remote() for rank in ranks[:2]]
    ready, _ = shoal.wait(early, num_returns=2, timeout=0.2)
    assert ready == []
    shoal.get([*early, ranks[2].barrier.remote()])


def test_a_group_is_left_and_made_again(ranks: list[Any]) -> None:
    for _ in range(2):
        assert shoal.get([rank.join.remote("again") for rank in ranks]) == [0, 1, 2]
        assert np.array_equal(together(ranks, "allreduce", 1, group_name="again")[0], [6.0])
        shoal.get([rank.leave.remote("again") for rank in ranks])


def test_who_is_missing_is_named(ranks: list[Any]) -> None:
    with pytest.raises(TimeoutError, match=r"ranks \[1, 2\] did not join within 0\.1 s"):
        shoal.get(ranks[0].join.remote("late", timeout_ms=100))


def test_ranks_whose_arrays_differ_are_told(ranks: list[Any]) -> None:
    refs = [rank.run.remote("allreduce", 1 + place) for place, rank in enumerate(ranks)]
    for ref in refs:
        with pytest.raises(ValueError, match="the ranks' arrays differ, by rank"):
            shoal.get(ref)


def test_misuse(ranks: list[Any]) -> None:
    words = [
        "TypeError: collective operations take numpy arrays",
        "ValueError: rank '3' must be between 0 and 2",
        "RuntimeError: The destination rank '0' is self",
        "RuntimeError: the list has 1 tensors, and the group 3 ranks",
        "RuntimeError: The collective group 'another' is not initialized",
        "RuntimeError: this process is in a collective group named 'default' already",
        "ValueError: rank 5 is not one of a group of 2",
        "ValueError: there is no backend 'nccl'",
    ]
    found = shoal.get(ranks[0].misuse.remote())
    assert len(found) == len(words)
    for error, expected in zip(found, words, strict=True):
        assert error.startswith(expected)
    with pytest.raises(ValueError, match="each actor should correspond to one rank"):
        collective.create_collective_group(ranks, 2, [0, 1])
    with pytest.raises(ValueError, match="ranks must be a permutation"):
        collective.create_collective_group(ranks, 3, [0, 1, 1])
