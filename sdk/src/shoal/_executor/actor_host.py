"""An actor inside its worker: the instance, and how its calls run.

An ordinary actor runs on the worker's main thread, call by call (the executor does that). With ``max_concurrency``
above one, or concurrency groups, each group has a pool of threads; an async actor runs everything on one event
loop, in a thread of its own, so many coroutines at once as the group allows.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal import _context
from shoal._core.object_ref import ObjectRef
from shoal._executor.replies import error_reply, result_reply
from shoal._owner.arguments import load_arguments
from shoal._wire.actor_creation import ActorCreation
from shoal._wire.peer_frames import TaskPush, TaskReply

if TYPE_CHECKING:
    from shoal._executor.executor import Executor
    from shoal._owner.core_worker import CoreWorker

logger = logging.getLogger("shoal")

#: ``__ray_shutdown__`` may take so many seconds.
SHUTDOWN_S = 30.0


class ActorExit(BaseException):
    """Raised by ``exit_actor``; not an Exception, so that user code does not catch it by accident."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ActorHost:
    """The actor of this worker. ``construct`` makes the instance."""

    def __init__(self, core: CoreWorker, executor: Executor, creation: ActorCreation) -> None:
        self._core = core
        self._executor = executor
        self.class_name = creation.class_name
        self.instance: Any = None
        #: Why the actor ends as soon as the running calls have finished; "" = it does not.
        self.exit_requested = ""
        self._groups = dict(creation.concurrency_groups or {})
        self._is_async = creation.is_async
        self._method_groups: dict[str, str] = {}
        self.takes_calls = creation.is_async or creation.max_concurrency > 1 or bool(self._groups)
        self._limits = {"": creation.max_concurrency, **self._groups}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._semaphores: dict[str, asyncio.Semaphore] = {}
        self._pools: dict[str, queue.SimpleQueue[tuple[bytes, TaskPush] | None]] = {}
        self._outgoing: dict[bytes, list[TaskReply]] = {}
        self._running = 0
        self._running_lock = threading.Lock()
        #: Strong references: the event loop keeps only weak ones.
        self._tasks: set[asyncio.Task[None]] = set()
        self._methods: dict[str, Callable[..., Any]] = {}

    def construct(self, cls: type, args: Any, kwargs: dict[str, Any]) -> None:
        if self._is_async:
            ready = threading.Event()
            threading.Thread(target=self._run_loop, args=(ready,), name="shoal-actor", daemon=True).start()
            ready.wait()
            done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
            context = _context.current_task.get()

            def make() -> None:
                _context.current_task.set(context)
                try:
                    done.put((cls(*args, **kwargs), None))
                except BaseException as error:  # told to the creator by the executor
                    done.put((None, error))

            assert self._loop is not None
            self._loop.call_soon_threadsafe(make)
            self.instance, error = done.get()
            if error is not None:
                raise error
        else:
            self.instance = cls(*args, **kwargs)
            if self.takes_calls:
                for group, threads in self._limits.items():
                    pool: queue.SimpleQueue[tuple[bytes, TaskPush] | None] = queue.SimpleQueue()
                    self._pools[group] = pool
                    for number in range(max(1, threads)):
                        threading.Thread(
                            target=self._serve, args=(pool,), name=f"shoal-actor-{group}{number}", daemon=True
                        ).start()
        for name, member in inspect.getmembers(cls):
            options = getattr(member, "__shoal_method__", None)
            if options is not None and options.concurrency_group:
                self._method_groups[name] = options.concurrency_group

    def describe(self) -> str:
        try:
            return repr(self.instance)
        except Exception:  # a broken __repr__ must not hide the error it would decorate
            return self.class_name

    def method(self, name: str) -> Callable[..., Any]:
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = self._find(name)
        return method

    def _find(self, name: str) -> Callable[..., Any]:
        if name == "__ray_ready__":
            return lambda: True
        if name == "__ray_call__":
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        if name == "__ray_terminate__":
            return self._executor.terminate_actor
        method: Callable[..., Any] = getattr(self.instance, name)
        return method

    def group_of(self, push: TaskPush) -> str:
        group = push.concurrency_group or self._method_groups.get(push.name, "")
        if group not in self._limits:
            raise ValueError(
                f"The method {push.name} names concurrency group {group!r}, but {self.class_name} has only "
                f"{sorted(self._groups)}: declare it in @shoal.remote(concurrency_groups=...)"
            )
        return group

    # -- calls that do not run on the main thread -------------------------------------------------------

    def start_calls(self, caller: bytes, tasks: list[TaskPush]) -> None:
        """From the leading thread, in the caller's order."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._start_coroutines, caller, tasks)
            return
        for push in tasks:
            try:
                pool = self._pools[self.group_of(push)]
            except ValueError as error:
                self._executor.reply_now(caller, [error_reply(self._core, self, push, error, time.perf_counter_ns())])
                continue
            pool.put((caller, push))

    def _serve(self, pool: queue.SimpleQueue[tuple[bytes, TaskPush] | None]) -> None:
        while True:
            item = pool.get()
            if item is None:
                return
            if self.exit_requested:
                return
            caller, push = item
            item = None
            with self._running_lock:
                self._running += 1
            try:
                self._executor.reply_now(caller, [self._executor.execute(caller, push)])
            except ActorExit:
                return
            finally:
                with self._running_lock:
                    self._running -= 1

    def _run_loop(self, ready: threading.Event) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(ready.set)
        self._loop.run_forever()

    def _start_coroutines(self, caller: bytes, tasks: list[TaskPush]) -> None:
        assert self._loop is not None
        if self.exit_requested:
            return
        for push in tasks:
            task = self._loop.create_task(self._run_coroutine(caller, push))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_coroutine(self, caller: bytes, push: TaskPush) -> None:
        started = time.perf_counter_ns()
        received: list[ObjectRef[Any]] = []
        result: Any = None
        args: Any = ()
        kwargs: Any = {}
        try:
            group = self.group_of(push)
            semaphore = self._semaphores.get(group)
            if semaphore is None:
                semaphore = self._semaphores[group] = asyncio.Semaphore(self._limits[group])
            async with semaphore:
                name = f"{self.class_name}.{push.name}"
                context = _context.TaskContext(push.task_id, name, push.name, push.attempt)
                _context.current_task.set(context)
                method = self.method(push.name)
                if push.args or push.args_object or push.refs:
                    home = self._executor.home_of(caller)
                    args, kwargs = load_arguments(self._core, push, received, home)
                result = method(*args, **kwargs)
                if inspect.isawaitable(result):
                    result = await result
                if context.exiting:
                    raise ActorExit("exit_actor() is called")
            reply = result_reply(self._core, caller, push, result, started)
        except ActorExit as intent:
            self._executor.exit_from_actor(intent.reason)
            return
        except BaseException as error:  # the caller gets whatever the user's code raised
            reply = error_reply(self._core, self, push, error, started)
        if received:
            result = args = kwargs = None
            with self._core.lock:
                reply.borrowed = self._core.borrowing.still_borrowed(received, caller) or None
        if not self._outgoing:
            assert self._loop is not None
            self._loop.call_soon(self._send_outgoing)
        self._outgoing.setdefault(caller, []).append(reply)

    def _send_outgoing(self) -> None:
        outgoing, self._outgoing = self._outgoing, {}
        for caller, replies in outgoing.items():
            self._executor.reply_now(caller, replies)

    def wait_until_idle(self) -> None:
        """Until no call runs, for ``SHUTDOWN_S`` at most; not from a call of the actor itself."""
        deadline = time.monotonic() + SHUTDOWN_S
        while (self._tasks or self._running or self._outgoing) and time.monotonic() < deadline:
            time.sleep(0.002)

    def shut_down(self) -> None:
        """Graceful end: calls finish, then the user's ``__ray_shutdown__`` runs, if any, each with a time limit."""
        self.wait_until_idle()
        hook = getattr(self.instance, "__ray_shutdown__", None)
        if hook is None:
            return
        finished = threading.Thread(target=self._run_hook, args=(hook,), daemon=True)
        finished.start()
        finished.join(SHUTDOWN_S)

    @staticmethod
    def _run_hook(hook: Callable[[], Any]) -> None:
        try:
            hook()
        except Exception:
            logger.exception("__ray_shutdown__ raised; the actor ends all the same")
