"""pdb for code that runs in workers: it waits, at a breakpoint or after an error, until a terminal comes
(``shoal debug``), which is asked and told. In a driver it is pdb as usual.
"""

from __future__ import annotations

import pdb
import sys
import traceback
from types import FrameType, TracebackType
from typing import Any

from shoal import _context, _current
from shoal._owner.debugging import Conversation, Debugging


class Pdb(pdb.Pdb):
    """A debugger at the other end of a conversation."""

    def __init__(self, conversation: Conversation, debugging: Debugging) -> None:
        super().__init__(stdin=conversation, stdout=conversation, nosigint=True, readrc=False)  # type: ignore[arg-type]
        self.use_rawinput = False
        self._conversation = conversation
        self._debugging = debugging
        self._over = False
        #: When it returns nothing is debugged any more: the code around it is Shoal's.
        self._outermost: FrameType | None = None

    def wait_in(self, frame: FrameType) -> None:
        """Before the frame's next line, and where else it is told to."""
        self._outermost = _outermost(frame)
        self.set_trace(frame)

    def wait_after(self, trace: TracebackType | None) -> None:
        """In the frame that has raised. Returns when it is told to go on."""
        self.reset()
        self.interaction(None, trace)
        self._end()

    def do_EOF(self, arg: str) -> bool:
        """The terminal has gone away: as if it had said "continue", and had no breakpoints."""
        self.clear_all_breaks()
        self.set_continue()
        self._end()
        return True

    def set_continue(self) -> None:
        super().set_continue()
        if not self.breaks:
            self._end()

    def set_quit(self) -> None:
        super().set_quit()
        self._end()

    def dispatch_return(self, frame: FrameType, arg: Any) -> Any:
        dispatched = super().dispatch_return(frame, arg)
        if frame is self._outermost:
            self.clear_all_breaks()
            self.set_continue()
        return dispatched

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self.clear_all_breaks()  # pdb keeps them for all debuggers of a process
            self._debugging.end(self._conversation)


def set_trace(*, header: str | None = None) -> None:
    """Wait here, before the next line, for a terminal: ``shoal debug``. ``header``: what it reads first."""
    pause(sys._getframe(1), header)


def pause(frame: FrameType, header: str | None = None) -> None:
    """As ``set_trace``, in another frame."""
    if _current.current_or_none() is None or _current.current().role != "worker":
        local = pdb.Pdb()
        if header is not None:
            local.message(header)
        local.set_trace(frame)
        return
    debugger = _begin(f"{frame.f_code.co_filename}:{frame.f_lineno}", "")
    if debugger is not None:
        if header is not None:
            debugger.message(header)
        debugger.wait_in(frame)


def post_mortem(error: BaseException) -> None:
    """Wait where a task's error was raised. Returns when the terminal has gone on."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    debugger = _begin(where, f"{type(error).__name__}: {error}")
    if debugger is not None:
        debugger.message("".join(traceback.format_exception(error)).rstrip())
        debugger.wait_after(error.__traceback__)


def _begin(where: str, error: str) -> Pdb | None:
    core = _current.current()
    task = _context.current_task.get()
    name = task.task_name if task is not None else "a thread"
    conversation = core.debugging.begin(name, where, error)
    if conversation is None:
        return None
    why = f"after {error}" if error else "at a breakpoint"
    told = f"{name} waits {why}, {where}. On a machine of the cluster: shoal debug {conversation.at.id}"
    print(told, file=sys.stderr, flush=True)
    return Pdb(conversation, core.debugging)


def _outermost(frame: FrameType) -> FrameType:
    """Of the user's code, which Shoal or an event loop has called."""
    while (back := frame.f_back) is not None:
        if back.f_globals.get("__name__", "").partition(".")[0] in ("shoal", "asyncio", "threading"):
            break
        frame = back
    return frame
