"""An actor inside its worker: the instance, and where its calls run.

An ordinary actor runs on the worker's main thread, call by call (the executor does that). With ``max_concurrency``
above one, concurrency groups, or coroutine methods its calls run in groups (``shoal._executor.groups``).
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal._executor.cancels import Interrupted
from shoal._executor.checkpoint import Keeper
from shoal._executor.groups import Group, LoopGroup, ThreadGroup
from shoal._executor.leaving import Leaving
from shoal._executor.replies import error_reply
from shoal._executor.run import Runner
from shoal._net.last_replies import LastReplies
from shoal._wire.actor_creation import ActorCreation
from shoal._wire.peer_frames import SYSTEM_GROUP, TaskPush, TaskReplies, TaskReply

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

logger = logging.getLogger("shoal")

#: What runs when the actor ends in order, and then ``__ray_shutdown__``, may each take so many seconds.
SHUTDOWN_S = 30.0

TERMINATE = "__ray_terminate__"


class ActorHost:
    """The actor of this worker. ``construct`` makes the instance."""

    def __init__(
        self, core: CoreWorker, runner: Runner, leaving: Leaving, creation: ActorCreation, keeper: Keeper | None
    ) -> None:
        self._core = core
        self._keeper = keeper
        self._runner = runner
        self._leaving = leaving
        self._creation = creation
        self.class_name = creation.class_name
        self.instance: Any = None
        self.is_async = creation.is_async
        self.durable = creation.durable
        #: Its calls run in groups, not on the main thread.
        self.takes_calls = creation.is_async or creation.max_concurrency > 1 or bool(creation.concurrency_groups)
        #: Of each group: calls at the same time.
        self._limits = {"": creation.max_concurrency, **(creation.concurrency_groups or {})}
        self._groups: dict[str, Group] = {}
        self._methods: dict[str, Callable[..., Any]] = {}
        #: It ends: calls that come from now on are not begun. Here and below: under the core's lock.
        self._closed = False
        #: Calls taken and not answered.
        self._unanswered = 0
        self._all_answered = threading.Event()
        #: Those calls, for ``waiting_call``.
        self._taken: dict[bytes, TaskPush] = {}
        #: Callers of the calls that run in the system group.
        self._system_calls: dict[bytes, bytes] = {}

    def restore(self) -> None:
        """After ``construct``: what an earlier incarnation has left. Raises as ``Keeper.begin``."""
        if self._keeper is not None:
            self._keeper.begin(self.instance, self._runner)

    def construct(self, cls: type, args: Any, kwargs: dict[str, Any]) -> None:
        """Raises what the constructor raises."""
        runner = self._runner
        limits = self._limits
        if self.is_async:
            # A durable actor's answers are in its log.
            last = None if self.durable else LastReplies.of(self._core.session_dir, self._core.worker_id)
            for name, limit in limits.items():
                self._groups[name] = LoopGroup(name, limit, runner.run_coroutine, self._answer, self._leaving, last)
            default = self._groups[""]
            assert isinstance(default, LoopGroup)
            constructor = inspect.getattr_static(cls, "__init__")
            if inspect.iscoroutinefunction(constructor):
                self.instance = default.call(lambda: cls.__new__(cls, *args, **kwargs))
                default.complete(constructor(self.instance, *args, **kwargs))
            else:
                self.instance = default.call(lambda: cls(*args, **kwargs))
            return
        self.instance = cls(*args, **kwargs)
        if self.takes_calls:
            for name, limit in limits.items():
                self._groups[name] = ThreadGroup(name, limit, runner.run, self._answer)

    def describe(self) -> str:
        try:
            return repr(self.instance)
        except Exception:  # a broken __repr__ must not hide the error it would decorate
            return self.class_name

    def log_name(self) -> str:
        """What stands before the lines it prints: what its __repr__ says, if it has one."""
        shown: Any = type(self.instance).__repr__
        return self.class_name if shown is object.__repr__ else self.describe()

    def is_idle(self) -> bool:
        """No call runs in a group."""
        return not self._unanswered

    def has_calls(self) -> bool:
        """Of a group, the system group too. Caller holds the core's lock."""
        return bool(self._unanswered or self._system_calls)

    def method(self, name: str) -> Callable[..., Any]:
        """Raises: AttributeError."""
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = self._find(name)
        return method

    def _find(self, name: str) -> Callable[..., Any]:
        if name == "__ray_ready__":
            return lambda: True
        if name == "__ray_call__":
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        if name == TERMINATE:
            return self._leaving.terminate
        # In the class: an attribute of the instance may have the same name.
        cls = type(self.instance)
        member = inspect.getattr_static(cls, name)
        bind = getattr(type(member), "__get__", None)
        method: Callable[..., Any] = member if bind is None else bind(member, self.instance, cls)
        return method

    # -- calls that do not run on the main thread -------------------------------------------------------

    def start_calls(self, caller: bytes, pushes: list[TaskPush]) -> None:
        """In the caller's order. Caller holds the core's lock."""
        by_group: dict[str, list[TaskPush]] = {}
        for push in pushes:
            if self._closed:
                break  # the caller learns from the end of this process that they have not run
            if push.concurrency_group == SYSTEM_GROUP:
                self.start_system_call(caller, push)
            elif push.name == TERMINATE:
                self._closed = True
                threading.Thread(target=self._leaving.terminate, name="shoal-leave", daemon=True).start()
            elif push.concurrency_group in self._groups:
                by_group.setdefault(push.concurrency_group, []).append(push)
                self._unanswered += 1
                self._taken[push.task_id] = push
            else:
                unknown = ValueError(f"{self.class_name} has no concurrency group {push.concurrency_group!r}")
                reply = error_reply(self._core, self, push, unknown, time.perf_counter_ns())
                self._core.peers.send(caller, TaskReplies([reply]))
        for name, calls in by_group.items():
            self._groups[name].start(caller, calls)

    def start_system_call(self, caller: bytes, push: TaskPush) -> None:
        """In a thread of its own, also where calls run one by one. Such calls hold up nothing: when the actor ends, it
        does not wait for them. Caller holds the core's lock."""
        self._system_calls[push.task_id] = caller
        name = f"shoal-system-{push.task_id.hex()[:8]}"
        threading.Thread(target=self._run_system_call, args=(caller, push), name=name, daemon=True).start()

    def _run_system_call(self, caller: bytes, push: TaskPush) -> None:
        reply = self._runner.run(caller, push)
        with self._core.lock:
            self._system_calls.pop(push.task_id, None)
            if reply is not None:
                self._core.borrowing.send_after_acks(caller, TaskReplies([reply]))

    def caller_gone(self, worker_id: bytes) -> None:
        """What serves it in the system group is told. Caller holds the core's lock."""
        for task_id, caller in self._system_calls.items():
            running = self._runner.running.get(task_id)
            if caller == worker_id and running is not None:
                running.cancelled = True

    def waiting_call(self, task_id: bytes) -> tuple[TaskPush, list[bytes]] | None:
        """A call of a group that has not begun, and those of which one must end before; there are none where there is
        room for it. None = it has begun, or is not here. Caller holds the core's lock."""
        push = self._taken.get(task_id)
        running = dict(self._runner.running)
        if push is None or task_id in running:
            return None
        name = push.concurrency_group
        begun = [each for each in running if each in self._taken and self._taken[each].concurrency_group == name]
        if self.is_async:
            # A coroutine that waits in ``get``, and not by ``await``, holds up its whole event loop.
            blocking = [each for each in begun if self._core.waits.of_task(each) is not None]
            if blocking:
                return push, blocking[:1]
        return push, begun if len(begun) >= self._limits[name] else []

    def stop_call(self, task_id: bytes) -> bool:
        """Cancel its coroutine, if it is one; what has not begun does not begin. True = it is here, and one of these:
        answered when it has ended, or at once. Caller holds the core's lock."""
        push = self._taken.get(task_id)
        if push is None:
            return False
        stopped = self._groups[push.concurrency_group].stop(task_id)
        if isinstance(stopped, bool):
            return stopped
        self._answer(stopped, [self._runner.stopped(push, Interrupted())])
        return True

    def _answer(self, caller: bytes, replies: list[TaskReply]) -> None:
        """From a group, in any thread."""
        with self._core.lock:
            if replies:
                self._core.borrowing.send_after_acks(caller, TaskReplies(replies))
            for reply in replies:
                self._taken.pop(reply.task_id, None)
            self._unanswered -= len(replies) or 1
            if not self._unanswered:
                self._all_answered.set()

    # -- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Calls that have not begun are not begun any more."""
        with self._core.lock:
            self._closed = True
            self._unanswered -= sum(group.drop_waiting() for group in self._groups.values())

    def flush(self) -> None:
        """What has been answered is on its way."""
        for group in self._groups.values():
            group.flush()
        if self._keeper is not None:
            self._keeper.drain()

    def wait_until_answered(self) -> None:
        """Until no call runs in a group, for ``SHUTDOWN_S`` at most; not from a call of the actor itself."""
        with self._core.lock:
            self._all_answered.clear()
            if not self._unanswered:
                return
        self._all_answered.wait(SHUTDOWN_S)

    def shut_down(self) -> None:
        """Graceful end: calls finish, then the user's ``__ray_shutdown__`` runs, if any, each with a time limit. As a
        coroutine it runs on the actor's event loop, which what it closes may belong to."""
        self.wait_until_answered()
        hook = getattr(self.instance, "__ray_shutdown__", None)
        if hook is None:
            return
        finished = threading.Thread(target=self._run_hook, args=(hook,), daemon=True)
        finished.start()
        finished.join(SHUTDOWN_S)

    def _run_hook(self, hook: Callable[[], Any]) -> None:
        try:
            awaitable = hook()
            if inspect.isawaitable(awaitable):
                default = self._groups[""]
                assert isinstance(default, LoopGroup)  # as one coroutine function makes an actor async
                default.complete(awaitable)
        except Exception:
            logger.exception("__ray_shutdown__ raised; the actor ends all the same")
