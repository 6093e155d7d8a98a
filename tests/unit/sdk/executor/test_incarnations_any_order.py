"""Incarnations of a durable actor that overlap, over a store that does what it was asked for late, twice, or after the
death of who asked: each call that was answered counts once, in every later incarnation.

The keeper and the log of blobs are the real ones. Their threads run one at a time, each up to its next request of the
store, and the model chooses which request goes on: a listing sees checkpoints, log and marks at three different times,
a deletion takes its names one by one. An incarnation begins while earlier ones still run calls, store and delete, as
when their node is cut off from the GCS only; a process is killed between any two of its requests.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.durable_actors import ACTOR, CALLERS, Caller, InstanceRunner, Register

from shoal import exceptions
from shoal._core.checkpoints import INCARNATIONS, LOG
from shoal._executor import call_log, checkpoint
from shoal._executor.call_log import BlobLog
from shoal._executor.checkpoint import Keeper
from shoal._executor.checkpoint_store import StoreFailure
from shoal._wire.actor_creation import ActorCreation
from shoal._wire.peer_frames import TaskPush, TaskReply
from shoal_common.channel.frames import CreateActor, WorkerAddress
from shoal_common.kinds import BlobErrorKind

#: Incarnations that run at the same time.
ALIVE = 3
INDICES = st.integers(0, 11)


class Ended(BaseException):
    """In a thread of a process that was killed."""


class Fiber:
    """A thread that runs only in `step`, until it waits."""

    current: Fiber

    def __init__(self, process: Process, work: Callable[[], None]) -> None:
        self.process = process
        self._work = work
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._ended = False
        self.is_over = False
        threading.Thread(target=self._run, daemon=True).start()

    def step(self) -> None:
        Fiber.current = self
        self._go.release()
        self._waits.acquire()
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """In the thread itself."""
        self._waits.release()
        self._go.acquire()
        if self._ended:
            raise Ended

    def end(self) -> None:
        self._ended = True
        if not self.is_over:
            self.step()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._ended:
                self._work()
        except Ended:
            pass
        except BaseException as error:
            self._error = error
        self.is_over = True
        self._waits.release()


class FiberThread:
    """As ``threading.Thread``, for what a fiber starts."""

    def __init__(self, target: Callable[..., None], name: str, daemon: bool, args: tuple[Any, ...] = ()) -> None:
        self._work = lambda: target(*args)

    def start(self) -> None:
        Fiber.current.process.spawn(self._work)


class FiberQueue:
    """As ``queue.SimpleQueue``."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._reader: Fiber | None = None

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._reader is not None:
            self._reader.process.runnable.append(self._reader)
            self._reader = None

    def get(self) -> Any:
        while not self._items:
            self._reader = Fiber.current
            self._reader.wait()
        return self._items.pop(0)

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.pop(0)


@pytest.fixture(autouse=True)
def threads_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "threading", SimpleNamespace(Thread=FiberThread, Lock=threading.Lock))
    monkeypatch.setattr(call_log, "threading", SimpleNamespace(Thread=FiberThread, Condition=threading.Condition))
    monkeypatch.setattr(call_log, "queue", SimpleNamespace(SimpleQueue=FiberQueue, Empty=queue.Empty))


@dataclass
class Request:
    """Of one process, under way; ``fiber`` waits for it, if its process still lives."""

    process: Process
    fiber: Fiber | None
    #: What is left to do, each a step of its own.
    steps: list[Callable[[], None]]
    #: May arrive a second time.
    repeatable: bool


@dataclass
class World:
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    #: The latest incarnation that has ever said so.
    begun: int = 0


class Store:
    """What a process sees of the blobs."""

    def __init__(self, world: World) -> None:
        self._world = world

    def put(self, name: str, data: bytes, then_list: str | None = None) -> list[str]:
        def arrive() -> None:
            self._world.blobs[name] = data
            if name.startswith(INCARNATIONS):
                self._world.begun = max(self._world.begun, int(name.removeprefix(INCARNATIONS), 16))

        self._request([arrive], repeatable=True)
        return [] if then_list is None else self._list(then_list)

    def get(self, name: str) -> bytes:
        found: list[bytes | None] = []
        self._request([lambda: found.append(self._world.blobs.get(name))])
        if found[0] is None:
            raise StoreFailure(BlobErrorKind.NOT_FOUND, f"no {name}")
        return found[0]

    def names(self) -> list[str]:
        return self._list("")

    def delete(self, names: list[str]) -> None:
        def arrive(name: str) -> None:
            self._world.blobs.pop(name, None)

        if names:
            self._request([lambda name=name: arrive(name) for name in names], repeatable=True)  # type: ignore[misc]

    def _list(self, prefix: str) -> list[str]:
        found: list[str] = []

        def look(here: Callable[[str], bool]) -> None:
            found.extend(name for name in self._world.blobs if name.startswith(prefix) and here(name))

        self._request(
            [
                lambda: look(lambda name: "/" not in name),
                lambda: look(lambda name: name.startswith(LOG)),
                lambda: look(lambda name: name.startswith(INCARNATIONS)),
            ]
        )
        return found

    def _request(self, steps: list[Callable[[], None]], *, repeatable: bool = False) -> None:
        self._world.requests.append(Request(Fiber.current.process, Fiber.current, steps, repeatable))
        Fiber.current.wait()


class Process:
    """One incarnation."""

    def __init__(self, world: World, incarnation: int) -> None:
        self._world = world
        self.incarnation = incarnation
        self.is_alive = True
        self.is_ready = False
        self.is_busy = False
        self.runnable: list[Fiber] = []
        self._fibers: list[Fiber] = []
        self.keeper: Keeper
        self.instance = Register()
        self._runner = InstanceRunner(self.instance)
        #: Pushed and not run, in order; answers that wait for the log; answers that are on their way.
        self.queue: list[tuple[bytes, TaskPush]] = []
        self._answers: list[tuple[bytes, TaskReply]] = []
        self.sent: list[tuple[bytes, TaskReply]] = []
        self.spawn(self._begin)
        self.settle()

    def spawn(self, work: Callable[[], None]) -> None:
        fiber = Fiber(self, work)
        self._fibers.append(fiber)
        self.runnable.append(fiber)

    def settle(self) -> None:
        """Until all of its threads wait."""
        while self.runnable and self.is_alive:
            self.runnable.pop(0).step()
        if not self.is_alive:
            self.kill()

    def kill(self) -> None:
        self.is_alive = self.is_ready = False
        for fiber in self._fibers:
            fiber.end()
        self._fibers.clear()

    def _begin(self) -> None:
        store: Any = Store(self._world)
        creation = ActorCreation(
            b"", "Register", WorkerAddress(b"", b"", ""), "", "", durable=True, checkpoint_every=2, restarts=True
        )
        message = CreateActor(ACTOR, self.incarnation, b"", (), {}, checkpoints=True)
        log = BlobLog(store, self.incarnation, self._lost)
        core: Any = None
        self.keeper = Keeper(core, creation, message, "Register", store, log)
        runner: Any = self._runner
        try:
            self.keeper.begin(self.instance, runner)
        except exceptions.CheckpointError as error:
            if self.incarnation == self._world.begun:
                raise
            self._lost(str(error))  # a later one deletes what it was about to read: the GCS takes no notice of its end
        self.is_ready = True

    def _lost(self, reason: str) -> None:
        self.is_alive = False
        raise Ended

    def run(self, count: int, wish: bool) -> None:
        """``wish``: the last one calls ``shoal.checkpoint()``."""

        def work() -> None:
            for _ in range(count):
                if self.queue:
                    self._run_one(*self.queue.pop(0))
            if wish:
                self.keeper.checkpoint()
            self.keeper.after(0.0, self._flush)
            self._flush()
            self.is_busy = False

        self.is_busy = True
        self.spawn(work)
        self.settle()

    def _run_one(self, caller: bytes, push: TaskPush) -> None:
        todo = self.keeper.before(caller, push)
        if isinstance(todo, TaskPush):
            todo = self._runner.run(caller, todo)
            self.keeper.ran(caller, push, todo)
        if todo is not None:
            self._answers.append((caller, todo))

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        self.keeper.release(lambda: self.sent.extend(answers))


class Incarnations(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.callers = {worker_id: Caller(worker_id) for worker_id in CALLERS[:2]}
        self.processes: list[Process] = []
        #: Where each caller's calls go.
        self.at: dict[bytes, Process] = {}
        self.another_begins()
        self.drive(self.processes[0])
        for worker_id in self.callers:
            self.turn(worker_id)

    # -- what the model does ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.alive()) < ALIVE)
    @rule()
    def another_begins(self) -> None:
        self.processes.append(Process(self.world, len(self.processes) + 1))

    @precondition(lambda self: self.alive())
    @rule(which=INDICES)
    def one_is_killed(self, which: int) -> None:
        self.alive()[which % len(self.alive())].kill()

    @rule(order=st.lists(st.tuples(INDICES, INDICES, st.booleans()), min_size=1, max_size=12))
    def requests_go_on(self, order: list[tuple[int, int, bool]]) -> None:
        for which, step, twice in order:
            if self.world.requests:
                self.go_on(self.world.requests[which % len(self.world.requests)], step, twice)

    @precondition(lambda self: self.world.requests)
    @rule(which=INDICES, count=st.integers(1, 12))
    def requests_of_one_go_on(self, which: int, count: int) -> None:
        self.drive(self.world.requests[which % len(self.world.requests)].process, count)

    @rule(which=st.sampled_from(CALLERS[:2]), count=st.integers(1, 3))
    def call(self, which: bytes, count: int) -> None:
        pushes = [self.callers[which].call() for _ in range(count)]
        self.push(which, pushes)

    @rule(which=st.sampled_from(CALLERS[:2]))
    def turn(self, which: bytes) -> None:
        """The caller has lost its connection; the GCS names the newest that has begun, to which all goes again."""
        ready = [process for process in self.processes if process.is_ready]
        if ready:
            before = self.at.get(which)
            if before is not None and before.is_ready:
                before.keeper.caller_gone(which)
            self.at[which] = ready[-1]
            self.push(which, list(self.callers[which].open.values()))

    @precondition(lambda self: self.able())
    @rule(which=INDICES, count=st.integers(1, 6), wish=st.booleans())
    def run(self, which: int, count: int, wish: bool) -> None:
        process = self.able()[which % len(self.able())]
        # Else the thread of calls would wait for the other's.
        process.run(count, wish and not process.keeper._storing.locked())

    @precondition(lambda self: self.able())
    @rule(which=INDICES, times=st.integers(1, 3))
    def work(self, which: int, times: int) -> None:
        """Calls come to one and are answered, with what that needs and no more: a checkpoint may still be stored."""
        process = self.able()[which % len(self.able())]
        for caller in [each for each in self.callers if self.at[each] is process] * times:
            if process.is_ready and not process.is_busy:
                self.call(caller, 1)
                process.run(len(process.queue), False)
                self.drive(process, 5)
        self.answers_arrive(self.processes.index(process))

    @precondition(lambda self: len(self.alive()) < ALIVE)
    @rule(others=st.lists(st.integers(0, 3), max_size=12), moved=st.booleans())
    def another_takes_over(self, others: list[int], moved: bool) -> None:
        """Step by step, and after each one so many steps of what earlier ones have under way."""
        self.another_begins()
        process = self.processes[-1]
        for steps in others:
            self.drive(process, 1)
            for _ in range(steps):
                under_way = [each for each in self.world.requests if each.process is not process]
                if under_way:
                    self.go_on(under_way[0], 0, False)
        self.drive(process)
        if moved:
            for which in self.callers:
                self.turn(which)

    @rule(which=INDICES)
    def answers_arrive(self, which: int) -> None:
        """Also those of a process that is gone by then."""
        process = self.processes[which % len(self.processes)]
        for caller, reply in process.sent:
            self.callers[caller].on_reply(reply)
        process.sent.clear()

    # -- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def each_call_has_run_once_and_in_its_callers_order(self) -> None:
        for process in self.processes:
            done = process.instance.done
            assert len(done) == len(set(done))
            for worker_id in self.callers:
                numbers = [sequence for caller, sequence in done if caller == worker_id[0]]
                assert numbers == sorted(numbers)

    @invariant()
    def what_was_answered_is_done_in_the_latest_and_was_the_answer(self) -> None:
        for process in self.processes:
            if process.is_ready and process.incarnation == self.world.begun:
                self.check_answered(process)

    def check_answered(self, process: Process) -> None:
        done = process.instance.done
        for worker_id, caller in self.callers.items():
            for sequence, answer in caller.answers.items():
                assert done[int(answer) - 1 :][:1] == [(worker_id[0], sequence)]

    def teardown(self) -> None:
        """Whether what is still under way arrives later or never."""
        try:
            for arrives in (False, True):
                for process in self.alive():
                    process.kill()
                while arrives and self.world.requests:
                    self.go_on(self.world.requests[0], 0, False)
                self.finish()
        finally:
            for process in self.processes:
                process.kill()

    def finish(self) -> None:
        self.another_begins()
        last = self.processes[-1]
        self.drive(last)
        for worker_id in self.callers:
            self.turn(worker_id)
        last.run(len(last.queue), False)
        self.drive(last)
        self.answers_arrive(len(self.processes) - 1)
        assert len(last.instance.done) == sum(caller.made for caller in self.callers.values())
        assert not any(caller.open for caller in self.callers.values())
        self.each_call_has_run_once_and_in_its_callers_order()
        self.check_answered(last)

    # -- how ------------------------------------------------------------------------------------------------

    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.is_alive]

    def able(self) -> list[Process]:
        return [process for process in self.processes if process.is_ready and not process.is_busy]

    def push(self, which: bytes, pushes: list[TaskPush]) -> None:
        process = self.at[which]
        if process.is_ready:
            process.keeper.caller_has(which, self.callers[which].answered)
            process.queue += [(which, push) for push in pushes]

    def go_on(self, request: Request, step: int, twice: bool) -> None:
        carried_out = request.steps.pop(step % len(request.steps))
        carried_out()
        if twice and request.repeatable:
            self.world.requests.append(Request(request.process, None, [carried_out], repeatable=False))
        if request.steps:
            return
        self.world.requests.remove(request)
        if request.fiber is not None and request.process.is_alive:
            request.fiber.step()
            request.process.settle()

    def drive(self, process: Process, count: int | None = None) -> None:
        """So many steps of its requests (None: all), the oldest first."""
        while count is None or count > 0:
            own = [each for each in self.world.requests if each.fiber is not None and each.process is process]
            if not own or not process.is_alive:
                return
            self.go_on(own[0], 0, False)
            count = None if count is None else count - 1


TestIncarnations = Incarnations.TestCase
TestIncarnations.settings = settings(max_examples=12, stateful_step_count=40, deadline=None)
