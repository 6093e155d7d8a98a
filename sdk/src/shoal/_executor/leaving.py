"""How and when a worker ends by its own doing: in order, with what has been answered on its way.

An actor's own code ends it (``exit_actor``, ``sys.exit``, ``__ray_terminate__``), a function's ``max_calls`` are used
up, or the raylet asks for it. What others still need of this process (objects that it owns, actors that it made) keeps
a worker of tasks alive; nothing keeps an actor.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, NoReturn

from shoal import _context, _tracing
from shoal._executor.process_end import end_process
from shoal._net.waiter import Waiter
from shoal._wire.peer_frames import Recalled, TaskPush
from shoal_common.channel import frames
from shoal_common.kinds import ExitKind

if TYPE_CHECKING:
    from shoal._executor.ports import MainThread
    from shoal._owner.core_worker import CoreWorker

#: A worker that said it leaves ends so many seconds later: its owner has the last reply by then.
LEAVE_S = 2.0
#: Whoever is owed answers or news by a worker that ends has read so much of them by then, in seconds, that the system
#: can bring the rest.
DELIVER_S = 10.0
#: A worker that others need looks after so many seconds whether they still do.
LOOK_AGAIN_S = 1.0
EXIT_ACTOR = "exit_actor() is called"


class ActorExit(BaseException):
    """Raised by ``exit_actor``; not an Exception, so that user code does not catch it by accident."""


class _Terminated(SystemExit):
    """SIGTERM has come while the user's code runs in the main thread: it is unwound."""


class Leaving:
    """One per worker."""

    def __init__(self, core: CoreWorker, executor: MainThread) -> None:
        self._core = core
        self._executor = executor
        #: Nothing more is taken on; what comes goes back.
        self.begun = False
        self._runs: dict[bytes, int] = {}
        self._ending = threading.Lock()

    # -- a worker of tasks --------------------------------------------------------------------------

    def count_run(self, caller: bytes, push: TaskPush) -> None:
        """A function with ``max_calls`` has run."""
        runs = self._runs[push.function_id] = self._runs.get(push.function_id, 0) + 1
        if runs >= push.max_calls and not self.begun:
            self.begun = True
            self._core.peers.send(caller, Recalled([], leaving=True))
            self._executor.hand_back(leaving=True)
            self._executor.command(self._leave_after_replies)

    def _leave_after_replies(self) -> None:
        """The owner returns the lease when it has the last reply: so its resources are free at once."""
        self._executor.flush_replies()
        self._core.reactor.wait(Waiter(), LEAVE_S)
        self._leave_when_unneeded(ExitKind.INTENDED_USER_EXIT, "max_calls reached")

    def _leave_when_unneeded(self, kind: ExitKind, reason: str) -> None:
        """Objects and actors of this process would end with it: it stays until others let go of them."""
        if self._core.table.lends() or self._core.actors.owns_living():
            self._core.reactor.call_later(
                LOOK_AGAIN_S, lambda: self._executor.command(lambda: self._leave_when_unneeded(kind, reason))
            )
            return
        self.exit(kind, reason, 0)

    def gracefully(self, reason: str) -> None:
        """The raylet wants this worker gone: what has arrived is still done."""
        actor = self._executor.actor
        if actor is None:
            self._leave_when_unneeded(ExitKind.INTENDED_SYSTEM_EXIT, reason)
            return
        self._executor.run_queue()
        self._executor.keep_state()
        actor.shut_down()
        self.exit(ExitKind.INTENDED_SYSTEM_EXIT, reason, 0)

    # -- an actor -----------------------------------------------------------------------------------

    def exit_actor(self) -> NoReturn:
        """Of the user's code, in any thread or coroutine of the actor; what it calls this from is unwound.

        Calls that have not begun fail. Those that run in other threads finish; coroutines do not, since one of an async
        actor may well run for ever.
        """
        task = _context.current_task.get()
        if task is not None:
            task.exiting = True
        actor = self._executor.actor
        if actor is not None and actor.takes_calls:
            actor.close()  # here: the thread of this call would begin the next one meanwhile
            threading.Thread(target=self._exit_actor, name="shoal-leave", daemon=True).start()
        elif threading.current_thread() is not threading.main_thread():
            self._executor.command(lambda: self.exit(ExitKind.INTENDED_USER_EXIT, EXIT_ACTOR, 0))
        raise ActorExit(EXIT_ACTOR)

    def _exit_actor(self) -> None:
        actor = self._executor.actor
        assert actor is not None
        if not actor.is_async:
            actor.wait_until_answered()
        self.exit(ExitKind.INTENDED_USER_EXIT, EXIT_ACTOR, 0)

    def terminate(self) -> NoReturn:
        """``__ray_terminate__``: end after the calls before it, which have been begun. It is not answered."""
        actor = self._executor.actor
        assert actor is not None
        actor.shut_down()
        self.exit(ExitKind.INTENDED_USER_EXIT, "__ray_terminate__ was called", 0)

    # -- the end ------------------------------------------------------------------------------------

    @property
    def ending(self) -> bool:
        return self._ending.locked()

    def on_sigterm(self, signum: int, frame: object) -> None:
        """A crash like any other to whoever waits for this process, but exit hooks run, and what runs in the main
        thread is unwound, and may use ``get`` meanwhile. What it does after catching that is still answered."""
        self._executor.command(self._exit_killed)
        if _context.current_task.get() is not None:
            raise _Terminated

    def _exit_killed(self) -> NoReturn:
        self.exit(ExitKind.SYSTEM_ERROR, "killed by SIGTERM", 128 + signal.SIGTERM)

    def exit_as_told(self, error: SystemExit, where: str) -> NoReturn:
        """``sys.exit`` ends the process; with a code that means failure, an actor is restarted as after a crash."""
        if isinstance(error, _Terminated):
            self._exit_killed()
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        kind = ExitKind.INTENDED_USER_EXIT if code == 0 else ExitKind.USER_ERROR
        self.exit(kind, f"sys.exit({error.code!r}) in {where}", code)

    def exit(self, kind: ExitKind, detail: str, code: int) -> NoReturn:
        """End the process in order: replies out, the raylet told, exit hooks run. From any thread."""
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()  # another thread is at it
        self._executor.flush_replies()
        if self._executor.actor is not None:
            self._executor.actor.flush()
        self._core.task_reports.flush()
        self._core.raylet.send(frames.ExitIntent(kind, detail))
        _tracing.flush()
        if not self._core.reactor.is_handling():
            self._core.deliver(DELIVER_S)
        end_process(code)
