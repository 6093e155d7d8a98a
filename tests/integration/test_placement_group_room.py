"""Room is set aside for placement groups that wait: tasks that come in a stream do not keep them waiting."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
from support.clusters import ProcessCluster
from support.processes import PATIENCE_S

import shoal
from shoal.util.placement_group import placement_group, remove_placement_group


@shoal.remote(max_retries=0)
def nap(seconds: float) -> None:
    time.sleep(seconds)


@contextlib.contextmanager
def stream(width: int) -> Iterator[list[int]]:
    """So many tasks run or wait at any time, of different lengths: they do not end together. Yields how many have
    ended."""
    enough, flowing = threading.Event(), threading.Event()
    ended = [0]

    def flow() -> None:
        waiting = []
        while not enough.is_set():
            while len(waiting) < width:
                waiting.append(nap.remote(0.02 * (1 + (ended[0] + len(waiting)) % 7)))
            done, waiting = shoal.wait(waiting, timeout=PATIENCE_S)
            ended[0] += len(done)
            flowing.set()
        shoal.get(waiting, timeout=PATIENCE_S)

    thread = threading.Thread(target=flow)
    thread.start()
    assert flowing.wait(PATIENCE_S)
    try:
        yield ended
    finally:
        enough.set()
        thread.join(PATIENCE_S)


def until_more_end(ended: list[int]) -> None:
    before, deadline = ended[0], time.monotonic() + PATIENCE_S
    while ended[0] == before:
        assert time.monotonic() < deadline, "tasks run again"
        time.sleep(0.01)


@pytest.mark.usefixtures("no_cluster")
def test_groups_that_need_the_whole_node_are_placed_in_turn_while_tasks_stream() -> None:
    with shoal.init(num_cpus=4, logging_level="ERROR", log_to_driver=False), stream(12) as ended:
        whole = [placement_group([{"CPU": 2}, {"CPU": 2}]), placement_group([{"CPU": 4}])]
        for group in whole:
            assert group.wait(PATIENCE_S)
            remove_placement_group(group)
        until_more_end(ended)


def test_a_group_over_several_nodes_is_placed_while_tasks_stream() -> None:
    with ProcessCluster() as cluster:
        for _ in range(2):
            cluster.add_node(cpus=2)
        with cluster.connected(), stream(12) as ended:
            spread = placement_group([{"CPU": 2}] * 2, strategy="STRICT_SPREAD")
            other = placement_group([{"CPU": 2}] * 2, strategy="STRICT_SPREAD")
            assert spread.wait(PATIENCE_S)
            remove_placement_group(spread)
            assert other.wait(PATIENCE_S), "neither holds half of what both need"
            remove_placement_group(other)
            until_more_end(ended)


@pytest.mark.usefixtures("no_cluster")
def test_tasks_run_on_while_a_group_waits_for_what_never_comes() -> None:
    """What an actor holds comes back on no day that anybody knows: nothing is set aside."""

    @shoal.remote(num_cpus=1)
    class Holder:
        def ping(self) -> str:
            return "pong"

    with shoal.init(num_cpus=2, logging_level="ERROR", log_to_driver=False):
        holder = Holder.remote()  # type: ignore[attr-defined]
        shoal.get(holder.ping.remote(), timeout=PATIENCE_S)
        group = placement_group([{"CPU": 2}])
        assert not group.wait(1.5)
        shoal.get([nap.remote(0) for _ in range(20)], timeout=PATIENCE_S)
        shoal.kill(holder)
        with stream(6):
            assert group.wait(PATIENCE_S)
            remove_placement_group(group)


@pytest.mark.usefixtures("no_cluster")
def test_a_task_that_waits_for_its_children_is_not_held_up() -> None:
    """It would never end, and the group would wait for ever."""

    @shoal.remote
    def parent(depth: int) -> int:
        return 1 + shoal.get(parent.remote(depth - 1)) if depth else 1

    with shoal.init(num_cpus=2, logging_level="ERROR", log_to_driver=False), stream(6):
        group = placement_group([{"CPU": 2}])
        deep = [parent.remote(4) for _ in range(3)]
        assert group.wait(PATIENCE_S)
        remove_placement_group(group)
        assert shoal.get(deep, timeout=PATIENCE_S) == [5] * 3
