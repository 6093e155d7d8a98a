"""A worker's other half: it takes the tasks and actor calls that owners push, has them run, and answers.

Plain tasks, and the calls of an ordinary actor, run one after the other on the main thread, which leads the
reactor while it has nothing to run. Replies of short tasks are sent together: when the queue is empty, after a
millisecond, or when they fill a message; the background thread sees to it that none waits behind a long task.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import _context, _tracing
from shoal._core.batches import MESSAGE_BYTES, reply_bytes
from shoal._core.deadlines import BEHIND, RUNNING
from shoal._core.waits import BLOCKED, UNKNOWN
from shoal._executor import assignment
from shoal._executor.actor_host import ActorHost
from shoal._executor.appearance import Appearance
from shoal._executor.cancels import Interrupted
from shoal._executor.checkpoint import Keeper, make_keeper
from shoal._executor.leaving import EXIT_ACTOR, Leaving
from shoal._executor.lending import Lending
from shoal._executor.loading import Functions
from shoal._executor.process_end import kill_descendants
from shoal._executor.run import Runner
from shoal._executor.time_limits import Stopped
from shoal._net import interrupts
from shoal._net.connection import Connection
from shoal._net.last_replies import LastReplies
from shoal._net.waiter import Waiter
from shoal._wire import actor_creation
from shoal._wire.peer_frames import CancelTask, PushTasks, Recalled, TaskPush, TaskReplies, TaskReply, WaitReport
from shoal._wire.value_kinds import STORED
from shoal_common.channel import frames
from shoal_common.kinds import ExitKind

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

#: Replies are held back to be sent together for so many seconds at most.
GATHER_S = 0.001
_MAIN_THREAD = threading.main_thread().ident or 0


class Executor:
    """Queues, runs and answers. ``on_*`` run in the leading thread under the core's lock."""

    def __init__(self, core: CoreWorker, appearance: Appearance, checkpoint_directory: str = "") -> None:
        """``checkpoint_directory``: as in ``WorkerConfig``."""
        self._core = core
        self._checkpoint_directory = checkpoint_directory
        self._appearance = appearance
        self.leaving = Leaving(core, self)
        self._functions = Functions(core)
        self._runner = Runner(core, self._functions, self.leaving, appearance)
        core.task_reports.running, core.task_reports.is_busy = self._runner.running, self._is_busy
        self._queue: deque[tuple[bytes, TaskPush]] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        #: The main thread's wait for something to run.
        self._idle: Waiter | None = None
        #: As it was when the background thread last looked.
        self._seen_idle: Waiter | None = None
        self._replies: dict[bytes, list[TaskReply]] = {}
        self._reply_lock = threading.Lock()
        self._first_reply_at = 0.0
        self._reply_bytes = 0
        self._last_replies: LastReplies | None = None
        #: So many of them lie there.
        self._saved = 0
        #: Functions and methods that have run here.
        self._known: set[str] = set()
        self._lending = Lending(core, self.flush_replies, self._hand_back_behind)
        self.blocking, self.lend_cpu = self._lending.blocking, self._lending.lend_cpu
        #: What the main thread runs.
        self._running: TaskPush | None = None
        #: The actor in this process, once its constructor has returned.
        self.actor: ActorHost | None = None
        #: Of an actor that keeps checkpoints by itself.
        self._keeper: Keeper | None = None
        _context.process.exit_actor = self.leaving.exit_actor

    # -- from peers ---------------------------------------------------------------------------------

    def on_push(self, connection: Connection, message: PushTasks) -> None:
        caller, tasks = connection.peer_worker_id, message.tasks
        self._core.task_reports.runs()
        self._runner.time_limits.arrived(tasks)
        self._runner.cancels.arrived(tasks)
        actor, leaving = self.actor, self.leaving.begun
        if actor is not None and actor.takes_calls:
            actor.start_calls(caller, tasks)
            return
        if (self._lending.waits_long and self._running is not None and actor is None) or leaving:
            connection.send(Recalled([task.task_id for task in tasks], blocked=True, leaving=leaving))
            return
        if message.answered and self._keeper is not None:
            self._keeper.caller_has(caller, message.answered)
        if actor is not None and any(task.concurrency_group for task in tasks):
            for task in tasks:
                if task.concurrency_group:  # of the groups it has this one alone
                    actor.start_system_call(caller, task)
            tasks = [task for task in tasks if not task.concurrency_group]
        self._queue.extend([(caller, task) for task in tasks])
        self._prefetch(caller, tasks)
        self._wake()

    def _prefetch(self, caller: bytes, tasks: list[TaskPush]) -> None:
        """What lies on other nodes comes here while the tasks before these run."""
        wanted: list[tuple[bytes, bytes]] = []
        for task in tasks:
            if task.args_object:
                wanted.append((task.args_object, self._runner.home_of(caller)))
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

    def on_stop(self, task_ids: list[bytes]) -> None:
        """A task in the main thread is unwound; a coroutine is cancelled. What else an actor runs goes
        on, generators to where they yield next: unwound in the middle, it would leave the actor's state half changed.
        """
        for task_id in task_ids:
            if not self._runner.time_limits.stop(task_id):
                continue
            running = self._running
            if self.actor is not None:
                self.actor.stop_call(task_id)
                self._runner.yielding.stop(task_id)
            elif running is not None and running.task_id == task_id:
                signal.pthread_kill(_MAIN_THREAD, interrupts.STOP)

    def on_stop_signal(self, signum: int, frame: object) -> None:
        """In the main thread, between any two byte codes of what it runs. Raises: Stopped, Interrupted."""
        task = _context.current_task.get()
        if task is not None and task.task_id in self._runner.running and not self.leaving.ending:
            self._runner.time_limits.unwind(task.task_id)
            self._runner.cancels.check(task.task_id)

    def on_cancel(self, message: CancelTask) -> None:
        """What has not begun is answered at once, and never begins."""
        task_id, cancels, actor = message.task_id, self._runner.cancels, self.actor
        # Before the looks: what begins in between sees it.
        cancels.mark(task_id)
        queued = next((item for item in list(self._queue) if item[1].task_id == task_id), None)
        running = self._runner.running.get(task_id)
        if queued is not None and self._take(queued):
            caller, push = queued
            cancels.unmark(task_id)
            self.reply_now(caller, [self._runner.stopped(push, Interrupted())])
        elif running is not None and actor is not None:
            cancels.unmark(task_id)
            running.cancelled = True
            actor.stop_call(task_id)
            self._runner.yielding.stop(task_id)
        elif running is not None and message.force:
            self._core.reactor.call_later(0, partial(self._exit_by_force, task_id))
        elif running is not None and message.closing:
            cancels.unmark(task_id)
            running.cancelled = True
            self._runner.yielding.stop(task_id)
        elif running is not None:
            running.cancelled = True
            self._runner.yielding.stop(task_id)
            signal.pthread_kill(_MAIN_THREAD, interrupts.STOP)
        elif actor is not None and actor.stop_call(task_id):
            cancels.unmark(task_id)
        if running is not None and message.recursive:
            self._core.cancelling.children(task_id, message.force)

    def _take(self, item: tuple[bytes, TaskPush]) -> bool:
        """Out of the queue, unless the main thread has been faster."""
        try:
            self._queue.remove(item)
        except ValueError:
            return False
        return True

    def _exit_by_force(self, task_id: bytes) -> None:
        """Without the lock, which whoever sends the last replies may need."""
        if task_id in self._runner.running:
            self.leaving.exit(ExitKind.SYSTEM_ERROR, "its task was cancelled with force=True", 1)

    def on_items_read(self, task_id: bytes, count: int) -> None:
        self._runner.yielding.items_read(task_id, count)

    def on_caller_gone(self, worker_id: bytes) -> None:
        """Nobody waits for these any more. The raylet ends this worker if the caller held its lease."""
        self._runner.yielding.caller_gone(worker_id)
        if self.actor is None:
            self._queue = deque(item for item in self._queue if item[0] != worker_id)
            return
        self.actor.caller_gone(worker_id)
        if self._keeper is not None:
            self._keeper.caller_gone(worker_id)

    # -- from the raylet --------------------------------------------------------------------------------

    def on_raylet(self, message: Any) -> None:
        kind = type(message)
        if kind is frames.LeaseAssigned:
            assignment.show(message, self._lending)
        elif kind is frames.CreateActor:
            assignment.show(message, self._lending)
            self.command(lambda: self._create_actor(message))
        elif kind is frames.WorkerExit:
            if message.graceful:
                self.command(lambda: self.leaving.gracefully(message.reason))
            else:
                _tracing.flush()
                os._exit(0)

    def on_raylet_lost(self) -> None:
        """The node is gone: this process has nothing left to do, and takes its children along."""
        kill_descendants()
        os._exit(1)

    def command(self, what: Callable[[], None]) -> None:
        """Have the main thread do something when it has ended what it runs."""
        self._commands.append(what)
        self._wake()

    def _wake(self) -> None:
        idle = self._idle
        if idle is not None:
            self._core.reactor.finish(idle)

    # -- the main thread --------------------------------------------------------------------------------

    def run(self) -> None:
        """Run what comes until the process exits."""
        ran = 0
        #: The last reply, while it may be waiting to be sent with others.
        held: tuple[bytes, TaskReply] | None = None
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
                    # A caller that makes one call at a time makes the next one soon.
                    self._core.reactor.wait(waiter, brief=ran == 1)
                self._idle = None
                ran, held = 0, None
                continue
            ran += 1
            if held is not None:
                self._save(*held)
                held = None
            if push.name not in self._known:
                # Who knows how it ends: a crash must not take the answers of others along.
                self.flush_replies()
                self._known.add(push.name)
            self._running = push
            reply = self._run(caller, push)
            self._running = None
            self._lending.go_on(_MAIN_THREAD)  # it may have been interrupted at the edge of its wait
            now = time.monotonic()
            if self.actor is None:
                self._appearance.restore_streams(now)
            self._appearance.flush_streams(wait=True)
            if reply is not None:
                self._gather(caller, reply, now)
                held = (caller, reply)
            if now - self._first_reply_at > GATHER_S or self._reply_bytes >= MESSAGE_BYTES:
                self.flush_replies()
            if self._keeper is not None:
                self._keeper.after(now, self.flush_replies)

    def _run(self, caller: bytes, push: TaskPush) -> TaskReply | None:
        """None: nobody waits for an answer."""
        keeper = self._keeper
        if keeper is not None and keeper.durable:
            todo = keeper.before(caller, push)
            if not isinstance(todo, TaskPush):
                return todo
            push, _held = keeper.self_contained(todo, self._runner.home_of(caller))
        try:
            reply = self._runner.run(caller, push)
        except (Stopped, Interrupted) as stopped:  # the code had just ended
            reply = self._runner.stopped(push, stopped)
        if reply is None:
            self.leaving.exit(ExitKind.INTENDED_USER_EXIT, EXIT_ACTOR, 0)
        if push.max_calls:
            self.leaving.count_run(caller, push)
        if keeper is not None:
            keeper.ran(caller, push, reply)
        return reply

    def run_queue(self) -> None:
        """From the main thread: what has arrived, and nothing else."""
        while self._queue:
            caller, push = self._queue.popleft()
            reply = self._run(caller, push)
            if reply is not None:
                self._gather(caller, reply, time.monotonic())
                self.flush_replies()

    def keep_state(self) -> None:
        """From the main thread, before the process ends in order."""
        if self._keeper is not None:
            self._keeper.leave(self.flush_replies)

    # -- replies ------------------------------------------------------------------------------------

    def _gather(self, caller: bytes, reply: TaskReply, now: float) -> None:
        with self._reply_lock:
            self._replies.setdefault(caller, []).append(reply)
            self._reply_bytes += reply_bytes(reply)
            if not self._first_reply_at:
                self._first_reply_at = now

    def _save(self, caller: bytes, reply: TaskReply) -> None:
        """The next call of an actor begins, and might end the process: a reply that is held back must not be lost with
        it, as the call has run and may not be made again. Tasks that may not run again never have others behind them.
        """
        if self.actor is None or (self._keeper is not None and self._keeper.durable):
            return
        with self._reply_lock:
            if not self._replies:
                return
            if self._last_replies is None:
                self._last_replies = LastReplies.of(self._core.session_dir, self._core.worker_id)
            if self._last_replies is not None and self._last_replies.add(caller, reply):
                self._saved += 1
                return
        self.flush_replies()

    def reply_now(self, caller: bytes, replies: list[TaskReply]) -> None:
        with self._core.lock:
            self._core.borrowing.send_after_acks(caller, TaskReplies(replies))

    def flush_replies(self) -> None:
        if not self._replies:
            return
        with self._reply_lock:
            replies, self._replies = self._replies, {}
            self._first_reply_at = 0.0
            self._reply_bytes = 0
            # Under the lock, so that two flushing threads keep the order of the replies.
            if self._keeper is not None and self._keeper.durable:
                self._keeper.release(partial(self._send, replies), more=bool(self._queue))
            else:
                self._send(replies)
                if self._last_replies is not None:
                    self._last_replies.sent(self._saved)
                    self._saved = 0

    def _send(self, replies: dict[bytes, list[TaskReply]]) -> None:
        for caller, batch in replies.items():
            self.reply_now(caller, batch)

    def on_tick(self) -> bool:
        """From the background thread: sends what has waited too long behind a task that turned out to be long. Tells
        whether anything runs or is still to be sent."""
        wait = self._idle
        # Since the last look: between two calls of a caller that makes one at a time it is not worth another title.
        idle = wait is not None and wait is self._seen_idle and (self.actor is None or self.actor.is_idle())
        self._seen_idle = wait
        if idle:
            self._appearance.rest()
        flushed = self._appearance.flush_streams(wait=False)
        if self._replies and time.monotonic() - self._first_reply_at > GATHER_S:
            self.flush_replies()
        return flushed or not idle or bool(self._replies)

    def _is_busy(self) -> bool:
        """Something runs, or is about to. Caller holds the core's lock, so that nothing arrives meanwhile; and what the
        main thread takes out of the queue it takes while it is not idle."""
        if self._queue or self._idle is None:
            return True
        return self.actor is not None and self.actor.has_calls()

    # -- what is waited for -------------------------------------------------------------------------------

    def describe(self, task_id: bytes) -> WaitReport:
        """With the core's lock."""
        pid = os.getpid()
        running = self._runner.running.get(task_id)
        if running is not None:
            report = WaitReport(RUNNING, running.task_name, pid=pid)
            report.for_s = (time.perf_counter_ns() - running.started) / 1e9
            wait = self._core.waits.of_task(task_id)
            objects = self._core.reporting.awaited(wait) if wait is not None else []
            if wait is not None and objects:
                report.state, report.objects, report.wait = BLOCKED, objects, wait.number
                report.for_s = time.monotonic() - wait.since
                report.certain = not wait.timed and (wait.all_needed or len(wait.entries) == 1)
            return report
        actor, main = self.actor, self._running
        queued = actor.waiting_call(task_id) if actor is not None and actor.takes_calls else None
        if queued is not None:
            push, before = queued
        else:
            found = next((push for _, push in list(self._queue) if push.task_id == task_id), None)
            if found is None:
                return WaitReport(UNKNOWN, detail="it is on its way to its worker, or its answer is on its way back")
            push, before = found, [] if main is None else [main.task_id]
        name = push.name if actor is None else push.task_name or f"{actor.class_name}.{push.name}"
        # A worker that waits in ``get`` hands back what it has not begun, unless it is an actor.
        return WaitReport(BEHIND, name, pid=pid, behind=before, certain=actor is not None)

    def _hand_back_behind(self) -> None:
        """The main thread waits for long: what it would have run next goes to others. The calls of an actor stay."""
        if self.actor is None and self._running is not None:
            self.hand_back()

    def hand_back(self, leaving: bool = False) -> None:
        """Tasks that have not begun go back to their owners."""
        with self._core.lock:
            by_caller: dict[bytes, list[bytes]] = {}
            while self._queue:
                caller, push = self._queue.popleft()
                by_caller.setdefault(caller, []).append(push.task_id)
            for caller, task_ids in by_caller.items():
                self._core.peers.send(caller, Recalled(task_ids, blocked=not leaving, leaving=leaving))

    # -- actors -------------------------------------------------------------------------------------

    def _look_every(self, interval_s: float, keeper: Keeper) -> None:
        """Also an actor that nobody calls takes its checkpoint when it is due."""

        def look() -> None:
            if keeper.is_due():
                self.command(lambda: keeper.after(time.monotonic(), self.flush_replies))
            self._core.reactor.call_later(interval_s, look)

        self._core.reactor.call_later(interval_s, look)

    def _create_actor(self, message: frames.CreateActor) -> None:
        creation = actor_creation.decode(message.spec)
        process = _context.process
        process.actor_id = message.actor_id
        process.actor_name = creation.name
        process.actor_class_name = creation.class_name
        process.actor_handle = creation.handle
        process.incarnation = message.incarnation
        process.durable = creation.durable
        process.is_async = creation.is_async
        self._appearance.become(creation.class_name)
        keeper = make_keeper(self._core, creation, message, self._checkpoint_directory)
        process.checkpoint = keeper.checkpoint if keeper is not None else None
        host = ActorHost(self._core, self._runner, self.leaving, creation, keeper)
        error = self._runner.construct(creation, message, host)
        if not error:
            with self._core.lock:
                self.actor = host
                if keeper is not None and keeper.is_regular:
                    self._keeper = keeper
                self._appearance.announce(host.log_name())
                if host.takes_calls:
                    for caller, push in self._queue:
                        host.start_calls(caller, [push])
                    self._queue.clear()
            if keeper is not None and creation.checkpoint_interval_s:
                self._look_every(creation.checkpoint_interval_s, keeper)
        self._core.raylet.send(frames.ActorCreated(message.actor_id, message.incarnation, error))
