"""Why a worker process ended, in the words the user will read. Pure."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

_KILL_HINT = "; if nobody killed it, the system was out of memory (see dmesg)"


@dataclass(frozen=True, slots=True)
class ExitReason:
    #: One of ``frames.EXIT_KINDS``.
    kind: str
    detail: str


def exit_reason(wait_status: int | None, announced: ExitReason | None, caused: ExitReason | None) -> ExitReason:
    """``wait_status`` as from ``os.waitpid``, None when nobody could collect it.

    ``announced``: what the worker said before it left (``ExitIntent``). ``caused``: why we ended it. A process
    that announced an orderly end and was then killed by a signal of its own crashed all the same.
    """
    if caused is not None:
        return caused
    if wait_status is not None and os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = _KILL_HINT if number == signal.SIGKILL else ""
        return ExitReason("SYSTEM_ERROR", f"killed by {name}{hint}")
    if announced is not None:
        return announced
    if wait_status is None:
        return ExitReason("SYSTEM_ERROR", "the worker process ended; its exit status is not known")
    code = os.waitstatus_to_exitcode(wait_status)
    return ExitReason("SYSTEM_ERROR", f"exited with code {code} (os._exit or sys.exit)")
