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
from dask.threaded import get as threaded_get

import shoal
from shoal.util.dask import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get, ray_dask_get_sync


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


def test_it_is_turned_off(cluster: None) -> None:
    pid = delayed(os.getpid)(pure=False)
    with enable_dask_on_ray():
        assert pid.compute() != os.getpid()
        with disable_dask_on_ray():
            assert pid.compute() == os.getpid()
    assert pid.compute() == os.getpid()
