"""The owner of objects, tasks and actors dies: whoever borrows from it is told at once, and what it had ends."""

from __future__ import annotations

import os
import signal
import time

import pytest
from support.actors import Record
from support.processes import PATIENCE_S, all_gone, eventually

import shoal
from shoal import exceptions

pytestmark = pytest.mark.usefixtures("cluster")


@shoal.remote(num_cpus=0)
class Owner:
    """Ends without a word when it is killed."""

    def pid(self):
        return os.getpid()

    def own(self):
        """Small and large, put and made by a task, ready and not."""
        return {
            "small": shoal.put("small"),
            "large": shoal.put(b"x" * 2_000_000),
            "result": small.remote(),
            "large result": large.remote(),
            "never ready": forever.remote(None),
        }

    def begin(self, record):
        self.ref = forever.remote(record)

    def spill(self, count):
        self.refs = [shoal.put(b"x" * 20_000_000) for _ in range(count)]


@shoal.remote(num_cpus=0)
def small():
    return "small"


@shoal.remote(num_cpus=0)
def large():
    return b"x" * 2_000_000


@shoal.remote(num_cpus=0)
def forever(record):
    if record is not None:
        shoal.get(record.note.remote(os.getpid()))
    time.sleep(1000)


@shoal.remote(num_cpus=0)
def get_it(refs):
    return shoal.get(refs[0])


def owner_died(ref):
    """False = the value is still here."""
    try:
        shoal.get(ref, timeout=PATIENCE_S)
    except exceptions.OwnerDiedError as error:
        return "owner has exited or was cut off (worker " in str(error)
    return False


def killed(owner):
    pid = shoal.get(owner.pid.remote())
    os.kill(pid, signal.SIGKILL)
    all_gone([pid])


def test_each_kind_of_object_says_that_its_owner_has_died():
    owner = Owner.remote()
    refs = shoal.get(owner.own.remote())
    waiting = get_it.remote([refs["never ready"]])
    shoal.wait([refs[name] for name in refs if name != "never ready"], num_returns=4, timeout=PATIENCE_S)
    killed(owner)
    assert [shoal.get(refs[name]) for name in ("small", "result")] == ["small"] * 2, "what has come here is here"
    for name in ("large", "large result", "never ready"):
        # Those in the store are freed when their raylet sees the owner's end.
        eventually(lambda name=name: owner_died(refs[name]), f"{name} says so")
    assert shoal.wait(list(refs.values()), num_returns=5, timeout=PATIENCE_S)[1] == []
    # A task that waits for it, and one that is made of it.
    with pytest.raises(exceptions.OwnerDiedError):
        shoal.get(waiting, timeout=PATIENCE_S)
    with pytest.raises(exceptions.OwnerDiedError):
        shoal.get(get_it.remote([refs["never ready"]]), timeout=PATIENCE_S)


def test_a_reference_that_comes_after_its_owners_death_says_so():
    @shoal.remote(num_cpus=0)
    class Keeper:
        def keep(self, refs):
            self.refs = refs

        def give(self):
            return self.refs

    owner, keeper = Owner.remote(), Keeper.remote()
    shoal.get(keeper.keep.remote(shoal.get(owner.own.remote())))
    killed(owner)
    refs = shoal.get(keeper.give.remote(), timeout=PATIENCE_S)
    for ref in refs.values():
        eventually(lambda ref=ref: owner_died(ref), "the reference says so")


def test_its_tasks_stop():
    owner, record = Owner.remote(), Record.remote()
    shoal.get(owner.begin.remote(record))
    pids = shoal.get(record.notes.remote(1))
    killed(owner)
    all_gone(pids)


def test_its_objects_are_freed():
    def used():
        return shoal.cluster_resources()["object_store_memory"] - shoal.available_resources()["object_store_memory"]

    before = used()
    owner = Owner.remote()
    shoal.get(owner.spill.remote(3))
    eventually(lambda: used() >= before + 60_000_000, "they are in the store")
    killed(owner)
    eventually(lambda: used() <= before, "they are freed")
