"""A durable actor's keeper under crashes at every moment, lost answers and repeated calls: each call counts once.

The store and the log are in memory, the actor is a list of what was done to it. Whatever is in memory of the process
is lost with it; what was put into the store or appended to the log is not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.durable_actors import ACTOR, CALLERS, Caller, InstanceRunner, Register

from shoal import exceptions
from shoal._core.checkpoints import Version
from shoal._executor.call_log import CallLog
from shoal._executor.checkpoint import Keeper
from shoal._executor.checkpoint_store import StoreFailure
from shoal._values.serialization import loads
from shoal._wire.actor_creation import ActorCreation
from shoal._wire.peer_frames import TaskPush, TaskReply
from shoal_common.channel.frames import CreateActor, WorkerAddress
from shoal_common.kinds import BlobErrorKind


class MemoryStore:
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.full = False

    def put(self, name: str, data: bytes, then_list: str | None = None) -> list[str]:
        if self.full:
            raise StoreFailure(BlobErrorKind.REFUSED, "it is larger than the store")
        self.blobs[name] = data
        return [each for each in self.blobs if then_list is not None and each.startswith(then_list)]

    def get(self, name: str) -> bytes:
        data = self.blobs.get(name)
        if data is None:
            raise StoreFailure(BlobErrorKind.NOT_FOUND, f"no {name}")
        if data == b"damaged":
            raise StoreFailure(BlobErrorKind.DAMAGED, f"{name} is damaged")
        return data

    def names(self) -> list[str]:
        return list(self.blobs)

    def delete(self, names: list[str]) -> None:
        for name in names:
            self.blobs.pop(name, None)


class MemoryLog(CallLog):
    def __init__(self, store: MemoryStore, incarnation: int) -> None:
        self._store = store
        self._incarnation = incarnation
        self._name = ""

    def append(self, first: int, calls: bytes, stored: Callable[[], None], more: bool = False) -> None:
        if calls:
            self._name = self._name or Version(self._incarnation, first).log_name
            self._store.blobs[self._name] = self._store.blobs.get(self._name, b"") + calls
        stored()

    def roll(self) -> None:
        self._name = ""

    def read(self, part: Version) -> bytes:
        return self._store.get(part.log_name)

    def wait_for_room(self) -> None:
        return

    def drain(self) -> None:
        return


class Process:
    """One incarnation."""

    def __init__(self, store: MemoryStore, incarnation: int, every: int) -> None:
        creation = ActorCreation(
            b"", "Register", WorkerAddress(b"", b"", ""), "", "", durable=True, checkpoint_every=every, restarts=True
        )
        message = CreateActor(ACTOR, incarnation, b"", (), {}, checkpoints=True)
        log = MemoryLog(store, incarnation)
        self.instance = Register()
        self.runner = InstanceRunner(self.instance)
        core: Any = None
        self.keeper = Keeper(core, creation, message, "Register", store, log)  # type: ignore[arg-type]
        self.keeper.begin(self.instance, self.runner)  # type: ignore[arg-type]
        self.answers: list[tuple[bytes, TaskReply]] = []

    def run(self, caller: bytes, push: TaskPush) -> None:
        todo = self.keeper.before(caller, push)
        if isinstance(todo, TaskPush):
            todo = self.runner.run(caller, todo)
            self.keeper.ran(caller, push, todo)
        if todo is not None:
            self.answers.append((caller, todo))

    def flush(self) -> list[tuple[bytes, TaskReply]]:
        """The answers that are on their way now."""
        sent: list[tuple[bytes, TaskReply]] = []
        answers, self.answers = self.answers, []
        self.keeper.release(lambda: sent.extend(answers))
        return sent

    def settle(self) -> None:
        """No checkpoint is being stored."""
        with self.keeper._storing:
            pass


class KeeperMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.callers = {worker_id: Caller(worker_id) for worker_id in CALLERS}
        self.incarnation = 1
        self.process = Process(self.store, 1, every=4)
        #: Pushed and not run, in order.
        self.queue: list[tuple[bytes, TaskPush]] = []

    @rule(which=st.sampled_from(CALLERS), count=st.integers(1, 3))
    def call(self, which: bytes, count: int) -> None:
        caller = self.callers[which]
        self.process.keeper.caller_has(which, caller.answered)
        self.queue += [(which, caller.call()) for _ in range(count)]

    @precondition(lambda self: self.queue)
    @rule(count=st.integers(1, 5))
    def run(self, count: int) -> None:
        for _ in range(min(count, len(self.queue))):
            self.process.run(*self.queue.pop(0))

    @rule(lost=st.booleans())
    def answer(self, lost: bool) -> None:
        sent = self.process.flush()
        for caller, reply in sent:
            if not lost:
                self.callers[caller].on_reply(reply)
        if lost:
            self._connect_again()

    @rule()
    def between_two_calls(self) -> None:
        self.process.keeper.after(0.0, self.answer_all)
        self.process.settle()

    @rule()
    def checkpoint(self) -> None:
        self.process.keeper.checkpoint()
        self.process.keeper.after(0.0, self.answer_all)

    def answer_all(self) -> None:
        self.answer(lost=False)

    @rule(which=st.sampled_from(CALLERS))
    def connection_of_one_ends(self, which: bytes) -> None:
        """What was pushed may still be run, and is pushed again."""
        self.process.keeper.caller_gone(which)
        self.process.keeper.caller_has(which, self.callers[which].answered)
        self.queue += [(which, push) for push in self.callers[which].open.values()]

    def _connect_again(self) -> None:
        for which, caller in self.callers.items():
            self.queue += [(which, push) for push in caller.open.values()]

    @rule(times=st.integers(1, 3))
    def crash(self, times: int) -> None:
        """Once or several times, also while it is being restored."""
        for _ in range(times):
            self.incarnation += 1
            self.process = Process(self.store, self.incarnation, every=4)
        self.queue.clear()
        self._connect_again()

    @rule()
    def crash_while_a_call_is_logged(self) -> None:
        """It is in the log, or half of it, and nobody has the answer."""
        self.process.flush()
        logs = sorted(name for name in self.store.blobs if name.startswith("log/"))
        if logs:
            self.store.blobs[logs[-1]] += b"\x40\0\0\0half"
        self.crash(1)

    @precondition(lambda self: len(Versions(self.store)) > 1)
    @rule()
    def newest_checkpoint_is_damaged(self) -> None:
        self.store.blobs[Versions(self.store)[-1]] = b"damaged"
        self.crash(1)

    @invariant()
    def each_call_has_run_once_and_in_its_callers_order(self) -> None:
        done = self.process.instance.done
        assert len(done) == len(set(done))
        for worker_id in CALLERS:
            numbers = [sequence for caller, sequence in done if caller == worker_id[0]]
            assert numbers == sorted(numbers)

    @invariant()
    def what_was_answered_is_done_and_was_the_answer(self) -> None:
        done = self.process.instance.done
        for worker_id, caller in self.callers.items():
            for sequence, answer in caller.answers.items():
                assert done[int(answer) - 1] == (worker_id[0], sequence)

    @invariant()
    def little_is_kept(self) -> None:
        self.process.keeper.executions.validate()
        assert len(Versions(self.store)) <= 3

    def teardown(self) -> None:
        self.crash(1)
        while self.queue:
            self.process.run(*self.queue.pop(0))
        self.answer(lost=False)
        assert len(self.process.instance.done) == sum(caller.made for caller in self.callers.values())
        assert not any(caller.open for caller in self.callers.values())


def Versions(store: MemoryStore) -> list[str]:
    return sorted(name for name in store.blobs if Version.parse(name) is not None)


TestKeeper = KeeperMachine.TestCase
TestKeeper.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


# -- one that is not durable ------------------------------------------------------------------------------------------


def plain(store: MemoryStore, incarnation: int) -> tuple[Register, Keeper]:
    """A process of an actor with checkpoints and without a log, which has begun."""
    creation = ActorCreation(b"", "Register", WorkerAddress(b"", b"", ""), "", "", checkpoint_every=1, restarts=True)
    core: Any = None
    keeper = Keeper(
        core,
        creation,
        CreateActor(ACTOR, incarnation, b"", (), {}, checkpoints=True),
        "Register",
        store,  # type: ignore[arg-type]
        None,
    )
    instance = Register()
    keeper.begin(instance, InstanceRunner(instance))  # type: ignore[arg-type]
    return instance, keeper


def test_checkpoints_that_an_earlier_process_has_replaced_since_the_listing_are_looked_for_again() -> None:
    earlier_goes_on: list[Callable[[], None]] = []

    class Shared(MemoryStore):
        def names(self) -> list[str]:
            found = super().names()
            if earlier_goes_on:
                earlier_goes_on.pop()()
            return found

    store = Shared()
    earlier, keeper = plain(store, 1)

    def work() -> None:
        for _ in range(3):
            earlier.do("something")
            keeper.checkpoint()

    work()
    earlier_goes_on.append(work)
    later, _ = plain(store, 2)
    assert later.done == earlier.done == ["something"] * 6


# -- what cannot be used ---------------------------------------------------------------------------------------------


def pushed(sequence: int) -> TaskPush:
    return TaskPush(CALLERS[0] + sequence.to_bytes(4, "big"), b"", "do", b"", sequence=sequence)


def worked(calls: int) -> MemoryStore:
    """What a process has left that has run so many calls, with a checkpoint after each two."""
    store = MemoryStore()
    process = Process(store, 1, every=2)
    for sequence in range(1, calls + 1):
        process.run(CALLERS[0], pushed(sequence))
        process.flush()
        process.keeper.after(0.0, lambda: None)
        process.settle()
    return store


def test_damaged_checkpoint_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    store = worked(5)
    newest = Versions(store)[-1]
    store.blobs[newest] = b"damaged"
    assert len(Process(store, 2, every=2).instance.done) == 5
    assert f"Checkpoint {newest} of Register is passed over" in caplog.text


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"\x93\x01\x02\x03", b"not msgpack at all"])
def test_what_is_no_checkpoint_is_passed_over(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = worked(5)
    store.blobs[Versions(store)[-1]] = data
    assert len(Process(store, 2, every=2).instance.done) == 5
    assert "is no checkpoint of this release" in caplog.text


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (b"Register", b"Somebody", "it is of the class Somebody"),
        (b"\xa43.", b"\xa49.", "Python 9."),
    ],
)
def test_checkpoint_of_another_class_or_python(
    before: bytes, after: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = worked(5)
    newest = Versions(store)[-1]
    store.blobs[newest] = store.blobs[newest].replace(before, after, 1)
    assert len(Process(store, 2, every=2).instance.done) == 5
    assert words in caplog.text


def test_all_checkpoints_damaged() -> None:
    store = worked(5)
    for name in Versions(store):
        store.blobs[name] = b"damaged"
    with pytest.raises(exceptions.CheckpointError, match="none of its 2 checkpoints can be used"):
        Process(store, 2, every=2)


def test_damaged_log() -> None:
    store = worked(5)
    name = max(name for name in store.blobs if name.startswith("log/"))
    store.blobs[name] = store.blobs[name][:-1] + b"?"
    with pytest.raises(exceptions.CheckpointError, match=f"its log {name} is damaged"):
        Process(store, 2, every=2)


def test_lost_log() -> None:
    store = worked(7)
    logs = sorted(name for name in store.blobs if name.startswith("log/"))
    for name in Versions(store)[-1:]:
        store.blobs[name] = b"damaged"
    del store.blobs[logs[-2]]
    with pytest.raises(exceptions.CheckpointError, match="call 5 is missing"):
        Process(store, 2, every=2)


def test_checkpoint_larger_than_the_store_costs_the_checkpoint_only(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    process = Process(store, 1, every=1)
    store.full = True
    for sequence in range(1, 4):
        process.run(CALLERS[0], pushed(sequence))
        assert len(process.flush()) == 1
        process.keeper.after(0.0, lambda: None)
        process.settle()
    assert caplog.text.count("was not stored, the actor goes on without: it is larger than the store") == 1
    store.full = False
    assert len(Process(store, 2, every=1).instance.done) == 3


class Unpicklable(Register):
    def __init__(self) -> None:
        super().__init__()
        self.deep = {"here": [lambda: (yield)]}
        self.deep["here"][0] = contextlib.ExitStack()  # type: ignore[assignment]
        self.deep["here"].append(each for each in ())  # type: ignore[arg-type]


def test_state_that_cannot_be_pickled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Register", Unpicklable)
    with pytest.raises(TypeError, match=r"the state of Register(.|\n)*here"):
        Process(MemoryStore(), 1, every=1)


def test_state_is_what_the_hooks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hooked(Register):
        def __shoal_checkpoint__(self) -> Any:
            return ["saved", *self.done]

        def __shoal_restore__(self, state: Any) -> None:
            self.done = state[1:]

    monkeypatch.setattr(f"{__name__}.Register", Hooked)
    store = worked(4)
    saved = store.blobs[Versions(store)[-1]]
    assert b"saved" in saved
    assert Process(store, 2, every=2).instance.done == [(1, sequence) for sequence in range(1, 5)]


def test_hook_that_raises_at_the_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hooked(Register):
        def __shoal_checkpoint__(self) -> Any:
            return 1

        def __shoal_restore__(self, state: Any) -> None:
            raise KeyError("no such thing")

    monkeypatch.setattr(f"{__name__}.Register", Hooked)
    store = worked(2)
    with pytest.raises(KeyError, match="no such thing"):
        Process(store, 2, every=2)


def test_state_is_plain_data() -> None:
    """So that it can be looked at."""
    from shoal._wire.checkpoint_blobs import decode_saved

    saved = decode_saved(worked(4).blobs[Versions(worked(4))[-1]])
    assert loads(saved.state) == {"done": [(1, 1), (1, 2), (1, 3), (1, 4)]}


class Moody(Register):
    broken = False

    def __shoal_checkpoint__(self) -> Any:
        if Moody.broken:
            raise ValueError("not now")
        return list(self.done)

    def __shoal_restore__(self, state: Any) -> None:
        self.done = state


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> type[Moody]:
    monkeypatch.setattr(f"{__name__}.Register", Moody)
    monkeypatch.setattr(Moody, "broken", False)
    return Moody


def test_hook_that_raises_at_a_checkpoint_costs_the_checkpoint_only(
    moody: type[Moody], caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    process = Process(store, 1, every=1)
    moody.broken = True
    for sequence in range(1, 4):
        process.run(CALLERS[0], pushed(sequence))
        assert len(process.flush()) == 1, "the call is answered"
        process.keeper.after(0.0, lambda: None)
        process.settle()
    process.keeper.checkpoint()
    process.keeper.after(0.0, lambda: None)
    assert caplog.text.count("was not stored, the actor goes on without: not now") == 1
    assert len(Versions(store)) == 1, "the one from before the calls"
    moody.broken = False
    assert len(Process(store, 2, every=1).instance.done) == 3, "the log has what no checkpoint has"


def test_hook_that_raises_at_the_first_checkpoint_is_the_error_of_the_constructor(moody: type[Moody]) -> None:
    moody.broken = True
    with pytest.raises(ValueError, match="not now"):
        Process(MemoryStore(), 1, every=1)
