"""A worker that grows too much ends before the machine runs out of memory, and its caller is told why."""

from __future__ import annotations

import os
import re
import time

import numpy as np
import pytest
from support.actors import Record
from support.processes import PATIENCE_S

import shoal
from shoal import exceptions


@pytest.fixture(scope="module", autouse=True)
def cluster_over_its_threshold():
    """The threshold is passed from the start, so whichever worker grows is to blame, whatever the machine's memory."""
    with shoal.init(
        num_cpus=2, logging_level="ERROR", log_to_driver=False, _system_config={"memory_usage_threshold": 0.001}
    ):
        yield


def hog():
    """Grows until it is stopped, by at most 2 GiB."""
    kept = []
    for _ in range(16):
        kept.append(bytearray(os.urandom(1 << 20) * 128))
        time.sleep(0.3)
    return len(kept)


def test_task_is_killed():
    with pytest.raises(exceptions.OutOfMemoryError) as caught:
        shoal.get(shoal.remote(max_retries=0)(hog).remote(), timeout=PATIENCE_S)
    job_id = shoal.get_runtime_context().get_job_id()
    for part in ("Task hog", "GiB", "threshold", f"job {job_id}"):
        assert part in str(caught.value)
    # On a machine that runs other tests, too, the largest processes may be theirs.
    assert re.search(r"used by .+ \(pid \d+\) \d+\.\d+ GiB", str(caught.value))


def test_task_is_retried():
    record = Record.remote()

    @shoal.remote(max_retries=1)
    def grows_once():
        shoal.get(record.note.remote(os.getpid()))
        return hog() if len(shoal.get(record.notes.remote())) == 1 else "small this time"

    assert shoal.get(grows_once.remote(), timeout=PATIENCE_S) == "small this time"


def test_who_grew_is_killed_and_the_one_beside_it_gets_through():
    """Which of two that have grown is killed depends on when they are looked at: test_memory_policy."""
    record = Record.remote()

    @shoal.remote(max_retries=1)
    def modest(name):
        kept = np.ones(16 << 20, np.uint8)
        shoal.get(record.note.remote((name, os.getpid())))
        other = dict(shoal.get(record.notes.remote(at_least=2)))["large"]
        while os.path.exists(f"/proc/{other}"):
            time.sleep(0.005)
        return len(kept)

    @shoal.remote(max_retries=1)
    def large(name):
        shoal.get(record.note.remote((name, os.getpid())))
        notes = shoal.get(record.notes.remote(at_least=2))
        if len(notes) > 2:
            return notes
        return hog()

    first = modest.remote("modest")
    shoal.get(record.notes.remote(at_least=1))
    second = large.remote("large")
    assert shoal.get(first, timeout=PATIENCE_S) == 16 << 20
    assert [name for name, _ in shoal.get(second, timeout=PATIENCE_S)] == ["modest", "large", "large"]


def test_actor_is_killed():
    @shoal.remote
    class Grower:
        def grow(self):
            return hog()

    with pytest.raises(exceptions.OutOfMemoryError, match="GiB"):
        shoal.get(Grower.remote().grow.remote(), timeout=PATIENCE_S)


def test_actor_is_restarted():
    @shoal.remote(max_restarts=1, max_task_retries=1)
    class Grower:
        def grow(self, record):
            shoal.get(record.note.remote(os.getpid()))
            return hog() if len(shoal.get(record.notes.remote())) == 1 else "small this time"

    assert shoal.get(Grower.remote().grow.remote(Record.remote()), timeout=PATIENCE_S) == "small this time"


def test_others_go_on():
    @shoal.remote(max_retries=0)
    def small(number):
        return number

    doomed = shoal.remote(max_retries=0)(hog).remote()
    assert shoal.get([small.remote(number) for number in range(100)], timeout=PATIENCE_S) == list(range(100))
    with pytest.raises(exceptions.OutOfMemoryError):
        shoal.get(doomed, timeout=PATIENCE_S)


def test_large_objects_are_not_the_workers_memory():
    """What lies in the node's store is everybody's."""

    @shoal.remote(max_retries=0)
    def make(array):
        time.sleep(0.6)  # two looks of the monitor
        return int(array[-1]), array

    last, array = shoal.get(make.remote(shoal.put(np.arange(25 << 20))), timeout=PATIENCE_S)
    assert last == array[-1] == (25 << 20) - 1
