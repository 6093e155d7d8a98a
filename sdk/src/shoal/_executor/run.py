"""Running the user's code: a task, an actor's call, or its constructor, on whatever thread or event loop it belongs to.

Each has the same way: its context is set, its arguments are loaded, it runs, its result or error becomes the reply, and
which of the references that came with the arguments are still held is told. A run that is not answered (None) is one
after which the process ends.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal import _context, _tracing
from shoal._core.object_ref import ObjectRef
from shoal._executor.cancels import Cancels, Interrupted
from shoal._executor.leaving import EXIT_ACTOR, ActorExit
from shoal._executor.replies import error_reply, result_reply, wrap_error
from shoal._executor.time_limits import Stopped, TimeLimits
from shoal._executor.yielding import Yielding
from shoal._owner.tasks import failures
from shoal._owner.tasks.arguments import ArgumentsLost, load_arguments
from shoal._wire.actor_creation import ActorCreation
from shoal._wire.peer_frames import STREAMING, TaskPush, TaskReply
from shoal_common import ids
from shoal_common.channel.frames import CreateActor
from shoal_common.events.task_events import Failure
from shoal_common.kinds import ExitKind

if TYPE_CHECKING:
    from shoal._executor.appearance import Appearance
    from shoal._executor.leaving import Leaving
    from shoal._executor.loading import Functions
    from shoal._executor.ports import Actor
    from shoal._owner.core_worker import CoreWorker


class Runner:
    """Runs what owners push. Thread-safe: an actor's calls may run in several threads."""

    def __init__(self, core: CoreWorker, functions: Functions, leaving: Leaving, appearance: Appearance) -> None:
        self._core = core
        self._appearance = appearance
        self._functions = functions
        self._leaving = leaving
        #: The actor in this process, once its constructor has returned; None before, and where tasks run.
        self.actor: Actor | None = None
        self.time_limits = TimeLimits()
        self.cancels = Cancels()
        self.yielding = Yielding(core)
        #: The code that has failed waits for a terminal.
        self._post_mortem = os.environ.get("SHOAL_DEBUG_POST_MORTEM", "0") != "0"
        #: Tasks and calls that have begun and not ended.
        self.running: dict[bytes, _context.TaskContext] = {}

    def run(self, caller: bytes, push: TaskPush) -> TaskReply | None:
        """A task or call, on this thread."""
        started = time.perf_counter_ns()
        received: list[ObjectRef[Any]] = []
        context = self._context(push, started)
        self.running[push.task_id] = context
        token = _context.current_task.set(context)
        result: Any = None
        args: Any = ()
        kwargs: Any = {}
        span: _tracing.Running | None = None
        reply: TaskReply | None
        try:
            if push.time_left is not None:
                self.time_limits.begin(push)
            if self.cancels.marked:
                self.cancels.check(push.task_id)
            function = context.function = self._function(push)
            if push.trace is not None:
                span = _tracing.begin(push.trace, context.task_name, push.task_id, push.attempt)
            if push.args or push.args_object or push.refs:
                args, kwargs = load_arguments(
                    self._core.values, push, received, self.home_of(caller), wait=self.actor is not None
                )
            result = function(*args, **kwargs)
            if push.num_returns == STREAMING:
                result = self.yielding.iterate(caller, push, result)
            if context.cancelled:
                raise Interrupted
            reply = result_reply(self._core, self.actor, caller, push, result, started)
        except BaseException as error:  # the caller gets whatever the user's code raised
            self.running.pop(push.task_id, None)  # nothing interrupts it any more
            if span is not None:
                span.end(error)
                span = None
            reply = self._failed(push, error, started)
        finally:
            if span is not None:
                span.end()
            _context.current_task.reset(token)
            self.running.pop(push.task_id, None)
        if push.time_left is not None:
            self.time_limits.ended(push)
        if reply is None or context.exiting:
            return None
        if received:
            result = args = kwargs = None
            self._tell_borrowed(reply, received, caller)
        return reply

    def stopped(self, push: TaskPush, stopped: Stopped | Interrupted) -> TaskReply:
        """Of a task that was to be unwound in the moment when it ended, or of what does not begin any more."""
        if push.time_left is not None:
            self.time_limits.ended(push)
        return error_reply(self._core, self.actor, push, stopped, time.perf_counter_ns())

    async def run_coroutine(self, caller: bytes, push: TaskPush, room: asyncio.Semaphore) -> TaskReply | None:
        """A call of an async actor, on this thread's event loop, as soon as there is room; the method may be a plain
        one. As ``run``."""
        started = time.perf_counter_ns()
        received: list[ObjectRef[Any]] = []
        context = self._context(push, started)
        _context.current_task.set(context)  # its asyncio task has a context of its own
        result: Any = None
        args: Any = ()
        kwargs: Any = {}
        span: _tracing.Running | None = None
        reply: TaskReply | None
        try:
            async with room:
                if push.time_left is not None:
                    self.time_limits.begin(push)
                context.started = time.perf_counter_ns()
                self.running[push.task_id] = context
                method = context.function = self._function(push)
                if push.trace is not None:
                    span = _tracing.begin(push.trace, context.task_name, push.task_id, push.attempt)
                if push.args or push.args_object or push.refs:
                    args, kwargs = load_arguments(
                        self._core.values, push, received, self.home_of(caller), wait=self.actor is not None
                    )
                result = method(*args, **kwargs)
                if inspect.isawaitable(result):
                    result = await result
                if push.num_returns == STREAMING:
                    result = await self.yielding.iterate_async(caller, push, result)
                if context.cancelled:
                    raise Interrupted
            reply = result_reply(self._core, self.actor, caller, push, result, started)
            if span is not None:
                span.end()
        except BaseException as error:  # the caller gets whatever the user's code raised
            if span is not None:
                span.end(error)
            reply = self._failed(push, Interrupted() if isinstance(error, asyncio.CancelledError) else error, started)
        self.running.pop(push.task_id, None)
        if push.time_left is not None:
            self.time_limits.ended(push)
        if reply is None or context.exiting:
            return None
        if received:
            result = args = kwargs = None
            self._tell_borrowed(reply, received, caller)
        return reply

    def construct(self, creation: ActorCreation, message: CreateActor, host: Actor) -> bytes:
        """An actor's constructor. Returns the pickled error, empty when there is none."""
        received: list[ObjectRef[Any]] = []
        name = f"{creation.class_name}.__init__"
        self._appearance.show(name)
        task_id, started = ids.task_of_creation(message.actor_id), time.perf_counter_ns()
        context = _context.TaskContext(task_id, name, "__init__", message.incarnation - 1, started, told=True)
        self.running[task_id] = context
        if creation.submitted_at:
            self._core.task_reports.constructs(context, message.actor_id, creation.parent, creation.submitted_at)
        reason: Failure | None = None
        token = _context.current_task.set(context)
        span: _tracing.Running | None = None
        error = b""
        try:
            self._functions.ensure_job(ids.job_of_actor(message.actor_id))
            if creation.trace is not None:
                span = _tracing.begin(creation.trace, name, task_id, context.attempt)
            args: Any = ()
            kwargs: dict[str, Any] = {}
            if creation.args or creation.args_object or creation.refs:
                args, kwargs = load_arguments(
                    self._core.values, creation, received, creation.creator.node_id, wait=True
                )
            cls = self._functions.load(creation.class_id)
            _context.process.actor_class_id, _context.process.actor_class = creation.class_id, cls
            host.construct(cls, args, kwargs)
            args = kwargs = None  # type: ignore[assignment]
            self.actor = host
            host.restore()
            if context.exiting:
                raise ActorExit(EXIT_ACTOR)  # the user's code has caught it
        except BaseException as failure:  # creators and callers get whatever the constructor raised
            if span is not None:
                span.end(failure)
                span = None
            if isinstance(failure, ActorExit):
                self._leaving.exit(ExitKind.INTENDED_USER_EXIT, EXIT_ACTOR, 0)
            if isinstance(failure, SystemExit):
                self._leaving.exit_as_told(failure, "the constructor")
            error = pickle.dumps(wrap_error(self._core, self.actor, name, context.task_id, failure), 5)
            reason = failures.of_raised(failure)
        finally:
            if span is not None:
                span.end()
            _context.current_task.reset(token)
            del self.running[task_id]
        if creation.submitted_at:
            self._core.task_reports.constructed(context, message.actor_id, reason)
        if received:
            with self._core.lock:
                self._core.borrowing.register(received)
            received.clear()
        return error

    def _context(self, push: TaskPush, started: int) -> _context.TaskContext:
        """Of a task or call that begins now, which shows in how the process looks."""
        actor = self.actor
        name = push.name if actor is None else push.task_name or f"{actor.class_name}.{push.name}"
        if name != self._appearance.title:
            self._appearance.show(name)
            if actor is None:
                self._appearance.announce(name)
        return _context.TaskContext(push.task_id, name, push.name, push.attempt, started, push.untold)

    def _function(self, push: TaskPush) -> Callable[..., Any]:
        if self.actor is not None:
            return self.actor.method(push.name)
        function: Callable[..., Any] = self._functions.of(push)
        return function

    def _failed(self, push: TaskPush, error: BaseException, started: int) -> TaskReply | None:
        if isinstance(error, ActorExit):
            return None
        if isinstance(error, SystemExit):
            self._leaving.exit_as_told(error, push.name)
        if isinstance(error, ArgumentsLost):
            return TaskReply(push.task_id, 0, 0, b"", lost=error.lost)
        if self._post_mortem and isinstance(error, Exception):
            from shoal._executor import debugger

            debugger.post_mortem(error)
        return error_reply(self._core, self.actor, push, error, started)

    def _tell_borrowed(self, reply: TaskReply, received: list[ObjectRef[Any]], caller: bytes) -> None:
        with self._core.lock:
            reply.borrowed = self._core.borrowing.still_borrowed(received, caller) or None

    def home_of(self, caller: bytes) -> bytes:
        """The caller's node, where the objects lie that hold its large arguments."""
        address = self._core.peers.address_of(caller)
        return address.node_id if address is not None else self._core.node_id
