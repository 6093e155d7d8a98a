"""The shape of scheduling: what may run while something else runs. Nothing here measures time: gates and records
tell what has begun, and what a wrong schedule would never begin shows as a timeout.
"""

from __future__ import annotations

import itertools
import os
import time

import pytest
from support.actors import Gate, Record
from support.drivers import Driver
from support.processes import PATIENCE_S

import shoal

pytestmark = pytest.mark.usefixtures("no_cluster")


@pytest.fixture
def released(tmp_path):
    """A file that lets tasks end which wait for it without asking Shoal, and so keep their CPU."""
    return str(tmp_path / "released")


def start(**resources):
    return shoal.init(logging_level="ERROR", log_to_driver=False, **resources)


# --- long and short tasks ------------------------------------------------------------------------------------------


def test_short_tasks_pass_a_long_one_of_the_same_function(released):
    start(num_cpus=2)

    @shoal.remote
    def task(number, released=None):
        while released is not None and not os.path.exists(released):
            pass_time()
        return number

    # Known to be short: many are pushed to each worker ahead.
    shoal.get([task.remote(number) for number in range(200)])
    refs = [task.remote(number, released if number == 50 else None) for number in range(200)]
    long = refs.pop(50)
    assert shoal.get(refs, timeout=PATIENCE_S) == [number for number in range(200) if number != 50]
    assert shoal.wait([long], timeout=0)[0] == []
    _touch(released)
    assert shoal.get(long, timeout=PATIENCE_S) == 50


def test_long_tasks_on_all_but_one_cpu(released):
    start(num_cpus=3)

    @shoal.remote
    def task(number, released=None):
        while released is not None and not os.path.exists(released):
            pass_time()
        return number

    shoal.get([task.remote(number) for number in range(200)])
    refs = [task.remote(number, released if number in (20, 120) else None) for number in range(300)]
    long = [refs.pop(120), refs.pop(20)]
    assert len(shoal.get(refs, timeout=PATIENCE_S)) == 298
    assert shoal.wait(long, num_returns=2, timeout=0)[0] == []
    _touch(released)
    assert sorted(shoal.get(long, timeout=PATIENCE_S)) == [20, 120]


def test_short_function_beside_a_long_one(released):
    start(num_cpus=2)

    @shoal.remote
    def long():
        while not os.path.exists(released):
            pass_time()
        return "long"

    @shoal.remote
    def short(number):
        return number

    slow = [long.remote()]
    assert shoal.get([short.remote(number) for number in range(100)], timeout=PATIENCE_S) == list(range(100))
    assert shoal.wait(slow, timeout=0)[0] == []
    _touch(released)
    assert shoal.get(slow, timeout=PATIENCE_S) == ["long"]


def test_all_cpus_work_on_what_one_submitted(released):
    """As many tasks begin at once as there are CPUs, although they have all been submitted to one queue."""
    start(num_cpus=4)

    @shoal.remote
    def task(released, record):
        record.note.remote(os.getpid())
        while not os.path.exists(released):
            pass_time()

    record = Record.remote()
    refs = [task.remote(released, record) for _ in range(4)]
    assert len(set(shoal.get(record.notes.remote(4), timeout=PATIENCE_S))) == 4
    _touch(released)
    shoal.get(refs, timeout=PATIENCE_S)


def test_short_tasks_that_turn_long_are_spread(released):
    """What was pushed ahead to one worker while the function was short goes to idle CPUs once it is long."""
    start(num_cpus=3)
    record = Record.remote()

    @shoal.remote
    def task(number, slow):
        if slow:
            record.note.remote(number)
            while not os.path.exists(released):
                pass_time()
        return number

    shoal.get([task.remote(number, False) for number in range(300)])
    refs = [task.remote(number, True) for number in range(3)]
    assert sorted(shoal.get(record.notes.remote(3), timeout=PATIENCE_S)) == [0, 1, 2]
    _touch(released)
    assert shoal.get(refs, timeout=PATIENCE_S) == [0, 1, 2]


def test_two_classes_take_turns():
    """A flood of tasks of one scheduling class does not keep another class out."""
    start(num_cpus=1)

    @shoal.remote
    def flood():
        pass_time()

    @shoal.remote(num_cpus=0.5)
    def other(number):
        return number

    floods = [flood.remote() for _ in range(5000)]
    for number in range(5):
        assert shoal.get(other.remote(number), timeout=PATIENCE_S) == number
    assert len(shoal.wait(floods, num_returns=len(floods), timeout=0)[0]) < len(floods)
    shoal.get(floods, timeout=PATIENCE_S)


def test_drivers_threads_take_turns():
    """Two functions that are submitted on and on, each from a thread of its own, both get on."""
    from concurrent.futures import ThreadPoolExecutor

    start(num_cpus=1)

    @shoal.remote
    def first(number):
        return number

    @shoal.remote
    def second(number):
        return -number

    def run(function, sign):
        for batch in range(20):
            refs = [function.remote(number) for number in range(50)]
            assert shoal.get(refs, timeout=PATIENCE_S) == [sign * number for number in range(50)], batch
        return sign

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(run, [first, second], [1, -1])) == [-1, 1]


# --- tasks that wait for tasks -------------------------------------------------------------------------------------


def test_recursion_on_one_cpu():
    start(num_cpus=1)

    @shoal.remote
    def depth(n):
        return n if n == 0 else 1 + shoal.get(depth.remote(n - 1))

    assert shoal.get(depth.remote(20), timeout=PATIENCE_S) == 20


def test_fan_out_inside_tasks():
    start(num_cpus=2)

    @shoal.remote
    def leaf(number):
        return number

    @shoal.remote
    def branch(number):
        return sum(shoal.get([leaf.remote(number * 10 + i) for i in range(10)]))

    @shoal.remote
    def trunk():
        return sum(shoal.get([branch.remote(number) for number in range(10)]))

    assert shoal.get([trunk.remote() for _ in range(3)], timeout=PATIENCE_S) == [sum(range(100))] * 3


def test_tree_of_the_same_function_on_one_cpu():
    start(num_cpus=1)

    @shoal.remote
    def fib(n):
        return n if n < 2 else sum(shoal.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert shoal.get(fib.remote(7), timeout=PATIENCE_S) == 13


def test_wait_for_a_task_queued_behind():
    """A task waits for a reference that the driver made after it, which was pushed to the same worker."""
    start(num_cpus=1)

    @shoal.remote
    def task(box):
        return 1 + (shoal.get(box[0]) if box else 0)

    shoal.get([task.remote(None) for _ in range(100)])
    record = Record.remote()

    @shoal.remote
    def waits():
        [box] = shoal.get(record.notes.remote(1))
        return shoal.get(box[0])

    refs = [waits.remote() for _ in range(3)]
    last = task.remote(None)
    shoal.get(record.note.remote([last]))
    assert shoal.get(refs, timeout=PATIENCE_S) == [1, 1, 1]


def test_chain_over_several_functions_and_resources():
    start(num_cpus=1, resources={"disk": 1, "net": 2})

    @shoal.remote(num_cpus=0, resources={"net": 1})
    def last():
        return ["last"]

    @shoal.remote(resources={"disk": 1})
    def third():
        return ["third", *shoal.get(last.remote())]

    @shoal.remote(num_cpus=0.5)
    def second():
        return ["second", *shoal.get(third.remote())]

    @shoal.remote(resources={"net": 1})
    def first():
        return ["first", *shoal.get(second.remote())]

    assert (
        shoal.get([first.remote() for _ in range(4)], timeout=PATIENCE_S) == [["first", "second", "third", "last"]] * 4
    )


def test_waiting_inside_a_task_lends_the_cpu():
    start(num_cpus=1)

    @shoal.remote
    def inner(number):
        return number

    @shoal.remote
    def outer():
        refs = [inner.remote(number) for number in range(10)]
        values = []
        while refs:
            ready, refs = shoal.wait(refs, num_returns=min(3, len(refs)))
            values += shoal.get(ready)
        return sorted(values)

    assert shoal.get([outer.remote() for _ in range(3)], timeout=PATIENCE_S) == [list(range(10))] * 3


def test_actor_that_holds_the_cpu_waits_for_a_task():
    start(num_cpus=1)

    @shoal.remote
    def task():
        return "done"

    @shoal.remote(num_cpus=1)
    class Holder:
        def ask(self):
            return shoal.get(task.remote())

    assert shoal.get(Holder.remote().ask.remote(), timeout=PATIENCE_S) == "done"


def test_blocked_tasks_give_their_cpu_back():
    start(num_cpus=1)
    gate = Gate.remote()

    @shoal.remote
    def blocked():
        shoal.get(gate.pass_through.remote())
        return "through"

    @shoal.remote
    def other():
        return "other"

    refs = [blocked.remote() for _ in range(5)]
    shoal.get(gate.arrived.remote(5), timeout=PATIENCE_S)
    assert shoal.get(other.remote(), timeout=PATIENCE_S) == "other"
    shoal.get(gate.open.remote())
    assert shoal.get(refs, timeout=PATIENCE_S) == ["through"] * 5


def test_timeout_inside_a_task():
    start(num_cpus=1)
    gate = Gate.remote()

    @shoal.remote
    def impatient():
        ref = gate.pass_through.remote()
        try:
            shoal.get(ref, timeout=0.1)
        except shoal.exceptions.GetTimeoutError:
            return shoal.wait([ref], timeout=0.1)[0]
        return None

    assert shoal.get([impatient.remote() for _ in range(2)], timeout=PATIENCE_S) == [[], []]


# --- resources -----------------------------------------------------------------------------------------------------


def most_at_once(spans):
    """Of ``(began, ended, amount)``, in the clock that all processes of the machine share."""
    changes = sorted(change for began, ended, amount in spans for change in ((began, amount), (ended, -amount)))
    return max(itertools.accumulate(amount for _, amount in changes))


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"num_cpus": 0.25}, 8),
        ({"num_cpus": 0.3}, 6),
        ({"num_cpus": 0.75}, 2),
        ({"num_cpus": 2}, 1),
        ({"num_cpus": 0, "resources": {"disk": 1}}, 3),
        ({"num_cpus": 0, "resources": {"disk": 0.5}}, 6),
        ({"num_cpus": 1, "resources": {"disk": 2}}, 1),
    ],
    ids=str,
)
def test_no_more_at_once_than_fit(options, most):
    start(num_cpus=2, resources={"disk": 3})

    @shoal.remote(**options)
    def task():
        began = time.monotonic()
        pass_time(0.005)
        return began, time.monotonic(), 1

    spans = shoal.get([task.remote() for _ in range(60)], timeout=PATIENCE_S)
    assert most_at_once(spans) <= most


def test_kinds_of_tasks_share_what_there_is():
    start(num_cpus=2, resources={"disk": 1})

    @shoal.remote
    def task(amount, disk):
        began = time.monotonic()
        pass_time(0.002)
        ended = time.monotonic()
        return (began, ended, amount), (began, ended, disk)

    refs = []
    for number in range(120):
        amount = [1, 0.5, 0.25, 2][number % 4]
        disk = [0, 0.5, 1][number % 3]
        refs.append(task.options(num_cpus=amount, resources={"disk": disk} if disk else {}).remote(amount, disk))
    cpus, disks = zip(*shoal.get(refs, timeout=PATIENCE_S), strict=True)
    assert most_at_once(cpus) <= 2
    assert most_at_once(disks) <= 1


def test_actors_hold_what_they_ask_for():
    start(num_cpus=2)

    @shoal.remote(num_cpus=1)
    class Holder:
        def ping(self):
            return "pong"

    @shoal.remote
    def task():
        return "ran"

    holders = [Holder.remote() for _ in range(2)]
    assert shoal.get([holder.ping.remote() for holder in holders], timeout=PATIENCE_S) == ["pong"] * 2
    waiting = task.remote()
    assert shoal.wait([waiting], timeout=0.2)[0] == []
    shoal.kill(holders[0])
    assert shoal.get(waiting, timeout=PATIENCE_S) == "ran"


def test_gpus_are_told_apart(released):
    start(num_cpus=4, num_gpus=2)
    record = Record.remote()

    @shoal.remote(num_gpus=1, num_cpus=0)
    def task():
        ids = shoal.get_gpu_ids()
        record.note.remote([os.environ["CUDA_VISIBLE_DEVICES"], [str(i) for i in ids]])
        while not os.path.exists(released):
            pass_time()

    @shoal.remote(num_gpus=0.5, num_cpus=0)
    def half():
        return [str(i) for i in shoal.get_gpu_ids()]

    @shoal.remote
    def without():
        return [str(i) for i in shoal.get_gpu_ids()]

    refs = [task.remote() for _ in range(2)]
    seen = shoal.get(record.notes.remote(2), timeout=PATIENCE_S)
    assert sorted(seen) == [["0", ["0"]], ["1", ["1"]]]
    assert shoal.available_resources().get("GPU", 0) == 0
    _touch(released)
    shoal.get(refs, timeout=PATIENCE_S)
    assert shoal.get([half.remote() for _ in range(4)], timeout=PATIENCE_S)[0] in (["0"], ["1"])
    assert shoal.get(without.remote(), timeout=PATIENCE_S) == []


def test_gpus_of_actors():
    start(num_cpus=2, num_gpus=2)

    @shoal.remote(num_gpus=1)
    class Holder:
        def ids(self):
            return [str(i) for i in shoal.get_gpu_ids()], os.environ["CUDA_VISIBLE_DEVICES"]

    holders = [Holder.remote() for _ in range(2)]
    assert sorted(shoal.get([holder.ids.remote() for holder in holders])) == [(["0"], "0"), (["1"], "1")]


def test_request_that_waits_for_a_large_share_is_not_starved():
    """Small tasks that come on and on do not keep out the one that needs the whole node."""
    start(num_cpus=2)

    @shoal.remote
    def small():
        pass_time(0.001)

    @shoal.remote(num_cpus=2)
    def large():
        return "ran"

    smalls = [small.remote() for _ in range(2000)]
    ref = large.remote()
    assert shoal.get(ref, timeout=PATIENCE_S) == "ran"
    shoal.get(smalls, timeout=PATIENCE_S)


# --- two drivers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["auto", "host:port"])
def test_two_drivers_share_the_cpus(address):
    context = start(num_cpus=2)

    @shoal.remote
    def task():
        began = time.monotonic()
        pass_time(0.005)
        return began, time.monotonic(), 1

    refs = [task.remote() for _ in range(100)]
    target = "auto" if address == "auto" else context.address_info["address"]
    program = f"""
        ray.init(address={target!r}, logging_level="ERROR")

        @ray.remote
        def task():
            began = time.monotonic()
            time.sleep(0.005)
            return began, time.monotonic(), 1

        spans = ray.get([task.remote() for _ in range(100)], timeout=60)
        node = ray.get_runtime_context().get_node_id()
        report(spans=spans, cpus=ray.cluster_resources()["CPU"], node=node)
    """
    with Driver(program) as driver:
        facts = driver.report()
        assert driver.wait() == 0, driver.text
    assert (facts["cpus"], facts["node"]) == (2, context.address_info["node_id"])
    assert most_at_once([*shoal.get(refs, timeout=PATIENCE_S), *facts["spans"]]) <= 2


def pass_time(seconds: float = 0.001) -> None:
    """Stands for work that does not ask Shoal for anything."""
    import time

    time.sleep(seconds)


def _touch(path: str) -> None:
    with open(path, "w"):
        pass
