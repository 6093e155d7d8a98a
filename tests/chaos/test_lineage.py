"""Results that are lost with their node are made again, each once, or an error says why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import lost_nodes
from support.clusters import ProcessCluster
from support.drivers import Driver
from support.lost_nodes import lose_all
from support.processes import eventually

import shoal
from shoal import exceptions
from shoal.experimental import get_local_object_locations

#: Numbers in one value: enough bytes for the object store.
COUNT = 50_000

cluster = lost_nodes.cluster


@shoal.remote(num_cpus=0, resources={"home": 0.1})
class Log:
    """What has run, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def note(self, name: str) -> None:
        self.names.append(name)

    def count(self) -> dict[str, int]:
        return {name: self.names.count(name) for name in self.names}


@shoal.remote(resources={"there": 1})
def add(log: Any, name: str, *values: Any) -> Any:
    """An array of the sum of the arguments and one."""
    shoal.get(log.note.remote(name))
    return np.full(COUNT, 1 + sum(int(value[0]) for value in values))


def test_a_lost_result_is_made_again(cluster: ProcessCluster) -> None:
    log = Log.remote()  # type: ignore[attr-defined]
    ref = add.remote(log, "a")
    shoal.wait([ref], fetch_local=False)
    lose_all(cluster)
    assert shoal.get(ref, timeout=60)[0] == 1
    assert shoal.get(log.count.remote()) == {"a": 2}


def test_what_nobody_wants_is_not_made_again(cluster: ProcessCluster) -> None:
    log = Log.remote()  # type: ignore[attr-defined]
    refs = [add.remote(log, name) for name in "ab"]
    shoal.wait(refs, num_returns=2, fetch_local=False)
    lose_all(cluster)

    def nowhere() -> bool:
        return not any(place["node_ids"] for place in get_local_object_locations(refs).values())

    eventually(nowhere, "both are known to be lost")
    assert shoal.get(refs[0], timeout=60)[0] == 1
    assert shoal.get(log.count.remote()) == {"a": 2, "b": 1}
    # Who only looks wants it, too.
    eventually(lambda: shoal.wait(refs[1:], timeout=0)[0], "it is made again")
    assert shoal.get(log.count.remote()) == {"a": 2, "b": 2}


def test_a_chain_is_made_again_from_its_beginning_although_nobody_holds_that(cluster: ProcessCluster) -> None:
    log = Log.remote()  # type: ignore[attr-defined]
    ref = add.remote(log, "0")
    for number in range(1, 5):
        ref = add.remote(log, str(number), ref)
    shoal.wait([ref], fetch_local=False)
    lose_all(cluster)
    assert shoal.get(ref, timeout=60)[0] == 5
    assert shoal.get(log.count.remote()) == {str(number): 2 for number in range(5)}


def test_a_diamond_is_made_again_once_however_many_wait(cluster: ProcessCluster) -> None:
    log = Log.remote()  # type: ignore[attr-defined]
    top = add.remote(log, "top")
    sides = [add.remote(log, f"side {number}", top) for number in range(4)]
    bottom = add.remote(log, "bottom", *sides)
    shoal.wait([bottom], fetch_local=False)
    lose_all(cluster)
    futures = [ref.future() for ref in (bottom, top, *sides)]
    ready, _ = shoal.wait([bottom, top, *sides], num_returns=6, timeout=60)
    assert len(ready) == 6
    assert shoal.get(bottom)[0] == 9
    assert [int(future.result(60)[0]) for future in futures] == [9, 1, 2, 2, 2, 2]
    assert set(shoal.get(log.count.remote()).values()) == {2}


def test_a_task_whose_argument_is_lost_gives_its_worker_up_for_what_makes_that(cluster: ProcessCluster) -> None:
    log = Log.remote()  # type: ignore[attr-defined]
    one = add.remote(log, "one")
    two = add.remote(log, "two", one)
    shoal.wait([two], fetch_local=False)
    lose_all(cluster)
    # Each takes all of what there is, so a task that waited for its argument would wait for ever.
    three = add.options(resources={"there": 10}).remote(log, "three", one, two)
    assert shoal.get(three, timeout=60)[0] == 4
    assert shoal.get(log.count.remote()) == {"one": 2, "two": 2, "three": 1}


def test_borrowers_get_what_the_owner_makes_again(cluster: ProcessCluster) -> None:
    @shoal.remote(num_cpus=0, resources={"home": 0.1})
    class Reader:
        def take(self, refs: list[Any]) -> None:
            self.refs = refs

        def read(self) -> int:
            return int(shoal.get(self.refs)[0][0])

        def sum(self, value: Any) -> int:
            return int(value[0])

    log = Log.remote()  # type: ignore[attr-defined]
    readers = [Reader.remote() for _ in range(2)]  # type: ignore[attr-defined]
    ref = add.remote(log, "a")
    shoal.wait([ref], fetch_local=False)
    shoal.get([reader.take.remote([ref]) for reader in readers])
    lose_all(cluster)
    calls = [reader.read.remote() for reader in readers] + [reader.sum.remote(ref) for reader in readers]
    assert shoal.get(calls, timeout=60) == [1, 1, 1, 1]
    assert shoal.get(log.count.remote()) == {"a": 2}


def test_references_inside_of_lost_values_come_back_with_them(cluster: ProcessCluster) -> None:
    @shoal.remote(resources={"there": 1}, num_returns=2)
    def outer(log: Any) -> Any:
        shoal.get(log.note.remote("outer"))
        return [shoal.put(np.full(COUNT, 7)), np.zeros(COUNT)], np.full(COUNT, 8)

    log = Log.remote()  # type: ignore[attr-defined]
    nested, plain = outer.remote(log)
    shoal.wait([plain], fetch_local=False)
    lose_all(cluster)
    inner, _ = shoal.get(nested, timeout=60)
    assert shoal.get(inner)[0] == 7
    assert shoal.get(plain)[0] == 8
    assert shoal.get(log.count.remote()) == {"outer": 2}


def test_what_cannot_be_made_again_says_why(cluster: ProcessCluster) -> None:
    log = Log.remote()  # type: ignore[attr-defined]
    never = add.options(max_retries=0).remote(log, "never")
    of_never = add.remote(log, "of never", never)
    shoal.wait([never, of_never], num_returns=2, fetch_local=False)
    lose_all(cluster)
    for ref in (never, of_never):
        with pytest.raises(exceptions.ObjectReconstructionFailedError, match="max_retries=0") as failed:
            shoal.get(ref, timeout=60)
        assert failed.value.reason == "RETRIES_DISABLED"
        assert failed.value.object_ref_hex == never.hex()


def test_another_number_of_values_is_an_error(cluster: ProcessCluster) -> None:
    @shoal.remote(resources={"there": 1}, num_returns=2)
    def moody(log: Any) -> Any:
        shoal.get(log.note.remote("moody"))
        return [np.zeros(COUNT)] * (1 + shoal.get(log.count.remote())["moody"] % 3)

    log = Log.remote()  # type: ignore[attr-defined]
    first, second = moody.remote(log)
    shoal.wait([first, second], num_returns=2, fetch_local=False)
    lose_all(cluster)
    with pytest.raises(ValueError, match="returned 3 objects, but num_returns=2"):
        shoal.get(first, timeout=60)


def test_results_of_actors_are_made_again_by_calls_that_may_be_repeated(cluster: ProcessCluster) -> None:
    @shoal.remote(num_cpus=0, resources={"there": 1}, max_restarts=-1)
    class Maker:
        def make(self, log: Any) -> Any:
            shoal.get(log.note.remote("make"))
            return np.full(COUNT, 5)

    log = Log.remote()  # type: ignore[attr-defined]
    maker = Maker.remote()  # type: ignore[attr-defined]
    again = maker.make.options(max_task_retries=2).remote(log)
    once = maker.make.remote(log)
    shoal.wait([again, once], num_returns=2, fetch_local=False)
    lose_all(cluster)
    assert shoal.get(again, timeout=60)[0] == 5
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match="RETRIES_DISABLED"):
        shoal.get(once, timeout=60)
    assert shoal.get(log.count.remote()) == {"make": 3}


_FEW_RECORDS = """
import numpy as np

ray.init(logging_level="ERROR", log_to_driver=False, _system_config={"max_lineage_bytes": 30_000})

@ray.remote(resources={"there": 1})
def make(number, padding): return np.full(50_000, number)

refs = []
for number in range(4):  # the oldest is the one that has ended first
    refs.append(make.remote(number, bytes(10_000)))
    ray.wait(refs, num_returns=len(refs), fetch_local=False)
report(made=True)
command()

def outcome(ref):
    try:
        return int(ray.get(ref, timeout=60)[0])
    except ray.exceptions.ObjectReconstructionFailedError as error:
        assert "raise max_lineage_bytes" in str(error)
        return error.reason

report(outcomes=[outcome(ref) for ref in refs])
command()
"""


def test_beyond_max_lineage_bytes_the_oldest_are_not_made_again_and_say_so(cluster: ProcessCluster) -> None:
    with Driver(_FEW_RECORDS, env=cluster.environment) as driver:
        assert driver.report() == {"made": True}
        lose_all(cluster)
        driver.tell("lost")
        assert driver.report() == {"outcomes": ["LINEAGE_EVICTED", "LINEAGE_EVICTED", 2, 3]}
        driver.tell("end")
        assert driver.wait() == 0
