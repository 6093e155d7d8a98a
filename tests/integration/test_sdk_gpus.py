"""GPUs of a node: which ids tasks and actors get, in placement groups too, and which processes they run in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.processes import PATIENCE_S

import shoal
from shoal.util.scheduling_strategies import PlacementGroupSchedulingStrategy


def look():
    return os.environ.get("CUDA_VISIBLE_DEVICES"), [str(i) for i in shoal.get_gpu_ids()], os.getpid()


seen = shoal.remote(num_cpus=0)(look)


@shoal.remote(num_cpus=0)
class Holder:
    def seen(self):
        return look()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One that sees two GPUs of a machine which has more, and hides them from what was granted none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setenv("SHOAL_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    shoal.init("local", num_cpus=2, num_gpus=2)
    yield
    shoal.shutdown()


@pytest.mark.usefixtures("node")
def test_tasks_and_actors_get_the_ids_that_the_node_sees():
    one, ids, _ = shoal.get(seen.options(num_gpus=1).remote(), timeout=PATIENCE_S)
    assert one in ("4", "6") and ids == [one]
    assert shoal.get(seen.options(num_gpus=2).remote(), timeout=PATIENCE_S)[:2] == ("4,6", ["4", "6"])
    holders = [Holder.options(num_gpus=1).remote() for _ in range(2)]
    answers = shoal.get([holder.seen.remote() for holder in holders], timeout=PATIENCE_S)
    assert sorted(answer[:2] for answer in answers) == [("4", ["4"]), ("6", ["6"])]
    assert shoal.get(seen.remote(), timeout=PATIENCE_S)[:2] == ("", [])


@pytest.mark.usefixtures("node")
def test_a_process_runs_with_gpus_or_without():
    # Its process would end with the task otherwise.
    with_gpu = shoal.remote(num_cpus=0, num_gpus=1, max_calls=0)(look)
    first = shoal.get(seen.remote(), timeout=PATIENCE_S)[2]
    second = shoal.get(with_gpu.remote(), timeout=PATIENCE_S)[2]
    assert first != second
    assert shoal.get(seen.remote(), timeout=PATIENCE_S)[2] != second
    assert shoal.get(with_gpu.remote(), timeout=PATIENCE_S)[2] != first


@pytest.mark.usefixtures("node")
def test_each_bundle_of_a_placement_group_has_its_device():
    group = shoal.util.placement_group([{"GPU": 1}, {"GPU": 1}])
    shoal.get(group.ready(), timeout=PATIENCE_S)

    def within(index):
        return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)

    def ids(index):
        task = seen.options(num_gpus=1, scheduling_strategy=within(index))
        return tuple(shoal.get(task.remote(), timeout=PATIENCE_S)[1])

    assert {ids(0), ids(1)} == {("4",), ("6",)}
    assert ids(0) == ids(0)
    actor = Holder.options(num_gpus=1, scheduling_strategy=within(1)).remote()
    shown, held, _ = shoal.get(actor.seen.remote(), timeout=PATIENCE_S)
    assert tuple(held) == ids_of(shown)
    assert ids(-1) == ids(0) != tuple(held)


def ids_of(shown):
    return tuple(shown.split(","))


def test_a_node_cannot_have_more_gpus_than_it_sees(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    with pytest.raises(ValueError, match="cannot have 2 GPUs where CUDA_VISIBLE_DEVICES lets 1 be seen: '4'"):
        shoal.init("local", num_cpus=1, num_gpus=2)
    with pytest.raises(ValueError, match=r"must be a whole number, got 0\.5"):
        shoal.init("local", num_cpus=1, num_gpus=0.5)
