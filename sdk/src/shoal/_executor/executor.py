"""A worker's other half: it runs the tasks and actor calls that owners push.

Plain tasks, and the calls of an ordinary actor, run one after the other on the main thread, which leads the
reactor while it has nothing to run. Replies of short tasks are sent together: when the queue is empty, or after
a millisecond; the background thread sees to it that none waits behind a long task.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from shoal import _context, _current, exceptions
from shoal._core.object_ref import ObjectRef
from shoal._executor.actor_host import ActorExit, ActorHost
from shoal._executor.process_end import end_process, kill_descendants
from shoal._executor.replies import error_reply, result_reply, wrap_error
from shoal._net.connection import Connection
from shoal._net.reactor import Waiter
from shoal._owner.arguments import load_arguments
from shoal._values.serialization import loads
from shoal._wire import actor_creation, job_settings
from shoal._wire.peer_frames import (
    STORED,
    Recalled,
    TaskPush,
    TaskReplies,
    TaskReply,
)
from shoal_common import ids
from shoal_common.channel import frames
from shoal_common.placement.resources import GRAINS

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

#: Replies are held back to be sent together for so many seconds at most.
GATHER_S = 0.001
#: The function table answers, through the raylet, within so many seconds.
FUNCTION_TABLE_S = 60.0
#: The raylet's order to end is awaited for so many seconds by a worker that said it leaves.
LEAVE_S = 2.0


class Executor:
    """Queues, runs and answers. ``on_*`` run in the leading thread under the core's lock."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._queue: deque[tuple[bytes, TaskPush]] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        #: The main thread's wait for something to run.
        self._idle: Waiter | None = None
        self._functions: dict[bytes, Any] = {}
        self._runs: dict[bytes, int] = {}
        self._replies: dict[bytes, list[TaskReply]] = {}
        self._reply_lock = threading.Lock()
        self._first_reply_at = 0.0
        #: Functions and methods that have run here.
        self._known: set[str] = set()
        #: Threads of the user's code that wait for objects; whether the CPU is lent for them.
        self._blocked = 0
        self._lent = False
        self._block_lock = threading.Lock()
        #: The main thread runs a task.
        self._running = False
        self._leaving = False
        self._holds_cpu = True
        self.actor: ActorHost | None = None
        self._title = ""

    # -- from peers ---------------------------------------------------------------------------------

    def on_push(self, connection: Connection, tasks: list[TaskPush]) -> None:
        caller = connection.peer_worker_id
        if self.actor is not None and self.actor.takes_calls:
            self.actor.start_calls(caller, tasks)
            return
        if (self._blocked and self._running and self.actor is None) or self._leaving:
            connection.send(Recalled([task.task_id for task in tasks], blocked=True, leaving=self._leaving))
            return
        self._queue.extend([(caller, task) for task in tasks])
        self._prefetch(caller, tasks)
        self._wake()

    def _prefetch(self, caller: bytes, tasks: list[TaskPush]) -> None:
        """What lies on other nodes comes here while the tasks before these run."""
        wanted: list[tuple[bytes, bytes]] = []
        for task in tasks:
            if task.args_object:
                wanted.append((task.args_object, self.home_of(caller)))
            if task.refs is not None:
                wanted += [(ref.object_id, ref.value.node_id) for ref in task.refs if ref.value.kind == STORED]
        wanted = [(object_id, home) for object_id, home in wanted if home != self._core.node_id]
        if wanted:
            self._core.store.prefetch(wanted)

    def on_recall(self, connection: Connection, count: int) -> None:
        caller = connection.peer_worker_id
        taken: list[bytes] = []
        kept: deque[tuple[bytes, TaskPush]] = deque()
        while self._queue and len(taken) < count:
            try:
                item = self._queue.pop()
            except IndexError:
                break  # the main thread took the last one
            if item[0] == caller:
                taken.append(item[1].task_id)
            else:
                kept.appendleft(item)
        self._queue.extend(kept)
        taken.reverse()
        connection.send(Recalled(taken))

    def on_caller_gone(self, worker_id: bytes) -> None:
        """Nobody waits for these any more. The raylet ends this worker if the caller held its lease."""
        if self.actor is None:
            self._queue = deque(item for item in self._queue if item[0] != worker_id)

    # -- from the raylet --------------------------------------------------------------------------------

    def on_raylet(self, message: Any) -> None:
        kind = type(message)
        if kind is frames.LeaseAssigned:
            self._assign(message)
        elif kind is frames.CreateActor:
            self._assign(message)
            self._commands.append(lambda: self._create_actor(message))
            self._wake()
        elif kind is frames.WorkerExit:
            if message.graceful:
                self._commands.append(lambda: self._leave_gracefully(message.reason))
                self._wake()
            else:
                os._exit(0)

    def _assign(self, granted: frames.LeaseAssigned | frames.CreateActor) -> None:
        process, devices = _context.process, granted.devices
        process.resources = {name: grains / GRAINS for name, grains in granted.resources}
        process.devices = devices
        before, process.strategy = process.strategy, granted.strategy
        if before != process.strategy:
            _current.prepare_anew()  # what the functions here submit may go to another placement group
        cpus = process.resources.get("CPU", 0.0)
        self._holds_cpu = cpus > 0
        if "SHOAL_USER_OMP" not in os.environ:
            os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpus)))
        if "GPU" in devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices["GPU"])

    def on_raylet_lost(self) -> None:
        """The node is gone: this process has nothing left to do, and takes its children along."""
        kill_descendants()
        os._exit(1)

    def _wake(self) -> None:
        idle = self._idle
        if idle is not None:
            self._core.reactor.finish(idle)

    # -- the main thread --------------------------------------------------------------------------------

    def run(self) -> None:
        """Run what comes until the process exits."""
        while True:
            while self._commands:
                self._commands.popleft()()
            try:
                caller, push = self._queue.popleft()
            except IndexError:
                self.flush_replies()
                waiter = Waiter()
                self._idle = waiter
                if not self._queue and not self._commands:
                    self._core.reactor.wait(waiter)
                self._idle = None
                continue
            if push.name not in self._known:
                # Who knows how it ends: a crash must not take the answers of others along.
                self.flush_replies()
                self._known.add(push.name)
            self._running = True
            reply = self.execute(caller, push)
            self._running = False
            now = time.monotonic()
            with self._reply_lock:
                self._replies.setdefault(caller, []).append(reply)
                if not self._first_reply_at:
                    self._first_reply_at = now
            if now - self._first_reply_at > GATHER_S:
                self.flush_replies()

    def execute(self, caller: bytes, push: TaskPush) -> TaskReply:
        """Run one task or call on this thread, and make its reply."""
        received: list[ObjectRef[Any]] = []
        started = time.perf_counter_ns()
        token = None
        context: _context.TaskContext | None = None
        result: Any = None
        args: Any = ()
        kwargs: Any = {}
        try:
            if self.actor is not None:
                function = self.actor.method(push.name)
                task_name = f"{_context.process.actor_class_name}.{push.name}"
            else:
                function = self._function(push)
                task_name = push.name
                if task_name != self._title:
                    self.set_title(task_name)
            context = _context.TaskContext(push.task_id, task_name, push.name, push.attempt)
            token = _context.current_task.set(context)
            if push.args or push.args_object or push.refs:
                args, kwargs = load_arguments(self._core, push, received, self.home_of(caller))
            result = function(*args, **kwargs)
            reply = result_reply(self._core, caller, push, result, started)
        except ActorExit as intent:
            self.exit_from_actor(intent.reason)
            raise
        except SystemExit as error:
            reply = self._on_system_exit(push, error)
        except BaseException as error:  # the caller gets whatever the user's code raised
            reply = error_reply(self._core, self.actor, push, error, started)
        finally:
            if token is not None:
                _context.current_task.reset(token)
        if context is not None and context.exiting:
            self.exit_from_actor("exit_actor() is called")  # the user's code has caught it
            raise ActorExit("exit_actor() is called")
        if received:
            result = args = kwargs = None
            with self._core.lock:
                reply.borrowed = self._core.borrowing.still_borrowed(received, caller) or None
        if push.max_calls:
            self._count_run(caller, push)
        return reply

    def _function(self, push: TaskPush) -> Any:
        function = self._functions.get(push.function_id)
        if function is None:
            self.ensure_job(push.task_id[: ids.JOB_LENGTH])
            function = self._functions[push.function_id] = self.load_function(push.function_id)
        return function

    def load_function(self, function_id: bytes) -> Any:
        """From the function table. Raises what unpickling raises, with a hint."""
        answer = self._ask_function_table(function_id)
        if answer is None or answer.error:
            reason = f"no answer in {FUNCTION_TABLE_S:g} s" if answer is None else answer.error
            raise exceptions.ShoalSystemError(
                f"The function table does not give function {function_id.hex()}: {reason}"
            )
        try:
            return loads(answer.data)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error}. The worker could not import what the function needs: install it on every node, or define "
                "the function in the script itself",
                name=error.name,
                path=error.path,
            ) from error

    def ensure_job(self, job_id: bytes) -> None:
        """Take on the job's settings before its first code runs here."""
        core = self._core
        if core.job_id == job_id:
            return
        core.set_job(job_id)
        answer = self._ask_function_table(job_settings.key(job_id))
        if answer is None or answer.error:
            raise exceptions.ShoalSystemError("The settings of the job are not in the function table")
        settings = job_settings.decode(answer.data)
        core.namespace = settings.namespace
        core.default_actor_lifetime = settings.default_actor_lifetime
        for path in reversed(settings.sys_path):
            if path not in sys.path:
                sys.path.insert(0, path)

    def _ask_function_table(self, key: bytes) -> frames.FunctionData | None:
        """None = no answer."""
        core = self._core
        answers = core.questions.ask([core.node_id], lambda number: frames.FunctionGet(number, key), FUNCTION_TABLE_S)
        return answers[0] if answers else None

    def home_of(self, caller: bytes) -> bytes:
        """The caller's node, where the objects lie that hold its large arguments."""
        address = self._core.peers.address_of(caller)
        return address.node_id if address is not None else self._core.node_id

    # -- replies ------------------------------------------------------------------------------------

    def reply_now(self, caller: bytes, replies: list[TaskReply]) -> None:
        """From an actor's thread or event loop."""
        with self._core.lock:
            self._core.borrowing.send_after_acks(caller, TaskReplies(replies))

    def flush_replies(self) -> None:
        if not self._replies:
            return
        with self._reply_lock:
            replies, self._replies = self._replies, {}
            self._first_reply_at = 0.0
            # Under the lock, so that two flushing threads keep the order of the replies.
            for caller, batch in replies.items():
                self.reply_now(caller, batch)

    def flush_stale(self) -> None:
        """From the background thread: what has waited too long behind a task that turned out to be long."""
        if self._replies and time.monotonic() - self._first_reply_at > GATHER_S:
            self.flush_replies()

    # -- blocking -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def blocking(self) -> Iterator[None]:
        """Around a wait of user code in any thread: replies go out, tasks not begun go back, the CPU is lent.

        Ray lends it for the main thread only; then a task that waits for its own threads, which wait for other
        tasks, can hold the CPU that those need. Lending too early costs a moment of two tasks on one CPU.
        """
        with self._block_lock:
            self._blocked += 1
            first = self._blocked == 1
            lent = first and self._holds_cpu
            if lent:
                self._core.raylet.send(frames.Blocked())
                self._lent = True
        if first:
            self.flush_replies()
            if self.actor is None and self._running:
                self._hand_back()
        try:
            yield
        finally:
            with self._block_lock:
                self._blocked -= 1
                if not self._blocked and self._lent:
                    self._lent = False
                    self._core.raylet.send(frames.Unblocked())

    def _hand_back(self, leaving: bool = False) -> None:
        with self._core.lock:
            by_caller: dict[bytes, list[bytes]] = {}
            while self._queue:
                caller, push = self._queue.popleft()
                by_caller.setdefault(caller, []).append(push.task_id)
            for caller, task_ids in by_caller.items():
                self._core.peers.send(caller, Recalled(task_ids, blocked=not leaving, leaving=leaving))

    # -- actors -------------------------------------------------------------------------------------

    def _create_actor(self, message: frames.CreateActor) -> None:
        creation = actor_creation.decode(message.spec)
        process = _context.process
        process.actor_id = message.actor_id
        process.actor_name = creation.name
        process.actor_class_name = creation.class_name
        process.actor_handle = creation.handle
        process.incarnation = message.incarnation
        error = b""
        received: list[ObjectRef[Any]] = []
        made_by = self._core.task_ids.next()
        context = _context.TaskContext(made_by, f"{creation.class_name}.__init__", "__init__", message.incarnation - 1)
        token = _context.current_task.set(context)
        try:
            self.ensure_job(ids.job_of_actor(ids.ActorID(message.actor_id)))
            self.set_title(creation.class_name)
            host = ActorHost(self._core, self, creation)
            args: Any = ()
            kwargs: dict[str, Any] = {}
            if creation.args or creation.args_object or creation.refs:
                args, kwargs = load_arguments(self._core, creation, received, creation.creator.node_id)
            host.construct(self.load_function(creation.class_id), args, kwargs)
            args = kwargs = None  # type: ignore[assignment]
        except ActorExit as intent:
            self._exit("INTENDED_USER_EXIT", intent.reason, 0)
        except BaseException as failure:  # creators and callers get whatever the constructor raised
            if isinstance(failure, SystemExit):
                self._on_system_exit(None, failure)
            error = self._core.pickle_error(
                wrap_error(self._core, self.actor, f"{creation.class_name}.__init__", failure)
            )
        finally:
            _context.current_task.reset(token)
        if received:
            with self._core.lock:
                self._core.borrowing.register(received)
            received.clear()
        if not error:
            self.actor = host
            with self._core.lock:
                early = list(self._queue)
                if host.takes_calls:
                    self._queue.clear()
                    for caller, push in early:
                        host.start_calls(caller, [push])
        self._core.raylet.send(frames.ActorCreated(message.actor_id, message.incarnation, error))

    # -- ends ---------------------------------------------------------------------------------------

    def _count_run(self, caller: bytes, push: TaskPush) -> None:
        runs = self._runs[push.function_id] = self._runs.get(push.function_id, 0) + 1
        if runs >= push.max_calls and not self._leaving:
            self._leaving = True
            self._core.peers.send(caller, Recalled([], leaving=True))
            self._hand_back(leaving=True)
            self._commands.append(self._leave_after_replies)

    def _leave_after_replies(self) -> None:
        """The owner returns the lease when it has the last reply; then the raylet orders the end."""
        self.flush_replies()
        self._core.raylet.send(frames.ExitIntent("INTENDED_USER_EXIT", "max_calls reached"))
        self._core.reactor.wait(Waiter(), LEAVE_S)
        self._exit("INTENDED_USER_EXIT", "max_calls reached", 0)

    def _leave_gracefully(self, reason: str) -> None:
        """The raylet wants this worker gone: what has arrived is still done."""
        if self.actor is None and (self._core.table.lends() or self._core.actors.owns_living()):
            # Objects and actors of this process would end with it: it stays until others let go of them.
            self._core.reactor.call_later(1.0, lambda: self._try_leaving(reason))
            return
        if self.actor is not None:
            if self._queue:
                self._commands.append(lambda: self._leave_gracefully(reason))
                self._run_queue()
                return
            self.actor.shut_down()
        self._exit("INTENDED_SYSTEM_EXIT", reason, 0)

    def _try_leaving(self, reason: str) -> None:
        self._commands.append(lambda: self._leave_gracefully(reason))
        self._wake()

    def _run_queue(self) -> None:
        while self._queue:
            caller, push = self._queue.popleft()
            self.reply_now(caller, [self.execute(caller, push)])

    def terminate_actor(self) -> None:
        """``__ray_terminate__``: end after the calls before it."""
        assert self.actor is not None
        if self.actor.takes_calls:
            threading.Thread(target=self._terminate, name="shoal-leave", daemon=True).start()
        else:
            self._terminate()

    def _terminate(self) -> None:
        assert self.actor is not None
        self.actor.shut_down()
        self._exit("INTENDED_USER_EXIT", "__ray_terminate__ was called", 0)

    def exit_from_actor(self, reason: str) -> None:
        """``exit_actor`` was called: calls that run at the same time finish, all others fail."""
        assert self.actor is not None
        self.actor.exit_requested = reason
        if self.actor.takes_calls:
            threading.Thread(target=self._exit_when_idle, args=(reason,), name="shoal-leave", daemon=True).start()
        else:
            self._exit("INTENDED_USER_EXIT", reason, 0)

    def _exit_when_idle(self, reason: str) -> None:
        assert self.actor is not None
        self.actor.wait_until_idle()
        self._exit("INTENDED_USER_EXIT", reason, 0)

    def _on_system_exit(self, push: TaskPush | None, error: SystemExit) -> TaskReply:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        kind = "INTENDED_USER_EXIT" if code == 0 else "USER_ERROR"
        self._exit(kind, f"sys.exit({error.code!r}) in {push.name if push else 'the constructor'}", code)
        raise AssertionError("not reached")

    def _exit(self, kind: str, detail: str, code: int) -> None:
        """End the process in order: replies out, the raylet told, exit hooks run."""
        self.flush_replies()
        self._core.raylet.send(frames.ExitIntent(kind, detail))
        end_process(code)

    # -- looks --------------------------------------------------------------------------------------

    def set_title(self, name: str) -> None:
        self._title = name
        import setproctitle

        setproctitle.setproctitle(f"shoal::{name}")
        announce_name(name)


def announce_name(name: str) -> None:
    """Tell the raylet, which reads this process's output, whose lines follow."""
    for stream in (sys.stdout, sys.stderr):
        announce = getattr(stream, "announce", None)
        if announce is not None:
            announce(name)
