"""Generators whose node or worker dies: their items come again under the same ids, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support import lost_nodes
from support.clusters import ProcessCluster
from support.lost_nodes import lose_all
from support.processes import PATIENCE_S

import shoal
from shoal import exceptions

#: Numbers in one item: enough bytes for the object store.
COUNT = 50_000

cluster = lost_nodes.cluster


@shoal.remote(num_cpus=0, resources={"home": 0.1})
class Pace:
    """Lets a generator go on to an item, and counts its runs."""

    def __init__(self) -> None:
        self._until = 0
        self._count = 0
        self._changed = asyncio.Condition()

    async def run(self) -> int:
        self._count += 1
        return self._count

    async def runs(self) -> int:
        return self._count

    async def let(self, until: int) -> None:
        async with self._changed:
            self._until = until
            self._changed.notify_all()

    async def wait_for(self, number: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: number < self._until)


def paced(pace: Any, count: int) -> Iterator[Any]:
    shoal.get(pace.run.remote())
    for number in range(count):
        shoal.get(pace.wait_for.remote(number))
        yield np.full(COUNT, number) if number % 2 else number


make = shoal.remote(resources={"there": 1})(paced)


def values(refs: list[Any]) -> list[int]:
    return [int(np.ravel(shoal.get(ref, timeout=PATIENCE_S))[-1]) for ref in refs]


def test_a_node_dies_while_its_generator_runs(cluster: ProcessCluster) -> None:
    pace = Pace.remote()
    gen = make.remote(pace, 8)
    shoal.get(pace.let.remote(4))
    read = [next(gen) for _ in range(3)]
    lose_all(cluster)
    shoal.get(pace.let.remote(8))
    read += list(gen)
    assert values(read) == list(range(8))
    assert shoal.get(pace.runs.remote()) == 2


def test_items_that_are_lost_after_its_end_are_made_again(cluster: ProcessCluster) -> None:
    pace = Pace.remote()
    shoal.get(pace.let.remote(6))
    gen = make.remote(pace, 6)
    shoal.get(gen.completed(), timeout=PATIENCE_S)
    read = [next(gen) for _ in range(4)]
    lose_all(cluster)
    assert values([*read, *gen]) == list(range(6))
    assert shoal.get(pace.runs.remote()) == 2
    assert len(set(read)) == 4


def test_a_generator_that_yields_less_the_second_time(cluster: ProcessCluster) -> None:
    @shoal.remote(resources={"there": 1})
    def moody(pace: Any) -> Iterator[Any]:
        for number in range(1 if shoal.get(pace.run.remote()) > 1 else 3):
            yield np.full(COUNT, number)

    pace = Pace.remote()
    refs = list(moody.remote(pace))
    lose_all(cluster)
    assert values(refs[:1]) == [0]
    with pytest.raises(exceptions.StreamingGeneratorReplayInconsistentError, match="yielded 1 items"):
        shoal.get(refs[2], timeout=PATIENCE_S)


def test_without_a_retry_the_error_is_the_next_item(cluster: ProcessCluster) -> None:
    pace = Pace.remote()
    shoal.get(pace.let.remote(2))
    gen = make.options(max_retries=0).remote(pace, 4)
    read = [next(gen), next(gen)]
    lose_all(cluster)
    with pytest.raises((exceptions.NodeDiedError, exceptions.WorkerCrashedError)):
        shoal.get(next(gen), timeout=PATIENCE_S)
    assert list(gen) == []
    assert values(read[:1]) == [0]
    with pytest.raises(exceptions.ObjectReconstructionFailedError):
        shoal.get(read[1], timeout=PATIENCE_S)
