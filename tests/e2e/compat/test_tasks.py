"""Remote functions: arguments, results, nesting, retries, resources."""

from __future__ import annotations

import itertools
import os
import threading

import numpy as np
import pytest
from e2e.compat.target import IS_RAY, QUIET, alive, better_than_ray, eventually, exceptions, new_signal, ray

pytestmark = pytest.mark.usefixtures("cluster")


def new_barrier(parties):
    """An actor whose ``wait`` returns to everybody once ``parties`` have called it."""

    class Barrier:
        def __init__(self):
            import asyncio

            self.full = asyncio.Event()
            self.arrived = 0

        async def wait(self):
            self.arrived += 1
            if self.arrived == parties:
                self.full.set()
            await self.full.wait()
            return self.arrived

    return ray.remote(Barrier).options(num_cpus=0).remote()


# --- arguments and results ---------------------------------------------------------------------------------


def test_squares():
    @ray.remote
    def square(x):
        return x * x

    assert ray.get([square.remote(i) for i in range(20)]) == [i * i for i in range(20)]


def test_positional_keyword_and_default_arguments():
    @ray.remote
    def f(a, b=2, *rest, c=3, **more):
        return a, b, rest, c, more

    assert ray.get(f.remote(1)) == (1, 2, (), 3, {})
    assert ray.get(f.remote(1, 5, 6, 7, c=8, d=9)) == (1, 5, (6, 7), 8, {"d": 9})
    assert ray.get(f.remote(b=1, a=0)) == (0, 1, (), 3, {})


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"d": 1}, "unexpected keyword argument 'd'"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_on_submission(args, kwargs, message):
    @ray.remote
    def f(a, b=2):
        return a, b

    with pytest.raises(TypeError, match=message):
        f.remote(*args, **kwargs)


def test_arguments_may_have_any_name():
    names = {"self": 1, "cls": 2, "args": 3, "kwargs": 4, "fn": 5}

    @ray.remote
    def f(**given):
        return given

    @ray.remote
    class A:
        def m(this, **given):
            return given

    actor = A.remote()
    assert ray.get([f.remote(**names), f.options(name="f").remote(**names)]) == [names] * 2
    assert ray.get([actor.m.remote(**names), actor.m.options(name="m").remote(**names)]) == [names] * 2
    assert ray.get(f.bind(**names).execute()) == names


def test_returns_none():
    @ray.remote
    def f():
        pass

    assert ray.get(f.remote()) is None


def test_several_returns():
    @ray.remote(num_returns=3)
    def f():
        return 1, "two", [3]

    refs = f.remote()
    assert isinstance(refs, list)
    assert ray.get(refs) == [1, "two", [3]]
    a, _, c = refs
    assert (ray.get(c), ray.get(a)) == ([3], 1)


def test_no_returns():
    @ray.remote(num_returns=0)
    def f():
        return 1

    assert f.remote() is None


def test_one_return_of_a_tuple_is_one_value():
    @ray.remote(num_returns=1)
    def f():
        return 1, 2

    assert ray.get(f.remote()) == (1, 2)


@pytest.mark.parametrize("returned", [1, 3])
def test_wrong_number_of_returns(returned):
    @ray.remote(num_returns=2, max_retries=0)
    def f():
        return list(range(returned))

    for ref in f.remote():
        with pytest.raises(ValueError, match=f"returned {returned} objects, but num_returns=2"):
            ray.get(ref)


def test_what_a_generator_yielded_before_it_raised_is_kept():
    @ray.remote(num_returns=3, max_retries=0)
    def some():
        yield 1
        yield 2
        raise ValueError("no third one")

    first, second, third = some.remote()
    assert ray.get([first, second]) == [1, 2]
    with pytest.raises(ValueError, match="no third one"):
        ray.get(third)
    assert ray.get(some.options(num_returns=2).remote()) == [1, 2]


def test_generator_that_yields_too_few_values():
    @ray.remote(num_returns=3, max_retries=0)
    def some():
        yield 1

    first, second, third = some.remote()
    assert ray.get(first) == 1
    for ref in (second, third):
        with pytest.raises(ValueError, match="returned 1 objects, but num_returns=3"):
            ray.get(ref)


@better_than_ray  # there it is logged in the worker only, or runs for ever
def test_generator_that_yields_too_many_values():
    @ray.remote(num_returns=2, max_retries=0)
    def counts():
        yield from itertools.count()

    for ref in counts.remote():
        with pytest.raises(ValueError, match="more than 2 objects, but num_returns=2"):
            ray.get(ref)


def test_generator_that_is_retried(tmp_path):
    path = tmp_path / "tries"

    @ray.remote(num_returns=2, max_retries=1, retry_exceptions=True)
    def some():
        yield [1] * 100_000
        with open(path, "a") as file:
            file.write("x")
        if path.stat().st_size < 2:
            raise ValueError("again")
        yield 2

    assert ray.get(some.remote()) == [[1] * 100_000, 2]


def test_returns_that_cannot_be_counted():
    @ray.remote(num_returns=2)
    def f():
        return 1

    with pytest.raises(TypeError):
        ray.get(f.remote())


def test_returning_an_exception_does_not_raise_it():
    @ray.remote
    def f():
        return ValueError("a value like any other")

    assert str(ray.get(f.remote())) == "a value like any other"


def test_large_arguments_and_results():
    @ray.remote
    def double(array):
        return array * 2

    array = np.arange(500_000)
    np.testing.assert_array_equal(ray.get(double.remote(array)), array * 2)
    np.testing.assert_array_equal(ray.get(double.remote(double.remote(array))), array * 4)


def test_arguments_are_copies():
    @ray.remote
    def append(items):
        items.append(4)
        return items

    items = [1, 2, 3]
    assert ray.get(append.remote(items)) == [1, 2, 3, 4]
    assert items == [1, 2, 3]


def test_reference_arguments_arrive_as_values():
    @ray.remote
    def f(a, b, c=None):
        return a, b, c

    assert ray.get(f.remote(ray.put(1), 2, c=ray.put(3))) == (1, 2, 3)


def test_nested_references_stay_references():
    @ray.remote
    def f(items, more=None):
        assert isinstance(items[0], ray.ObjectRef)
        assert isinstance(more["x"], ray.ObjectRef)
        return ray.get(items[0]) + ray.get(more["x"])

    assert ray.get(f.remote([ray.put(1)], more={"x": ray.put(2)})) == 3


def test_results_feed_other_tasks():
    @ray.remote
    def inc(x):
        return x + 1

    ref = inc.remote(0)
    for _ in range(50):
        ref = inc.remote(ref)
    assert ray.get(ref) == 51


def test_reference_returned_by_a_task_stays_a_reference():
    @ray.remote
    def make():
        return ray.put("inner")

    inner = ray.get(make.remote())
    assert isinstance(inner, ray.ObjectRef)
    assert ray.get(inner) == "inner"


def test_same_reference_several_times():
    @ray.remote
    def add(a, b, c):
        return a + b + c

    one = ray.put(np.ones(100_000))
    assert ray.get(add.remote(one, one, one)).sum() == 300_000


def test_numpy_results_of_several_returns():
    @ray.remote(num_returns=2)
    def split(array):
        return np.split(array, 2)

    left, right = ray.get(split.remote(np.arange(400_000)))
    assert left[-1] + 1 == right[0] == 200_000


# --- functions ---------------------------------------------------------------------------------------------


def test_closures_keep_what_they_captured_at_the_first_call():
    factor = 3

    @ray.remote
    def f(x):
        return x * factor

    assert ray.get(f.remote(2)) == 6
    factor = 10
    assert ray.get(f.remote(2)) == 6


def test_functions_may_use_what_is_defined_after_them():
    @ray.remote
    def f():
        return g() + ray.get(h.remote())

    def g():
        return 1

    @ray.remote
    def h():
        return 2

    assert ray.get(f.remote()) == 3


def test_lambdas_can_be_remote():
    assert ray.get(ray.remote(lambda x: x + 1).remote(1)) == 2


def test_remote_functions_are_values():
    @ray.remote
    def inc(x):
        return x + 1

    @ray.remote
    def apply(function, x):
        return ray.get(function.remote(x))

    assert ray.get(apply.remote(inc, 1)) == 2
    assert ray.get(apply.remote(inc, 2)) == 3


def test_local_classes_travel_by_value():
    class Point:
        def __init__(self, x):
            self.x = x

    @ray.remote
    def move(point):
        return Point(point.x + 1)

    moved = ray.get(move.remote(Point(1)))
    assert (type(moved).__name__, moved.x) == ("Point", 2)


def test_big_closure():
    table = np.arange(1_000_000)

    @ray.remote
    def f(i):
        return int(table[i])

    assert ray.get([f.remote(i) for i in range(5)]) == list(range(5))


def test_too_big_closure():
    table = np.zeros(110 * 1024 * 1024, dtype=np.uint8)

    @ray.remote
    def f():
        return table.size

    with pytest.raises(ValueError, match=r"The remote function .* is too large") as caught:
        f.remote()
    assert IS_RAY or "closure variable 'table' (110.0 MiB)" in str(caught.value)


@better_than_ray
def test_big_closure_is_warned_about():
    table = np.zeros(11 * 1024 * 1024, dtype=np.uint8)

    @ray.remote
    def f():
        return table.size

    with pytest.warns(UserWarning, match=r"f is very large .*closure variable 'table' \(11\.0 MiB\)"):
        assert ray.get(f.remote()) == 11 * 1024 * 1024


def test_options_do_not_change_the_function():
    @ray.remote
    def f():
        return 1, 2

    assert ray.get(f.options(num_returns=2).remote()) == [1, 2]
    assert ray.get(f.remote()) == (1, 2)


def test_keeps_docstring_and_signature():
    @ray.remote
    def f(a):
        """What f does."""

    assert f.remote.__doc__ == "What f does."
    assert f.remote.__name__ == "f"


def test_thousand_tasks():
    @ray.remote
    def f(i):
        return i

    assert sum(ray.get([f.remote(i) for i in range(1000)])) == 499_500


def test_submission_from_threads():
    @ray.remote
    def f(i):
        return i

    results = {}

    def work(i):
        results[i] = ray.get([f.remote(i * 100 + j) for j in range(20)])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [i * 100 + j for j in range(20)] for i in range(8)}


# --- nesting -------------------------------------------------------------------------------------------------


def test_recursion():
    @ray.remote
    def fib(n):
        return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert ray.get(fib.remote(7)) == 13


def test_nesting_deeper_than_there_are_cpus():
    @ray.remote
    def nest(depth):
        return 0 if depth == 0 else 1 + ray.get(nest.remote(depth - 1))

    assert ray.get(nest.remote(8)) == 8


def test_waiting_lends_the_cpu():
    @ray.remote
    def leaf():
        return 1

    @ray.remote(num_cpus=4)
    def root():
        ready, _ = ray.wait([leaf.options(num_cpus=4).remote()])
        return ray.get(ready[0])

    assert ray.get(root.remote()) == 1


def test_getting_from_threads_of_a_task():
    @ray.remote
    def leaf(i):
        return i

    @ray.remote
    def root():
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda i: ray.get(leaf.remote(i)), range(8)))

    assert ray.get(root.remote()) == list(range(8))


# --- resources -----------------------------------------------------------------------------------------------


def test_as_many_at_once_as_there_are_cpus():
    barrier = new_barrier(4)

    @ray.remote
    def arrive():
        return ray.get(barrier.wait.remote())

    assert ray.get([arrive.remote() for _ in range(4)], timeout=60) == [4] * 4


def test_fractional_cpus_run_together():
    signal = new_signal()

    @ray.remote(num_cpus=0.5)
    def hold():
        ray.get(signal.wait.remote())

    holding = [hold.remote() for _ in range(8)]
    eventually(lambda: ray.get(signal.waiters.remote()) == 8, "8 half CPUs on 4")
    ray.get(signal.send.remote())
    ray.get(holding)


def test_custom_resource_limits_concurrency():
    class Counter:
        def __init__(self):
            self.now = self.most = 0

        def enter(self):
            self.now += 1
            self.most = max(self.most, self.now)

        def leave(self):
            self.now -= 1
            return self.most

    counter = ray.remote(Counter).remote()

    @ray.remote(num_cpus=0, resources={"custom": 1})
    def use():
        ray.get(counter.enter.remote())
        return ray.get(counter.leave.remote())

    assert max(ray.get([use.remote() for _ in range(20)])) <= 2


def test_no_cpus_needed_none_waited_for():
    signal = new_signal()

    @ray.remote(num_cpus=4)
    def hold():
        # Blocks without a get, so that the CPUs are not lent.
        ray.get(signal.send.remote())
        while not os.path.exists(path):
            threading.Event().wait(0.01)

    @ray.remote(num_cpus=0)
    def free():
        return "ran"

    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "go")
        holding = hold.remote()
        ray.get(signal.wait.remote())
        assert ray.get(free.remote(), timeout=60) == "ran"
        open(path, "w").close()
        ray.get(holding)


def test_assigned_resources():
    @ray.remote
    def assigned():
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(assigned.remote()) == {"CPU": 1.0}
    options = {"num_cpus": 2, "resources": {"custom": 0.5}}
    assert ray.get(assigned.options(**options).remote()) == {"CPU": 2.0, "custom": 0.5}


def test_omp_num_threads():
    @ray.remote
    def threads():
        return os.environ.get("OMP_NUM_THREADS")

    assert ray.get(threads.remote()) == "1"
    assert ray.get(threads.options(num_cpus=2).remote()) == "2"


def test_process_title():
    @ray.remote
    def title():
        with open("/proc/self/cmdline", "rb") as cmdline:
            return cmdline.read().decode().rstrip("\0")

    assert ray.get(title.remote()).startswith("ray::title" if IS_RAY else "shoal::title")
    assert "::label" in ray.get(title.options(name="label").remote())


def test_works_where_the_driver_works():
    @ray.remote
    def where():
        return os.getcwd()

    assert ray.get(where.remote()) == os.getcwd()


# --- retries -------------------------------------------------------------------------------------------------


def test_crashed_worker_is_retried(tmp_path):
    path = str(tmp_path / "runs")

    @ray.remote(max_retries=3)
    def f():
        with open(path, "a") as runs:
            runs.write("x")
        if os.path.getsize(path) < 3:
            os._exit(1)
        return "done"

    assert ray.get(f.remote()) == "done"
    assert os.path.getsize(path) == 3


def test_default_is_three_retries(tmp_path):
    path = str(tmp_path / "runs")

    @ray.remote
    def f():
        with open(path, "a") as runs:
            runs.write("x")
        os._exit(1)

    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(f.remote())
    assert os.path.getsize(path) == 4


def test_no_retries(tmp_path):
    path = str(tmp_path / "runs")

    @ray.remote(max_retries=0)
    def f():
        with open(path, "a") as runs:
            runs.write("x")
        os._exit(1)

    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(f.remote())
    assert os.path.getsize(path) == 1


@pytest.mark.parametrize(
    ("retry", "runs_expected"),
    [(False, 1), (True, 3), ([ValueError], 3), ((KeyError, ValueError), 3), ([KeyError], 1), ([Exception], 3)],
    ids=str,
)
def test_exceptions_are_retried_when_asked_for(tmp_path, retry, runs_expected):
    path = str(tmp_path / "runs")

    @ray.remote(max_retries=2, retry_exceptions=retry)
    def f():
        with open(path, "a") as runs:
            runs.write("x")
        raise ValueError("again and again")

    with pytest.raises(ValueError, match="again and again"):
        ray.get(f.remote())
    assert os.path.getsize(path) == runs_expected


def test_exception_retried_until_it_works(tmp_path):
    path = str(tmp_path / "runs")

    @ray.remote(retry_exceptions=True)
    def f():
        with open(path, "a") as runs:
            runs.write("x")
        if os.path.getsize(path) < 3:
            raise ValueError("not yet")
        return "done"

    assert ray.get(f.remote()) == "done"


def test_max_calls_gives_a_new_process_each_time():
    @ray.remote(max_calls=1)
    def pid():
        return os.getpid()

    pids = [ray.get(pid.remote()) for _ in range(3)]
    assert len(set(pids)) == 3


def test_worker_with_used_up_max_calls_stays_while_what_it_made_is_held():
    @ray.remote
    class A:
        def m(self):
            return 5

    @ray.remote(num_cpus=0)
    def five():
        return 5

    @ray.remote(max_calls=1, max_retries=0)
    def makes():
        return os.getpid(), [five.remote(), ray.put(np.full(100_000, 5))]

    @ray.remote(max_calls=1, max_retries=0)
    def makes_an_actor():
        return os.getpid(), [A.remote()]

    @ray.remote(max_calls=1)
    def last():
        return os.getpid()

    made, refs = ray.get(makes.remote())
    maker, actors = ray.get(makes_an_actor.remote())
    pid = ray.get(last.remote())
    eventually(lambda: not alive(pid), "a worker that began to leave after those is gone")
    assert ray.get(refs[0], timeout=60) == 5
    assert ray.get(refs[1], timeout=60)[-1] == 5
    assert ray.get(actors[0].m.remote(), timeout=60) == 5
    if not IS_RAY:  # there they may stay for good
        del refs, actors
        eventually(lambda: not alive(made) and not alive(maker), "nobody needs them any more")


def test_max_calls_of_two():
    @ray.remote(max_calls=2)
    def pid():
        return os.getpid()

    pids = [ray.get(pid.remote()) for _ in range(8)]
    assert max(pids.count(p) for p in pids) <= 2


def test_exiting_worker_loses_no_queued_task():
    @ray.remote(max_calls=3)
    def f(i):
        return i

    assert ray.get([f.remote(i) for i in range(50)]) == list(range(50))


# --- one CPU ---------------------------------------------------------------------------------------------------


@pytest.fixture
def one_cpu():
    ray.shutdown()
    ray.init(num_cpus=1, **QUIET)
    yield
    ray.shutdown()


def test_no_deadlock_on_one_cpu(one_cpu):
    @ray.remote
    def leaf(i):
        return i

    @ray.remote
    def root(i):
        return sum(ray.get([leaf.remote(i), leaf.remote(i)]))

    assert ray.get([root.remote(i) for i in range(5)], timeout=90) == [0, 2, 4, 6, 8]


def test_waiting_for_a_task_of_others_lends_the_cpu(one_cpu):
    signal = new_signal()

    @ray.remote
    def leaf(_):
        return 1

    @ray.remote
    def reads(box):
        return ray.get(box[0]) + ray.get(box[0])

    @ray.remote
    def waits(box):
        ready, _ = ray.wait(box)
        return ray.get(ready[0])

    # It cannot run before the tasks that wait for it have begun.
    late = leaf.remote(signal.wait.remote())
    waiting = [reads.remote([late]), waits.remote([late])]
    signal.send.remote()
    assert ray.get(waiting, timeout=90) == [2, 1]


@pytest.mark.parametrize("value", [7, [1] * 500_000], ids=["inline", "stored"])
def test_getting_what_is_there_keeps_the_cpu(one_cpu, value):
    @ray.remote
    def reads(box):
        for _ in range(5):
            ready, _ = ray.wait(box)
            assert ray.get(ready[0]) == value
        return os.getpid()

    box = [ray.put(value)]
    assert len(set(ray.get([reads.remote(box) for _ in range(8)], timeout=90))) == 1
