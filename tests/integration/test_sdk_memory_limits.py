"""``enforce_memory=True``: who uses more memory than it asked for fails, and nobody else."""

from __future__ import annotations

import multiprocessing
import os
import time

import numpy as np
import pytest
from support.processes import PATIENCE_S

import shoal
from shoal import exceptions

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """The node's own memory is not watched."""
    with shoal.init(
        num_cpus=2,
        logging_level="ERROR",
        log_to_driver=False,
        _system_config={"memory_usage_threshold": 1.0},
    ):
        yield


@shoal.remote(memory=100 * MIB, enforce_memory=True)
def use(mib):
    """Within its limit it comes back at once."""
    kept = np.ones(mib * MIB, np.uint8)
    while mib > 100:
        time.sleep(1)
    return os.getpid(), len(kept) // MIB


def test_that_task_alone_fails_and_says_why():
    refs = [use.remote(300 if number == 10 else 20) for number in range(20)]
    for number, ref in enumerate(refs):
        if number != 10:
            assert shoal.get(ref, timeout=PATIENCE_S)[1] == 20
    with pytest.raises(exceptions.OutOfMemoryError) as caught:
        shoal.get(refs[10], timeout=PATIENCE_S)
    assert "Task use was killed: it used 0." in str(caught.value)
    assert f"asked for 0.10 GiB (memory={100 * MIB}, enforce_memory=True)" in str(caught.value)


@pytest.mark.parametrize("mib", [10, 300], ids=["within", "beyond"])
def test_what_its_subprocesses_use_counts_and_what_a_fork_shares_counts_once(mib):
    @shoal.remote(memory=200 * MIB, enforce_memory=True)
    def fork():
        kept = np.ones(120 * MIB, np.uint8)
        context = multiprocessing.get_context("fork")
        begun, end = context.Event(), context.Event()

        def grow():
            grown = np.ones(mib * MIB, np.uint8)
            begun.set()
            end.wait(PATIENCE_S)
            return grown

        child = context.Process(target=grow)
        child.start()
        begun.wait()
        time.sleep(0.3)  # six looks of the monitor
        end.set()
        child.join()
        return len(kept) // MIB, child.exitcode

    if mib == 10:
        assert shoal.get(fork.remote(), timeout=PATIENCE_S) == (120, 0)
    else:
        with pytest.raises(exceptions.OutOfMemoryError, match="Task fork was killed"):
            shoal.get(fork.remote(), timeout=PATIENCE_S)


def test_it_is_not_run_again(tmp_path):
    """Whatever max_retries says: it would do the same."""

    @shoal.remote(memory=50 * MIB, enforce_memory=True, max_retries=5)
    def grow():
        with open(tmp_path / "runs", "a") as runs:
            runs.write("x")
        kept = np.ones(200 * MIB, np.uint8)
        while True:
            time.sleep(len(kept))

    with pytest.raises(exceptions.OutOfMemoryError):
        shoal.get(grow.remote(), timeout=PATIENCE_S)
    assert (tmp_path / "runs").read_text() == "x"


def test_without_the_option_memory_is_a_matter_of_admission_only():
    @shoal.remote(memory=100 * MIB)
    def use_more():
        kept = np.ones(300 * MIB, np.uint8)
        time.sleep(0.3)  # six looks of the monitor
        return os.getpid(), len(kept) // MIB

    pid, size = shoal.get(use_more.remote(), timeout=PATIENCE_S)
    assert size == 300
    assert shoal.get(use.remote(1), timeout=PATIENCE_S)[0] != pid, "what it left is not counted against another"


def test_an_actor_restarts_as_often_as_it_may():
    @shoal.remote(memory=100 * MIB, enforce_memory=True, max_restarts=1, max_task_retries=0)
    class Keeper:
        def keep(self, mib):
            self.kept = np.ones(mib * MIB, np.uint8)
            while mib > 100:
                time.sleep(1)
            return os.getpid()

    keeper = Keeper.remote()
    first = shoal.get(keeper.keep.remote(20), timeout=PATIENCE_S)
    with pytest.raises(exceptions.ActorUnavailableError, match="asked for"):
        shoal.get(keeper.keep.remote(300), timeout=PATIENCE_S)
    while True:
        try:
            second = shoal.get(keeper.keep.remote(20), timeout=PATIENCE_S)
            break
        except exceptions.ActorUnavailableError:
            continue
    assert second != first
    with pytest.raises(exceptions.OutOfMemoryError, match=r"Keeper was killed: it used .* asked for"):
        shoal.get(keeper.keep.remote(300), timeout=PATIENCE_S)
