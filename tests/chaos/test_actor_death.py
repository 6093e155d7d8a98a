"""An actor's worker dies, or the process that made the actor."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from support.actors import Gate, Record
from support.deaths import SIGNALS, WAYS, die, fail_in_a_thread
from support.processes import PATIENCE_S, all_gone, eventually

import shoal
from shoal import exceptions
from shoal._current import current
from shoal._net.gcs.actors import POLL_S
from shoal._owner.tasks import actor_submitter

pytestmark = pytest.mark.usefixtures("cluster")


@shoal.remote(num_cpus=0)
class Victim:
    def __init__(self):
        self.calls = 0

    def pid(self):
        return os.getpid()

    def worker_id(self):
        return shoal.get_runtime_context().get_worker_id()

    def count(self):
        self.calls += 1
        return self.calls

    def die(self, way):
        die(way)

    def live_until(self, last, number):
        if number == last:
            die("SIGKILL")
        return number

    def fail_in_a_thread(self):
        fail_in_a_thread()
        return "lives"

    def wait_at(self, gate):
        shoal.get(gate.pass_through.remote())
        return "passed"


@pytest.mark.parametrize(("way", "words"), WAYS.items(), ids=WAYS)
def test_error_names_the_reason(way, words):
    victim = Victim.remote()
    with pytest.raises(exceptions.ActorDiedError) as caught:
        shoal.get(victim.die.remote(way), timeout=PATIENCE_S)
    assert words in str(caught.value)
    with pytest.raises(exceptions.ActorDiedError, match="Victim"):
        shoal.get(victim.count.remote(), timeout=PATIENCE_S)


def test_calls_on_a_lost_connection_to_a_living_actor_fail_at_once_and_later_ones_reach_it(monkeypatch):
    """Without a word of the GCS, which hears nothing of it."""
    monkeypatch.setattr(actor_submitter, "LIVES_S", POLL_S)
    victim, gate = Victim.remote(), Gate.remote()
    worker_id = bytes.fromhex(shoal.get(victim.worker_id.remote(), timeout=PATIENCE_S))
    assert shoal.get(victim.count.remote(), timeout=PATIENCE_S) == 1
    once = victim.wait_at.remote(gate)
    shoal.get(gate.arrived.remote(1), timeout=PATIENCE_S)
    core = current()
    with core.lock:
        core.peers._connections[worker_id]._sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(exceptions.ActorUnavailableError, match="and it lives"):
        shoal.get(once, timeout=2 * POLL_S / 3)
    shoal.get(gate.open.remote(), timeout=PATIENCE_S)
    assert shoal.get(victim.count.remote(), timeout=PATIENCE_S) == 2


def test_calls_that_have_run_are_answered_although_the_next_one_kills_the_actor():
    """Replies of short calls are held back to be sent together."""
    for _ in range(3):
        victim = Victim.remote()
        refs = [victim.live_until.remote(300, number) for number in range(320)]
        assert shoal.get(refs[:300], timeout=PATIENCE_S) == list(range(300))
        for ref in refs[300:]:
            with pytest.raises(exceptions.ActorDiedError):
                shoal.get(ref, timeout=PATIENCE_S)


def test_coroutines_that_have_ended_are_answered_although_the_next_one_kills_the_actor():
    @shoal.remote(num_cpus=0)
    class Async:
        async def live_until(self, last, number):
            if number == last:
                die("SIGKILL")
            return number

    victim = Async.remote()
    refs = [victim.live_until.remote(300, number) for number in range(320)]
    assert shoal.get(refs[:300], timeout=PATIENCE_S) == list(range(300))
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get(refs[300], timeout=PATIENCE_S)


def test_exception_in_a_thread_is_no_death():
    victim = Victim.remote()
    assert shoal.get(victim.fail_in_a_thread.remote()) == "lives"
    assert shoal.get(victim.count.remote()) == 1


CRASHES = [way for way in WAYS if not way.startswith("sys.exit")]


@pytest.mark.parametrize("way", CRASHES)
def test_restarted_after_a_crash(way):
    victim = Victim.options(max_restarts=1).remote()
    assert shoal.get([victim.count.remote() for _ in range(3)]) == [1, 2, 3]
    first = shoal.get(victim.pid.remote())
    with pytest.raises(exceptions.ActorError):
        shoal.get(victim.die.remote(way), timeout=PATIENCE_S)

    def answers():
        try:
            return shoal.get(victim.pid.remote(), timeout=PATIENCE_S)
        except exceptions.ActorUnavailableError:
            return 0

    second = eventually(answers, "it is there again")
    assert second != first
    assert shoal.get(victim.count.remote(), timeout=PATIENCE_S) == 1
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get(victim.die.remote(way), timeout=PATIENCE_S)


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
def test_killed_during_a_call_that_may_be_repeated(signum):
    gate = Gate.remote()
    victim = Victim.options(max_restarts=1, max_task_retries=1).remote()
    pid = shoal.get(victim.pid.remote())
    running = victim.wait_at.remote(gate)
    queued = [victim.count.remote() for _ in range(10)]
    shoal.get(gate.arrived.remote(1))
    os.kill(pid, signum)
    shoal.get(gate.arrived.remote(2), timeout=PATIENCE_S)
    shoal.get(gate.open.remote())
    assert shoal.get(running, timeout=PATIENCE_S) == "passed"
    assert shoal.get(queued, timeout=PATIENCE_S) == list(range(1, 11))


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
def test_killed_during_a_call_that_may_not(signum):
    gate = Gate.remote()
    victim = Victim.options(max_restarts=1).remote()
    pid = shoal.get(victim.pid.remote())
    running = victim.wait_at.remote(gate)
    shoal.get(gate.arrived.remote(1))
    os.kill(pid, signum)
    with pytest.raises(exceptions.ActorError, match=signum.name):
        shoal.get(running, timeout=PATIENCE_S)


def test_killed_while_idle():
    victim = Victim.options(max_restarts=2, max_task_retries=2).remote()
    pids = set()
    for _ in range(3):
        pid = shoal.get(victim.pid.remote(), timeout=PATIENCE_S)
        pids.add(pid)
        os.kill(pid, signal.SIGKILL)
        all_gone([pid])
    assert len(pids) == 3
    with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
        shoal.get(victim.pid.remote(), timeout=PATIENCE_S)


@pytest.mark.parametrize("way", CRASHES)
def test_dies_in_the_constructor(way):
    @shoal.remote(num_cpus=0, max_restarts=1)
    class Stillborn:
        def __init__(self, record):
            shoal.get(record.note.remote(os.getpid()))
            die(way)

        def m(self):
            return 1

    record = Record.remote()
    actor = Stillborn.remote(record)
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get(actor.m.remote(), timeout=PATIENCE_S)
    assert len(shoal.get(record.notes.remote())) == 2


def test_actor_with_threads_killed():
    victim = Victim.options(max_concurrency=4).remote()
    gate = Gate.remote()
    calls = [victim.wait_at.remote(gate) for _ in range(4)]
    pid = shoal.get(Victim.remote().pid.remote())
    shoal.get(gate.arrived.remote(4))
    [pid] = [p for p in _pids_of("Victim.wait_at") if p != pid]
    os.kill(pid, signal.SIGKILL)
    for call in calls:
        with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
            shoal.get(call, timeout=PATIENCE_S)


def _pids_of(title):
    from support.processes import command, descendants

    return [pid for pid in descendants(os.getpid()) if command(pid) == f"shoal::{title}"]


@shoal.remote(num_cpus=0)
class Creator:
    def make(self, **options):
        self.made = Victim.options(**options).remote()
        return self.made, shoal.get(self.made.pid.remote())

    def pid(self):
        return os.getpid()


@pytest.mark.parametrize("options", [{}, {"max_restarts": -1}, {"name": "made by another"}], ids=str)
def test_actor_ends_with_its_creator(options):
    creator = Creator.remote()
    made, pid = shoal.get(creator.make.remote(**options))
    assert shoal.get(made.count.remote()) == 1
    os.kill(shoal.get(creator.pid.remote()), signal.SIGKILL)
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get(_after_its_end(made, pid), timeout=PATIENCE_S)
    all_gone([pid])


def _after_its_end(actor, pid):
    all_gone([pid])
    return actor.count.remote()


def test_actor_ends_with_the_creator_of_its_creator():
    @shoal.remote(num_cpus=0)
    class First:
        def __init__(self):
            self.creator = Creator.remote()

        def pids(self):
            return [
                os.getpid(),
                shoal.get(self.creator.pid.remote()),
                shoal.get(self.creator.make.remote(max_restarts=-1))[1],
            ]

    first = First.options(max_restarts=0).remote()
    pids = shoal.get(first.pids.remote())
    os.kill(pids[0], signal.SIGKILL)
    all_gone(pids)


def test_actor_ends_with_the_task_worker_that_made_it():
    @shoal.remote(max_retries=0)
    def make(record):
        victim = Victim.options(max_restarts=-1).remote()
        shoal.get(record.note.remote([os.getpid(), shoal.get(victim.pid.remote())]))
        signal.pause()

    record = Record.remote()
    ref = make.remote(record)
    [pids] = shoal.get(record.notes.remote(1))
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(exceptions.WorkerCrashedError):
        shoal.get(ref, timeout=PATIENCE_S)
    all_gone(pids)


def test_detached_actor_outlives_its_creator():
    creator = Creator.remote()
    made, pid = shoal.get(creator.make.remote(name="stays", lifetime="detached"))
    creator_pid = shoal.get(creator.pid.remote())
    os.kill(creator_pid, signal.SIGKILL)
    all_gone([creator_pid])
    assert shoal.get(made.pid.remote(), timeout=PATIENCE_S) == pid
    shoal.kill(shoal.get_actor("stays"))
    all_gone([pid])


@shoal.remote(num_cpus=0)
class Late:
    def __init__(self, argument):
        pass

    def call(self):
        return "called"


@shoal.remote(num_cpus=0)
class Maker:
    def make(self, gate, held):
        """An actor that waits for an argument; its handle is told to another one."""
        shoal.get(held.note.remote([Late.remote(gate.pass_through.remote())]))
        os._exit(1)


def test_creator_dies_before_the_actor_could_be_made():
    held = Record.remote()
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get(Maker.remote().make.remote(Gate.remote(), held), timeout=PATIENCE_S)
    [[late]] = shoal.get(held.notes.remote(1))
    with pytest.raises(exceptions.ActorDiedError, match="its creator has died before it could be made"):
        shoal.get(late.call.remote(), timeout=PATIENCE_S)
