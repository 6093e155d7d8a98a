"""Why an attempt has failed, in short, for those who look at many of them."""

from __future__ import annotations

import linecache
import os
from types import TracebackType

from shoal import exceptions
from shoal_common.events.task_events import Failure

#: Of the text of one.
MAX_LINES = 5
MAX_CHARACTERS = 1_000

EXECUTION = "TASK_EXECUTION_EXCEPTION"
CANCELLED = "TASK_CANCELLED"
#: Ray's names where it has one. The first that fits counts.
_TYPES: tuple[tuple[type[BaseException], str], ...] = (
    (exceptions.TaskError, EXECUTION),
    (exceptions.TaskCancelledError, CANCELLED),
    (exceptions.TaskTimeoutError, "TASK_TIMEOUT"),
    (exceptions.WorkerCrashedError, "WORKER_DIED"),
    (exceptions.NodeDiedError, "NODE_DIED"),
    (exceptions.OutOfMemoryError, "OUT_OF_MEMORY"),
    (exceptions.LocalRayletDiedError, "LOCAL_RAYLET_DIED"),
    (exceptions.ActorDiedError, "ACTOR_DIED"),
    (exceptions.ActorUnavailableError, "ACTOR_UNAVAILABLE"),
    (exceptions.TaskUnschedulableError, "TASK_UNSCHEDULABLE_ERROR"),
    (exceptions.ActorUnschedulableError, "ACTOR_UNSCHEDULABLE_ERROR"),
    (exceptions.RuntimeEnvSetupError, "RUNTIME_ENV_SETUP_FAILED"),
    (exceptions.TaskPlacementGroupRemoved, "TASK_PLACEMENT_GROUP_REMOVED"),
    (exceptions.OwnerDiedError, "OWNER_DIED"),
    (exceptions.ObjectReconstructionFailedError, "OBJECT_UNRECONSTRUCTABLE"),
    (exceptions.ObjectLostError, "OBJECT_LOST"),
)
ARGUMENT_FAILED = Failure(EXECUTION, "", "one of its arguments is the error of another task")


def of_system(error: Exception) -> Failure:
    """Of what Shoal itself says."""
    kind = next((name for cls, name in _TYPES if isinstance(error, cls)), EXECUTION)
    return Failure(kind, type(error).__name__, _shortened(_text(error)))


def of_raised(error: BaseException) -> Failure:
    """Of what the user's code has raised, in the process where that ran: says in which line."""
    if isinstance(error, exceptions.TaskError):  # of a task it has waited for
        return Failure(EXECUTION, type(error.cause).__name__, _shortened(_text(error.cause)))
    text = _text(error)
    where = _last_line(error.__traceback__)
    return Failure(EXECUTION, type(error).__name__, _shortened(f"{text}\n{where}" if where else text))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__ of the user's must not hide the error itself
        return f"{type(error).__name__} whose __str__ fails"


def _shortened(text: str) -> str:
    """A text may be anything: only what is text everywhere is kept of it."""
    kept = "\n".join(text[: 4 * MAX_CHARACTERS].splitlines()[:MAX_LINES])[:MAX_CHARACTERS]
    return kept.encode(errors="replace").decode()


def _last_line(traceback: TracebackType | None) -> str:
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    source = linecache.getline(code.co_filename, traceback.tb_lineno).strip()
    return f"{os.path.basename(code.co_filename)}:{traceback.tb_lineno} in {code.co_name}: {source}".rstrip(": ")
