"""Why a worker process ended, in the words the user will read. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from signal import SIGKILL, Signals

from shoal_common.kinds import ExitKind

_KILL_HINT = (
    "; if nobody killed it, the system was out of memory (see dmesg): run fewer at a time, or use less memory in each"
)


@dataclass(frozen=True, slots=True)
class ExitReason:
    kind: ExitKind
    detail: str
    #: Of a node without memory: others had filled it too.
    shared_blame: bool = False


def exit_reason(exit_code: int | None, announced: ExitReason | None, caused: ExitReason | None) -> ExitReason:
    """``exit_code`` as of ``subprocess``: negative = the signal that killed it; None when nobody could collect it.

    ``announced``: what the worker said before it left (``ExitIntent``). ``caused``: why we ended it. A process
    that announced an orderly end and was then killed by a signal of its own crashed all the same.
    """
    if caused is not None:
        return caused
    if exit_code is not None and exit_code < 0:
        number = -exit_code
        try:
            name = Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = _KILL_HINT if number == SIGKILL else ""
        return ExitReason(ExitKind.SYSTEM_ERROR, f"killed by {name}{hint}")
    if announced is not None:
        return announced
    if exit_code is None:
        return ExitReason(ExitKind.SYSTEM_ERROR, "the worker process ended; its exit status is not known")
    return ExitReason(ExitKind.SYSTEM_ERROR, f"exited with code {exit_code} (os._exit or sys.exit)")
