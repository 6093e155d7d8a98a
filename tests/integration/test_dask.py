"""Dask's graphs on Shoal."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
from dask import delayed
from dask._task_spec import Task, TaskRef
from dask.callbacks import Callback
from dask.threaded import get as threaded_get

import shoal
from shoal.util.dask import (
    ProgressBarCallback,
    RayDaskCallback,
    disable_dask_on_ray,
    enable_dask_on_ray,
    ray_dask_get,
    ray_dask_get_sync,
    ray_dask_persist,
)


@pytest.fixture
def on_shoal(cluster: None) -> Iterator[None]:
    with enable_dask_on_ray():
        yield


GRAPHS: list[tuple[dict[Any, Any], Any]] = [
    ({"a": 1, "b": (operator.add, "a", 10), "c": (sum, ["a", "b", 3])}, ["c", ["b", "a"]]),
    ({"x": 1, "y": "x", ("z", 0): (operator.neg, "y")}, ("z", 0)),
    ({"a": (operator.add, 1, 2), "b": (operator.mul, (operator.add, "a", 1), "a")}, ["b"]),
    ({"l": ["m", "n"], "m": 1, "n": (operator.add, "m", 1), "s": (sum, "l")}, ["s", "l"]),
]


@pytest.mark.parametrize(("graph", "keys"), GRAPHS)
def test_graphs_give_what_dask_gives(cluster: None, graph: dict[Any, Any], keys: Any) -> None:
    expected = threaded_get(graph, keys)
    assert ray_dask_get(graph, keys) == expected
    assert ray_dask_get_sync(graph, keys) == expected


def test_delayed_runs_in_workers(on_shoal: None) -> None:
    @delayed
    def where(*_: Any) -> int:
        return os.getpid()

    @delayed
    def name(*_: Any) -> str | None:
        return shoal.get_runtime_context().get_task_name()

    pids = dask.compute(where(1), where(where(2)))
    assert os.getpid() not in pids
    assert str(name(1, dask_key_name="my-step").compute()) == "dask:my-step"


def test_a_long_chain(on_shoal: None) -> None:
    step = delayed(operator.add)
    total = delayed(0)
    for _ in range(150):
        total = step(total, 1)
    assert total.compute(optimize_graph=False) == 150


def test_arrays(on_shoal: None) -> None:
    import dask.array as da

    plain = np.arange(10_000).reshape(100, 100)
    array = da.from_array(plain, chunks=(50, 50))
    assert np.array_equal((array + array.T).sum(axis=0).compute(), (plain + plain.T).sum(axis=0))
    assert float(array.mean().compute()) == plain.mean()


def test_errors_are_the_steps_own(on_shoal: None) -> None:
    @delayed
    def fail() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        delayed(operator.neg)(fail()).compute()


def test_results_stay_in_the_cluster(on_shoal: None) -> None:
    kept = delayed(operator.add)(1, 2).persist(ray_persist=True)
    (value,) = kept.dask.values()
    assert isinstance(getattr(value, "value", value), shoal.ObjectRef)
    assert delayed(operator.mul)(kept, 10).compute() == 30


def test_options_of_its_tasks(on_shoal: None) -> None:
    @delayed
    def resources() -> dict[str, float]:
        return shoal.get_runtime_context().get_assigned_resources()

    assert resources().compute(ray_remote_args={"num_cpus": 2})["CPU"] == 2
    with pytest.raises(TypeError, match="num_workers: Shoal's scheduler for dask takes"):
        resources().compute(num_workers=3)


def test_options_of_some_tasks(on_shoal: None) -> None:
    @delayed(pure=False)
    def cpus(*needs: Any) -> list[float]:
        return [*needs, shoal.get_runtime_context().get_assigned_resources().get("CPU", 0)]

    with dask.annotate(ray_remote_args={"num_cpus": 2}):
        first = cpus()
    assert cpus(first).compute(optimize_graph=False) == [[2.0], 1.0]
    assert cpus(first).compute(optimize_graph=False, ray_remote_args={"num_cpus": 0.5}) == [[2.0], 0.5]
    with dask.annotate(resources={"CPU": 1}), pytest.raises(ValueError, match="ray_remote_args"):
        cpus().compute()


def test_a_graph_with_a_hole(cluster: None) -> None:
    with pytest.raises(ValueError, match="Missing dependency x for y"):
        ray_dask_get({"y": Task("y", operator.neg, TaskRef("x"))}, "y")


class Told(RayDaskCallback):
    def __init__(self) -> None:
        self.seen: list[Any] = []
        super().__init__()

    def _ray_presubmit(self, task: Any, key: Any, deps: dict[Any, Any]) -> Any:
        self.seen.append(("presubmit", key, list(deps)))
        return 100 if key == "skipped" else None

    def _ray_postsubmit(self, task: Any, key: Any, deps: dict[Any, Any], object_ref: Any) -> None:
        self.seen.append(("postsubmit", key, type(object_ref)))

    def _ray_postsubmit_all(self, object_refs: list[Any], dsk: Any) -> None:
        self.seen.append(("all", len(object_refs), sorted(dsk)))

    def _ray_finish(self, result: Any) -> None:
        self.seen.append(("finish", result))


def test_callbacks_here_are_told(on_shoal: None) -> None:
    graph = {"a": (operator.neg, 1), "skipped": (operator.neg, "a"), "b": (operator.add, "skipped", -1)}
    with Told() as told:
        assert ray_dask_get(graph, ["b"]) == (99,)
    assert told.seen == [
        ("presubmit", "a", []),
        ("postsubmit", "a", shoal.ObjectRef),
        ("presubmit", "skipped", ["a"]),
        ("presubmit", "b", ["skipped"]),
        ("postsubmit", "b", shoal.ObjectRef),
        ("all", 1, ["a", "b", "skipped"]),
        ("finish", (99,)),
    ]
    assert ray_dask_get(graph, "b") == 0
    assert len(told.seen) == 7, "it is not active any more"
    assert ray_dask_get(graph, "b", ray_callbacks=[told]) == 99
    with pytest.raises(TypeError, match="ray_callbacks are RayDaskCallbacks, not int"):
        ray_dask_get(graph, "b", ray_callbacks=[1])  # type: ignore[list-item]


def test_callbacks_in_the_worker_are_told(on_shoal: None) -> None:
    @shoal.remote
    class Heard:
        def __init__(self) -> None:
            self.all: list[Any] = []

        def say(self, *words: Any) -> None:
            self.all.append(words)

        def told(self) -> list[Any]:
            return self.all

    heard = Heard.remote()

    def before(key: Any, object_refs: list[Any]) -> str:
        shoal.get(heard.say.remote("before", key, shoal.get(object_refs)))
        return f"state of {key}"

    def after(key: Any, result: Any, pre_state: Any) -> None:
        shoal.get(heard.say.remote("after", key, result, pre_state))

    with RayDaskCallback(ray_pretask=before, ray_posttask=after):
        assert ray_dask_get({"a": (operator.neg, 1), "b": (operator.neg, "a")}, "b") == 1
    assert shoal.get(heard.told.remote()) == [
        ("before", "a", []),
        ("after", "a", -1, "state of a"),
        ("before", "b", [-1]),
        ("after", "b", 1, "state of b"),
    ]


def test_dasks_own_callbacks_are_told(on_shoal: None, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    callback = Callback(
        start_state=lambda dsk, state: seen.append(("start", state["ready"], sorted(state["waiting"]))),
        pretask=lambda key, dsk, state: seen.append(("pre", key)),
        posttask=lambda key, result, dsk, state, worker_id: seen.append(("post", key, result, len(state["finished"]))),
        finish=lambda dsk, state, failed: seen.append(("finish", failed)),
    )
    graph = {"a": (operator.neg, 1), "b": (operator.neg, "a")}
    with callback, ProgressBarCallback():
        assert ray_dask_get(graph, "b") == 1
    assert seen == [
        ("start", ["a"], ["b"]),
        ("pre", "a"),
        ("pre", "b"),
        ("post", "a", -1, 1),
        ("post", "b", 1, 2),
        ("finish", False),
    ]
    assert "dask: 100%" in capsys.readouterr().err
    seen.clear()
    with callback, pytest.raises(ZeroDivisionError):
        ray_dask_get({"a": (operator.truediv, 1, 0)}, "a")
    assert seen[-1] == ("finish", True)


def test_persist_by_another_name(on_shoal: None) -> None:
    (kept,) = ray_dask_persist(delayed(operator.add)(1, 2))
    (value,) = kept.dask.values()
    assert isinstance(getattr(value, "value", value), shoal.ObjectRef)


def test_it_is_turned_off(cluster: None) -> None:
    pid = delayed(os.getpid)(pure=False)
    with enable_dask_on_ray():
        assert pid.compute() != os.getpid()
        with disable_dask_on_ray():
            assert pid.compute() == os.getpid()
    assert pid.compute() == os.getpid()
