"""What a durable actor's calls cost against an ordinary one's: on one machine, on the head's node of several, and on a
node without the directory of the blobs, where the log is made of blobs, stored through the objectstore service.

    python benchmarks/durable.py

Prints calls a second, medians of the rounds; the two kinds take turns, so that both have the same machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import shoal
from shoal.cluster_utils import Cluster

ROUNDS = 3
#: Of one measurement, in seconds.
LASTS_S = 1.5
BATCH = 1_000


class Counter:
    def __init__(self) -> None:
        self.value = 0

    def add(self) -> int:
        self.value += 1
        return self.value


def at_once(counter: shoal.ActorHandle) -> int:
    shoal.get([counter.add.remote() for _ in range(BATCH)])
    return BATCH


def one_at_a_time(counter: shoal.ActorHandle) -> int:
    shoal.get(counter.add.remote())
    return 1


def rate(counter: shoal.ActorHandle, step: Callable[[shoal.ActorHandle], int]) -> float:
    """Calls a second."""
    calls, began = 0, time.perf_counter()
    while (lasted := time.perf_counter() - began) < LASTS_S:
        calls += step(counter)
    return calls / lasted


@contextmanager
def one_machine() -> Iterator[None]:
    with shoal.init(num_cpus=2, resources={"here": 1}, logging_level="ERROR"):
        yield


@contextmanager
def heads_node() -> Iterator[None]:
    yield from _several_nodes({"num_cpus": 2, "resources": {"here": 1}}, {"num_cpus": 1})


@contextmanager
def another_node() -> Iterator[None]:
    yield from _several_nodes({"num_cpus": 1}, {"num_cpus": 2, "resources": {"here": 1}})


def _several_nodes(head: dict[str, Any], other: dict[str, Any]) -> Iterator[None]:
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**other)
        with shoal.init(cluster.address, logging_level="ERROR"):
            yield
    finally:
        cluster.shutdown()


def main() -> None:
    actor = shoal.remote(num_cpus=0, resources={"here": 0.1})(Counter)
    print("| | ordinary | durable, checkpoint_every=1000 | share |\n|---|---|---|---|")
    for place in (one_machine, heads_node, another_node):
        with place():
            kinds: list[Any] = [actor.remote(), actor.options(durable=True, checkpoint_every=1_000).remote()]
            for counter in kinds:
                at_once(counter)
            for step in (at_once, one_at_a_time):
                rates = [[rate(counter, step) for counter in kinds] for _ in range(ROUNDS)]
                ordinary, durable = (statistics.median(each) for each in zip(*rates, strict=True))
                title = f"{place.__name__}, {step.__name__}".replace("_", " ")
                print(f"| {title} | {ordinary:,.0f} | {durable:,.0f} | {durable / ordinary:.0%} |", flush=True)


if __name__ == "__main__":
    main()
