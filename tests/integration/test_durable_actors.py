"""Checkpoints and durable actors on an embedded cluster, through crashes of the actor's process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from support.processes import PATIENCE_S, all_gone, eventually

import shoal
from shoal import _current, exceptions

pytestmark = pytest.mark.usefixtures("cluster")


class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, by=1):
        self.value += by
        return self.value

    def read(self):
        return self.value

    def pid(self):
        return os.getpid()


Durable = shoal.remote(num_cpus=0, durable=True, checkpoint_every=5)(Counter)


def crash(actor):
    pid = shoal.get(actor.pid.remote(), timeout=PATIENCE_S)
    os.kill(pid, signal.SIGKILL)
    all_gone([pid])


def again(call):
    """What a call gives once its actor is there again."""

    def answers():
        try:
            return [shoal.get(call(), timeout=PATIENCE_S)]
        except exceptions.ActorUnavailableError:
            return []

    return eventually(answers, "the actor is there again")[0]


def blobs(actor):
    """The names of what is stored for it."""
    place = Path(_current.current().session_dir, "spill", "checkpoint", actor._actor_id.hex())
    return sorted(str(path.relative_to(place)).partition("%")[0] for path in place.rglob("*") if path.is_file())


def checkpoints(actor):
    return [name for name in blobs(actor) if "/" not in name]


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_state_is_restored_after_a_crash():
    counter = shoal.remote(num_cpus=0, checkpoint_every=3)(Counter).remote(100)
    shoal.get([counter.add.remote() for _ in range(4)])
    eventually(lambda: checkpoints(counter), "the checkpoint is stored")
    crash(counter)
    # The fourth call was after the checkpoint, and so was ``pid``.
    assert again(counter.read.remote) == 103


def test_checkpoint_of_an_idle_actor():
    counter = shoal.remote(num_cpus=0, checkpoint_interval_s=0.1)(Counter).remote()
    shoal.get(counter.add.remote())
    eventually(lambda: checkpoints(counter), "the checkpoint is stored")
    crash(counter)
    assert again(counter.read.remote) == 1


class Saving(Counter):
    def save(self):
        shoal.checkpoint()
        self.value += 1000  # it is not part of it any more


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}, {"checkpoint_every": 10_000}], ids=repr)
def test_checkpoint_where_the_actor_says(options):
    counter = shoal.remote(num_cpus=0, max_restarts=-1)(Saving).options(**options).remote()
    shoal.get([counter.add.remote() for _ in range(3)])
    shoal.get(counter.save.remote())
    crash(counter)
    assert again(counter.read.remote) == 3


def test_checkpoint_where_none_can_be():
    with pytest.raises(TypeError, match="outside of an actor"):
        shoal.checkpoint()
    counter = shoal.remote(num_cpus=0)(Saving).remote()
    with pytest.raises(exceptions.CheckpointError, match="give it max_restarts"):
        shoal.get(counter.save.remote())
    assert shoal.get(counter.add.remote()) == 1


def test_actor_without_checkpoints_begins_anew():
    counter = shoal.remote(num_cpus=0, max_restarts=1)(Counter).remote(5)
    shoal.get(counter.add.remote())
    crash(counter)
    assert again(counter.read.remote) == 5


def test_hooks_say_what_the_state_is():
    @shoal.remote(num_cpus=0, durable=True)
    class Hooked:
        def __init__(self):
            self.lock = __import__("threading").Lock()
            self.value = 0

        def __shoal_checkpoint__(self):
            return {"value": self.value}

        def __shoal_restore__(self, state):
            assert self.lock is not None, "the constructor has run before"
            self.value = state["value"]

        def add(self):
            self.value += 1
            return self.value

        def pid(self):
            return os.getpid()

    hooked = Hooked.remote()
    assert shoal.get([hooked.add.remote() for _ in range(3)]) == [1, 2, 3]
    crash(hooked)
    assert shoal.get(hooked.add.remote(), timeout=PATIENCE_S) == 4


def test_one_hook_without_the_other():
    class Half:
        def __shoal_checkpoint__(self):
            return 1

    with pytest.raises(TypeError, match="defines __shoal_checkpoint__ only"):
        shoal.remote(durable=True)(Half).remote()


def test_state_that_cannot_be_pickled_is_named_at_once():
    @shoal.remote(num_cpus=0, durable=True)
    class Stuck:
        def __init__(self):
            self.inner = {"deep": [(each for each in ())]}

        def call(self):
            return 1

    with pytest.raises(exceptions.ActorDiedError, match="the state of actor Stuck") as caught:
        shoal.get(Stuck.remote().call.remote(), timeout=PATIENCE_S)
    assert "inner" in str(caught.value) and "deep" in str(caught.value)


def test_old_checkpoints_go_and_all_with_the_actor():
    counter = Durable.remote()
    shoal.get([counter.add.remote() for _ in range(40)])
    shoal.get(counter.add.remote())
    eventually(lambda: 0 < len(checkpoints(counter)) <= 2, "old checkpoints are deleted")
    place = Path(_current.current().session_dir, "spill", "checkpoint", counter._actor_id.hex())
    assert place.exists()
    shoal.kill(counter)
    eventually(lambda: not place.exists(), "everything of the dead actor is deleted")


# -- durable actors ---------------------------------------------------------------------------------------------------


def test_every_call_counts_once():
    counter = Durable.remote()
    for crashes in range(4):
        assert shoal.get([counter.add.remote() for _ in range(20)], timeout=PATIENCE_S) == list(
            range(20 * crashes + 1, 20 * crashes + 21)
        )
        crash(counter)
    assert shoal.get(counter.read.remote(), timeout=PATIENCE_S) == 80


def test_calls_under_way_are_answered_once_each():
    counter = Durable.remote()
    pid = shoal.get(counter.pid.remote())
    calls = [counter.add.remote() for _ in range(500)]
    os.kill(pid, signal.SIGKILL)
    assert shoal.get(calls, timeout=PATIENCE_S) == list(range(1, 501))


def test_what_it_answers_stays_the_same():
    """Exceptions, several values, none, and large ones."""

    @shoal.remote(num_cpus=0, durable=True, checkpoint_every=3)
    class Various:
        def __init__(self):
            self.calls = 0

        def fail(self):
            self.calls += 1
            raise ValueError(f"call {self.calls}")

        @shoal.method(num_returns=2)
        def two(self):
            self.calls += 1
            return self.calls, np.full(100_000, self.calls)

        def large(self, array, nested):
            self.calls += 1
            return array * nested[0]

        def count(self):
            return self.calls

        def pid(self):
            return os.getpid()

    various = Various.remote()
    large = shoal.put(np.ones(100_000))
    for crashes in range(3):
        made = 4 * crashes
        first, second = various.two.remote()
        failed = various.fail.remote()
        # As arguments: an object in the store, and a large value of the call's own.
        product = various.large.remote(large, [2])
        own = various.large.remote(np.ones(50_000), [3])
        with pytest.raises(ValueError, match=f"call {made + 2}"):
            shoal.get(failed, timeout=PATIENCE_S)
        assert shoal.get(first) == made + 1
        assert (shoal.get(second) == made + 1).all()
        assert shoal.get(product).sum() == 200_000
        assert shoal.get(own).sum() == 150_000
        crash(various)
    del large
    assert shoal.get(various.count.remote(), timeout=PATIENCE_S) == 12


def test_actor_calls_a_durable_one():
    @shoal.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    class Caller:
        def add(self, counter, times):
            return shoal.get([counter.add.remote() for _ in range(times)])

        def pid(self):
            return os.getpid()

    counter, caller = Durable.remote(), Caller.remote()
    assert shoal.get(caller.add.remote(counter, 10)) == list(range(1, 11))
    crash(counter)
    assert shoal.get(caller.add.remote(counter, 10), timeout=PATIENCE_S) == list(range(11, 21))
    crash(caller)
    assert shoal.get(caller.add.remote(counter, 10), timeout=PATIENCE_S) == list(range(21, 31))
    crash(counter)
    # What the caller was answered that has died is still done.
    assert shoal.get(counter.read.remote(), timeout=PATIENCE_S) == 30


def test_named_and_detached():
    Durable.options(name="kept", lifetime="detached").remote()
    counter = shoal.get_actor("kept")
    shoal.get(counter.add.remote())
    del counter
    counter = shoal.get_actor("kept")
    crash(counter)
    assert shoal.get(counter.add.remote(), timeout=PATIENCE_S) == 2
    del counter
    # Another client of this process, after the first one is gone: its calls are no repeats of the first one's.
    counter = shoal.get_actor("kept")
    assert shoal.get([counter.add.remote() for _ in range(3)], timeout=PATIENCE_S) == [3, 4, 5]
    shoal.kill(counter)


def test_effect_outside_is_tied_to_a_call(tmp_path):
    """Whoever has an idempotency key drops a repeat."""

    @shoal.remote(num_cpus=0, durable=True)
    class Mailer:
        def send(self, place):
            key = shoal.get_runtime_context().get_idempotency_key()
            try:
                Path(place, key).touch(exist_ok=False)
            except FileExistsError:
                return "sent before"
            return "sent"

        def pid(self):
            return os.getpid()

    mailer = Mailer.remote()
    assert shoal.get([mailer.send.remote(str(tmp_path)) for _ in range(3)]) == ["sent"] * 3
    crash(mailer)
    assert shoal.get(mailer.send.remote(str(tmp_path)), timeout=PATIENCE_S) == "sent"
    assert len(list(tmp_path.iterdir())) == 4


def test_call_that_it_does_not_survive_fails_in_the_end():
    @shoal.remote(num_cpus=0, durable=True)
    class Mortal(Counter):
        def die(self):
            os._exit(3)

    mortal = Mortal.remote()
    assert shoal.get(mortal.add.remote()) == 1
    deadly, after = mortal.die.remote(), mortal.add.remote()
    with pytest.raises(exceptions.ActorUnavailableError):
        shoal.get(deadly, timeout=PATIENCE_S)
    assert shoal.get(after, timeout=PATIENCE_S) == 2


def test_time_limit_is_refused():
    counter = Durable.remote()
    with pytest.raises(ValueError, match="no replay could bring a durable actor to the same state"):
        counter.add.options(timeout_s=1).remote()


def test_damaged_checkpoint_is_passed_over_and_a_damaged_log_is_an_error():
    counter = Durable.remote()
    shoal.get([counter.add.remote() for _ in range(12)])
    shoal.get(counter.add.remote())
    eventually(lambda: len(checkpoints(counter)) >= 2, "there are two checkpoints")
    place = Path(_current.current().session_dir, "spill", "checkpoint", counter._actor_id.hex())

    def damage(name):
        (path,) = place.glob(f"{name}%*")
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 0xFF
        path.write_bytes(data)

    pid = shoal.get(counter.pid.remote())
    damage(checkpoints(counter)[-1])
    os.kill(pid, signal.SIGKILL)
    assert shoal.get(counter.read.remote(), timeout=PATIENCE_S) == 13
    pid = shoal.get(counter.pid.remote())
    for name in blobs(counter):
        if name.startswith("log/"):
            damage(name)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(exceptions.ActorDiedError, match=r"its log .* is damaged|is missing"):
        shoal.get(counter.read.remote(), timeout=PATIENCE_S)
