"""Graphs: ``bind`` and ``execute``."""

from __future__ import annotations

from typing import Any

import pytest
from e2e.compat.target import better_than_ray, ray, submodule

dag: Any = submodule("dag")
InputNode, MultiOutputNode = dag.InputNode, dag.MultiOutputNode


@ray.remote
def add(*values: int) -> int:
    return sum(values)


@ray.remote
def double(value: int) -> int:
    return 2 * value


@ray.remote
def total(values: Any) -> int:
    """Of references in a list or dictionary."""
    return sum(ray.get(list(values.values() if isinstance(values, dict) else values)))


@ray.remote
class Counter:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def add(self, by: int) -> int:
        self.value += by
        return self.value

    @ray.method(num_returns=2)
    def divide(self, by: int) -> tuple[int, int]:
        return divmod(self.value, by)


def test_tasks(cluster: None) -> None:
    node = add.bind(double.bind(1), double.options(num_cpus=0.5).bind(value=2), 10)
    assert isinstance(node, dag.FunctionNode)
    assert [ray.get(node.execute()) for _ in range(2)] == [16, 16]
    assert ray.get(total.bind([double.bind(3), double.bind(4)]).execute()) == 14
    assert ray.get(total.bind({"a": double.bind(3), "b": double.bind(5)}).execute()) == 16


def test_each_node_runs_once(cluster: None) -> None:
    counter = Counter.remote()
    shared = counter.add.bind(1)
    assert ray.get(add.bind(shared, shared, double.bind(shared)).execute()) == 4
    assert ray.get(counter.add.remote(0)) == 1


def test_a_long_chain(cluster: None) -> None:
    node = add.bind(0)
    for _ in range(200):
        node = add.bind(node, 1)
    assert ray.get(node.execute()) == 200


def test_inputs(cluster: None) -> None:
    with InputNode() as one:
        graph = add.bind(double.bind(one), one)
    assert [ray.get(graph.execute(value)) for value in (1, 5)] == [3, 15]
    assert ray.get(graph.execute(ray.put(2))) == 6
    with InputNode() as several:
        graph = add.bind(several[0], several[1], several.last)
    assert ray.get(graph.execute(1, 2, last=3)) == 6
    with InputNode() as parts:
        graph = add.bind(parts["a"], parts["b"])
    assert ray.get(graph.execute({"a": 1, "b": 2})) == 3
    with InputNode() as number:
        graph = add.bind(number.real, number.imag)
    assert ray.get(graph.execute(3 + 0j)) == 3


def test_actors(cluster: None) -> None:
    counter = Counter.bind(10)
    counter.add.bind(1)
    counter.add.bind(2)
    last = counter.add.bind(double.bind(3))
    assert [ray.get(last.execute()) for _ in range(2)] == [19, 19], "in order, on an actor of its own each time"
    handle = counter.execute()
    assert ray.get(handle.add.remote(0)) == 10
    named = Counter.options(num_cpus=0).bind(double.bind(2)).add.options(name="n").bind(1)
    assert ray.get(named.execute()) == 5


def test_a_living_actor_and_several_values(cluster: None) -> None:
    counter = Counter.remote(17)
    whole, rest = counter.divide.bind(5)
    assert ray.get(add.bind(whole, double.bind(rest)).execute()) == 7
    with InputNode() as by:
        outputs = MultiOutputNode([counter.add.bind(by), double.bind(by)])
    refs = outputs.execute(3)
    assert isinstance(refs, list)
    assert ray.get(refs) == [20, 6]


def test_errors_come_with_the_result(cluster: None) -> None:
    @ray.remote
    def fail() -> int:
        raise KeyError("no")

    with pytest.raises(KeyError):
        ray.get(double.bind(fail.bind()).execute())


def test_misuse(cluster: None) -> None:
    node = double.bind(1)
    with pytest.raises(AttributeError, match=r"\.bind\(\) cannot be used again on"):
        node.bind(1)
    with pytest.raises(AttributeError, match=r"\.remote\(\) cannot be used on"):
        node.remote()
    with pytest.raises(AttributeError, match=r"\.remote\(\) cannot be used on ClassMethodNodes"):
        Counter.bind().add.remote(1)
    with pytest.raises(AttributeError):
        _ = Counter.bind().missing
    with pytest.raises(ValueError, match="should not take any args"):
        InputNode(1)
    with pytest.raises(AssertionError, match="singleton instance"):
        double.bind(InputNode()).execute(1)
    with InputNode() as a, InputNode() as b:
        two = add.bind(a, b)
        with pytest.raises(ValueError, match="InputNode handles user dynamic input"):
            Counter.bind(a)
        with pytest.raises(AssertionError, match="only use int index or str"):
            a[1.5]
    with pytest.raises(AssertionError, match="only have one unique InputNode"):
        two.execute(1)


@better_than_ray
def test_what_would_be_lost_is_refused(cluster: None) -> None:
    with pytest.raises(TypeError, match="the graph has no InputNode"):
        double.bind(1).execute(2)
    with pytest.raises(TypeError, match="stands for a result that is not there yet"):
        double.remote(double.bind(1))
