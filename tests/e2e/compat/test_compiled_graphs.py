"""Compiled graphs: what Ray's do, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import pickle
from typing import Any

import numpy as np
import pytest
from e2e.compat.target import IS_RAY, better_than_ray, ray, submodule

dag: Any = submodule("dag")
exceptions: Any = submodule("exceptions")
InputNode, MultiOutputNode = dag.InputNode, dag.MultiOutputNode


@ray.remote(num_cpus=0)
class Worker:
    def __init__(self, by: int = 0) -> None:
        self.by = by
        self.calls: list[Any] = []

    def add(self, value: int) -> int:
        self.calls.append(value)
        if value < 0:
            raise ValueError(f"{value} is negative")
        return value + self.by

    def join(self, *values: Any) -> list[Any]:
        return list(values)

    def same(self, value: Any) -> Any:
        return value

    def unpicklable(self, value: Any) -> Any:
        return (each for each in [value])

    @ray.method(num_returns=2)
    def halves(self, value: int) -> tuple[int, int]:
        return value // 2, value - value // 2

    def wait_for(self, path: str) -> str:
        while not os.path.exists(path):
            os.sched_yield()
        return path

    def end(self, value: int) -> int:
        os._exit(value)

    def seen(self) -> list[Any]:
        return self.calls

    async def coroutine(self, value: int) -> int:
        return value


@pytest.fixture(scope="module")
def workers(cluster: None) -> list[Any]:
    dag.DAGContext.get_current().get_timeout = 120  # of a machine that has much else to do
    return [Worker.remote(by) for by in (1, 10, 100)]


def test_values_go_from_actor_to_actor(workers: list[Any]) -> None:
    a, b, _ = workers
    with InputNode() as value:
        graph = b.add.bind(a.add.bind(value)).experimental_compile()
    try:
        for each in range(25):
            assert ray.get(graph.execute(each)) == each + 11
        refs = [graph.execute(each) for each in range(5)]
        assert ray.get(refs) == [each + 11 for each in range(5)]
        late, soon = graph.execute(1), graph.execute(2)
        assert (ray.get(soon), ray.get(late)) == (13, 12), "in any order"
        assert ray.get(a.join.remote(1)) == [1], "it serves calls meanwhile"
    finally:
        graph.teardown()
    assert ray.get(a.join.remote(2)) == [2]


def test_fan_out_and_in(workers: list[Any]) -> None:
    a, b, c = workers
    with InputNode() as value:
        graph = c.join.bind(a.add.bind(value), 7, b.add.bind(value), value).experimental_compile()
    try:
        assert [ray.get(graph.execute(each)) for each in (1, 2)] == [[2, 7, 11, 1], [3, 7, 12, 2]]
    finally:
        graph.teardown()


def test_several_methods_of_one_actor(workers: list[Any]) -> None:
    a, b, _ = workers
    with InputNode() as value:
        first = a.add.bind(value)
        graph = a.join.bind(first, b.add.bind(first), a.add.bind(first)).experimental_compile()
    try:
        assert [ray.get(graph.execute(each)) for each in (1, 5)] == [[2, 12, 3], [6, 16, 7]]
    finally:
        graph.teardown()


def test_several_outputs(workers: list[Any]) -> None:
    a, b, _ = workers
    with InputNode() as value:
        low, high = a.halves.bind(value)
        graph = MultiOutputNode([low, b.add.bind(high), high]).experimental_compile()
    try:
        assert ray.get(graph.execute(9)) == [4, 15, 5]
        one, two, three = graph.execute(3)
        assert (ray.get(three), ray.get(two), ray.get(one)) == (2, 12, 1)
        for each in range(30):
            ray.get(graph.execute(each)[0])  # the others are dropped
    finally:
        graph.teardown()


def test_inputs(workers: list[Any]) -> None:
    a, b, c = workers
    with InputNode() as parts:
        graph = c.join.bind(a.add.bind(parts[0]), b.add.bind(parts.x), parts[1]).experimental_compile()
    try:
        assert ray.get(graph.execute(1, "two", x=3)) == [2, 13, "two"]
        with pytest.raises(ValueError, match="must be called with 2 positional args, got 1"):
            graph.execute(1, x=3)
        with pytest.raises(ValueError, match="must be called with kwarg `x`"):
            graph.execute(1, 2)
    finally:
        graph.teardown()


def test_values_of_every_kind_and_size(workers: list[Any]) -> None:
    a, b, _ = workers
    with InputNode() as value:
        graph = b.same.bind(a.same.bind(value)).experimental_compile(_buffer_size_bytes=1000)
    try:
        for each in (None, b"", b"x" * 5000, "text", [1, {"a": 2.5}], b"y" * 3_000_000):
            assert ray.get(graph.execute(each)) == each
        for size in (0, 10, 1_000_000, 100):
            array = np.arange(size, dtype=np.int32)
            assert np.array_equal(ray.get(graph.execute(array)), array)
    finally:
        graph.teardown()


def test_large_values_are_read_in_place(workers: list[Any]) -> None:
    a, b, c = workers
    with InputNode() as value:
        passed = a.same.bind(value)
        graph = c.join.bind(passed, b.same.bind(passed), value).experimental_compile()
    try:
        kept = []
        for number in range(15):  # more than a ring has slots
            array = np.full(1_000_000, number, dtype=np.int32)
            results = ray.get(graph.execute(array))
            assert not results[0].flags.writeable
            kept.append(results)
        unread = graph.execute(array)
    finally:
        graph.teardown()
    for number, results in enumerate(kept):
        assert all((each == number).all() for each in results), "what was read outlives what came after it"
    with contextlib.suppress(exceptions.RayChannelError):  # nothing else, whether it had come or not
        unread.get()


def test_an_error_travels_to_the_result_and_the_graph_lives_on(workers: list[Any]) -> None:
    a, b, c = workers
    with InputNode() as value:
        graph = c.join.bind(b.add.bind(a.add.bind(value)), value).experimental_compile()
    before = len(ray.get(b.seen.remote()))
    try:
        for _ in range(3):
            with pytest.raises(ValueError, match="-5 is negative") as caught:
                ray.get(graph.execute(-5))
            assert isinstance(caught.value, exceptions.RayTaskError)
            assert ray.get(graph.execute(1)) == [12, 1]
        assert len(ray.get(b.seen.remote())) - before == 3, "what needs a failed value is not called"
    finally:
        graph.teardown()


def test_a_result_is_asked_for_once(workers: list[Any]) -> None:
    with InputNode() as value:
        graph = workers[0].add.bind(value).experimental_compile()
    try:
        ref = graph.execute(1)
        for forbidden in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(ValueError, match="cannot be"):
                forbidden(ref)
        assert ref.get() == 2
        with pytest.raises(ValueError, match="can only be called once"):
            ref.get()
        with pytest.raises(ValueError, match="Use execute if enable_asyncio=False"):
            asyncio.run(graph.execute_async(1))
    finally:
        graph.teardown()


def test_executions_under_way_are_bounded(workers: list[Any]) -> None:
    with InputNode() as value:
        graph = workers[0].add.bind(value).experimental_compile(_max_inflight_executions=3)
    try:
        refs = [graph.execute(each) for each in range(3)]
        with pytest.raises(exceptions.RayCgraphCapacityExceeded, match="more than 3 in-flight executions"):
            graph.execute(3)
        assert ray.get(refs[0]) == 1
        refs.append(graph.execute(3))
        assert ray.get(refs[1:]) == [2, 3, 4]
        for each in range(10):
            graph.execute(each)  # dropped: nobody asks for them
        assert ray.get(graph.execute(5)) == 6
    finally:
        graph.teardown()


def test_results_kept_for_later_are_bounded(workers: list[Any]) -> None:
    with InputNode() as value:
        graph = workers[0].add.bind(value).experimental_compile(_max_buffered_results=2)
    try:
        refs = [graph.execute(each) for each in range(4)]
        with pytest.raises(exceptions.RayCgraphCapacityExceeded, match="more than 2 buffered results"):
            ray.get(refs[3])
        assert ray.get(refs[:3]) == [1, 2, 3]
    finally:
        graph.teardown()


def test_a_result_that_does_not_come_in_time(workers: list[Any], tmp_path: Any) -> None:
    with InputNode() as value:
        graph = workers[0].wait_for.bind(value).experimental_compile()
    path = tmp_path / "go"
    try:
        ref = graph.execute(str(path))
        with pytest.raises(exceptions.RayChannelTimeoutError, match="execution is hanging") as caught:
            ref.get(timeout=0.1)
        assert isinstance(caught.value, TimeoutError)
        path.touch()
        assert ray.get(graph.execute(str(path))) == str(path)
    finally:
        path.touch()
        graph.teardown()


def test_asyncio(workers: list[Any]) -> None:
    a, b, _ = workers

    async def run() -> None:
        with InputNode() as value:
            graph = MultiOutputNode([a.add.bind(value), b.add.bind(value)])
            graph = graph.experimental_compile(enable_asyncio=True, _max_inflight_executions=50)

        async def one(value: int) -> list[int]:
            first, second = await graph.execute_async(value)
            return [await first, await second]

        try:
            assert await asyncio.gather(*map(one, range(40))) == [[each + 1, each + 10] for each in range(40)]
            failed, _ = await graph.execute_async(-1)
            with pytest.raises(ValueError, match="-1 is negative"):
                await failed
            with pytest.raises(ValueError, match="only be awaited upon once"):
                await failed
            assert await one(1) == [2, 11]
            with pytest.raises(ValueError, match="Use execute_async if enable_asyncio=True"):
                graph.execute(1)
        finally:
            graph.teardown()

    asyncio.run(run())


def test_drawings(workers: list[Any], tmp_path: Any, capfd: Any, monkeypatch: Any) -> None:
    a, b, _ = workers
    with InputNode() as value:
        graph = b.add.bind(a.add.bind(value)).experimental_compile()
    try:
        text = graph.visualize(format="ascii", view=True)
        assert text in capfd.readouterr().out
        for line in ("0 ---> 1", "1 ---> 2", "2 ---> 3", "0:InputNode", "3:MultiOutputNode"):
            assert line in text
        for actor in (a, b):
            assert actor._actor_id.hex()[:6] in text
        with pytest.raises(ValueError, match="not compatible with 'ascii' format"):
            graph.visualize(format="ascii", channel_details=True)
        if IS_RAY:
            return  # its text or its graphviz, whichever is installed
        dot = tmp_path / "dot"
        dot.write_text('#!/bin/sh\n[ "$1" = -Tnone ] && { echo "no such format" >&2; exit 1; }\ncp "$4" "$3"\n')
        dot.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        name = tmp_path / "graph"
        source = graph.visualize(str(name), "svg", channel_details=True)
        assert name.read_text() == (tmp_path / "graph.svg").read_text() == source
        assert '1 -> 2 [label="shared memory"]' in source
        with pytest.raises(ValueError, match="cannot draw the graph as 'none': no such format"):
            graph.visualize(str(name), "none")
        monkeypatch.setenv("PATH", "")
        with pytest.raises(ImportError, match="apt-get install graphviz"):
            graph.visualize(str(tmp_path / "other"))
        assert (tmp_path / "other").read_text().startswith("digraph")
        assert not (tmp_path / "other.png").exists()
    finally:
        graph.teardown()


def test_after_teardown(workers: list[Any]) -> None:
    with InputNode() as value:
        graph = workers[0].add.bind(value).experimental_compile()
    assert ray.get(graph.execute(1)) == 2
    graph.teardown()
    graph.teardown()
    with pytest.raises(exceptions.RayChannelError):
        graph.execute(1)
    with InputNode() as value:
        again = workers[0].add.bind(value).experimental_compile()
    try:
        assert ray.get(again.execute(2)) == 3
    finally:
        again.teardown()


def test_an_actor_that_dies_is_named(workers: list[Any]) -> None:
    a = workers[0]
    doomed = Worker.remote()
    with InputNode() as value:
        graph = a.add.bind(doomed.end.bind(value)).experimental_compile()
    ref = graph.execute(3)
    with pytest.raises(exceptions.RayActorError) as caught:
        ref.get(timeout=60)
    assert doomed._actor_id.hex() in str(caught.value)
    graph.teardown()
    assert ray.get(a.join.remote(1)) == [1]


@better_than_ray
def test_with_an_actor_that_was_restarted_it_is_compiled_anew(workers: list[Any]) -> None:
    actor = Worker.options(max_restarts=1).remote(5)
    with InputNode() as value:
        node = workers[0].add.bind(actor.add.bind(value))
    graph = node.experimental_compile()
    assert ray.get(graph.execute(1)) == 7
    ray.kill(actor, no_restart=False)
    with pytest.raises(exceptions.RayActorError):
        while True:
            graph.execute(1).get(timeout=60)
    graph.teardown()
    graph = node.experimental_compile()
    assert ray.get(graph.execute(2)) == 8
    graph.teardown()


def test_what_cannot_be_compiled(workers: list[Any]) -> None:
    a, b, _ = workers

    @ray.remote
    def function(value: int) -> int:
        return value

    with InputNode() as value:
        with pytest.raises(NotImplementedError, match="only support actor method nodes"):
            a.add.bind(function.bind(value)).experimental_compile()
    with InputNode() as value:
        with pytest.raises(ValueError, match=r"already created with Actor\.remote\(\)"):
            Worker.bind().add.bind(value).experimental_compile()
    with InputNode() as value:
        with pytest.raises(ValueError, match="require each task to take a"):
            b.join.bind(a.add.bind(value), b.add.bind(1)).experimental_compile()
    with InputNode() as value:
        a.add.bind(value)
        with pytest.raises(ValueError, match="doesn't support leaf nodes"):
            b.add.bind(value).experimental_compile()
    with InputNode() as value:
        with pytest.raises(ValueError, match="must either use InputNode"):
            b.join.bind(value, value[0]).experimental_compile()
    with InputNode() as value:
        _ = value.unused
        with pytest.raises(ValueError, match="but unused is unused"):
            b.join.bind(value.used).experimental_compile()
    with pytest.raises(ValueError, match="No InputNode found in the DAG"):
        a.add.bind(b.add.bind(1)).experimental_compile()
    with InputNode() as value:
        with pytest.raises(ValueError, match="must be a positive integer"):
            a.add.bind(value).experimental_compile(_buffer_size_bytes=0)


@better_than_ray
def test_what_ray_does_not_do(workers: list[Any], tmp_path: Any) -> None:
    a, b, c = workers
    path = tmp_path / "go"
    with InputNode() as value:
        graph = c.same.bind(value=a.wait_for.bind(path=value)).experimental_compile()
    try:
        ref = graph.execute(str(path))
        with pytest.raises(exceptions.RayChannelTimeoutError):
            ref.get(timeout=0)
        path.touch()
        assert ref.get() == str(path), "after a time-out it can be asked for again"
        with pytest.raises(ValueError, match="which nothing in the graph takes"):
            graph.execute("x", more=1)
        with pytest.raises(TypeError, match="ObjectRef in it"):
            graph.execute([ray.put(1)])
    finally:
        graph.teardown()
    with InputNode() as value:
        node = a.add.bind(value)
    for _ in range(2):
        graph = node.experimental_compile()
        assert ray.get(graph.execute(1)) == 2, "compiled again"
        graph.teardown()
    with InputNode() as value:
        graph = MultiOutputNode([a.add.bind(value), a.same.bind(value)]).experimental_compile()
    try:
        failed, right = graph.execute(-1)
        with pytest.raises(ValueError, match="-1 is negative"):
            ray.get(failed)
        assert ray.get(right) == -1, "what does not need it"
    finally:
        graph.teardown()
    with InputNode() as value:
        graph = b.add.bind(a.unpicklable.bind(value)).experimental_compile()
    try:
        with pytest.raises(TypeError, match=r"return value of unpicklable\(\)"):
            ray.get(graph.execute(1))
    finally:
        graph.teardown()
    for refused, why in (
        (lambda value: a.coroutine.bind(value), "is a coroutine"),
        (lambda value: a.join.bind([value], value), "with nodes inside"),
        (lambda value: a.add.options(name="x").bind(value), "options of calls"),
    ):
        with InputNode() as value, pytest.raises(ValueError, match=why):
            refused(value).experimental_compile()
    with InputNode() as value, pytest.raises(ValueError, match="_overlap_gpu_communication"):
        a.add.bind(value).experimental_compile(_overlap_gpu_communication=True)
