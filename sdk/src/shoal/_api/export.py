"""Functions and classes on their way into the function table."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

from shoal import _context, _current, exceptions
from shoal._core.task_record import TimeLimit
from shoal._text import check_text
from shoal._values.serialization import dumps_function, largest_captures, loads, serialize
from shoal_common.channel.frames import SchedulingClass
from shoal_common.function_chunks import MAX_FUNCTION_BYTES
from shoal_common.ids import new_function_id
from shoal_common.placement.resources import ResourceSet

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

#: Of a pickled function or class, as in Ray.
WARN_BYTES = 10 * 1024 * 1024


#: One export at a time: functions and classes that refer to each other export each other.
_exporting = threading.RLock()


class Exportable:
    """A function or class and its place in the function table; shared by all its option variants."""

    def __init__(self, target: Any, name: str) -> None:
        """Raises: UnicodeEncodeError."""
        check_text("the name of what is remote", name)
        #: None when it came from another process, which has exported it.
        self.target = target
        self.name = name
        #: Session whose id this is; session in which the export has ended (another thread may be at it).
        self.epoch = self.exported = -1
        self.function_id = b""
        #: Where ``target`` is None: what the function table gave.
        self._fetched: Any = None

    def exported_id(self) -> bytes:
        """Its key in this session, exporting it if need be; re-entered when it refers to itself.

        Raises: TypeError (cannot be pickled), ValueError (over 100 MiB), ShoalSystemError.
        """
        core = _current.connected()
        if self.exported == _current.epoch or self.target is None:
            return self.function_id
        with _exporting:
            if self.epoch != _current.epoch:
                before = (self.epoch, self.function_id)
                # Chosen before it is pickled, so that a recursive remote function can name itself.
                self.function_id = new_function_id(core.job_id)
                self.epoch = _current.epoch
                try:
                    _export(core, self.function_id, self.target, self.name)
                except BaseException:
                    self.epoch, self.function_id = before
                    raise
                self.exported = self.epoch
        return self.function_id

    def itself(self) -> Any:
        """The function or class; out of the function table where it came from another process.

        Raises: RpcError, what unpickling raises.
        """
        if self.target is not None:
            return self.target
        if self._fetched is None:
            process = _context.process
            # The class of the actor that runs here must not be made a second time: it may have changed.
            mine = self.function_id == process.actor_class_id
            self._fetched = process.actor_class if mine else _fetch(self.function_id)
        return self._fetched


def _fetch(function_id: bytes) -> Any:
    return loads(_current.connected().gcs.functions.get(function_id))


def _export(core: CoreWorker, function_id: bytes, function: Any, name: str) -> None:
    """Put a function or class into the function table."""
    data, references = dumps_function(function)
    kind = "actor class" if isinstance(function, type) else "remote function"
    if len(data) > MAX_FUNCTION_BYTES:
        size = f"({len(data) >> 20} MiB > {MAX_FUNCTION_BYTES >> 20} MiB)"
        raise ValueError(f"The {kind} {name} is too large {size}. {_why_large(function)}")
    if len(data) > WARN_BYTES:
        text = f"The {kind} {name} is very large ({len(data) >> 20} MiB). {_why_large(function)}"
        warnings.warn(text, UserWarning, stacklevel=4)
    core.pin_for_ever(references)
    try:
        core.gcs.functions.put(core.job_id, function_id, data)
    except exceptions.RpcError as error:
        raise exceptions.ShoalSystemError(f"The GCS did not store the {kind} {name}: {error.message}") from error


def _why_large(function: Any) -> str:
    captures = largest_captures(function, least=WARN_BYTES // 10)
    named = ", ".join(f"{path} ({size / (1 << 20):.1f} MiB)" for path, size in captures)
    why = f"It captures {named}." if named else "Look what its definition captures of what is in scope."
    return f"{why} Store large values once, with shoal.put(), and hand the reference on as an argument."


def scheduling_class(
    resources: dict[str, float],
    strategy: str,
    *,
    runtime_env: str = "",
    enforce_memory: bool = False,
    retriable: bool = True,
    priority: int = 0,
    weight: float = 1.0,
    quota: tuple[tuple[str, int], ...] = (),
) -> SchedulingClass:
    """Nameless: worker leases are shared by all functions that need the same, as every worker of a job can run
    them all. (Ray's classes hold the function too; then two functions in turn pass each other's leases to and fro.)"""
    amounts = tuple(sorted(ResourceSet.of(resources).grains.items()))
    return SchedulingClass(
        name="",
        resources=amounts,
        strategy=strategy,
        runtime_env=runtime_env,
        enforce_memory=enforce_memory,
        retriable=retriable,
        priority=priority,
        weight=weight,
        quota=quota,
    )


def pickled_exceptions(retry: bool | tuple[type[Exception], ...] | None) -> bool | bytes:
    """The option ``retry_exceptions``, as ``TaskPush`` has it."""
    if retry is None or isinstance(retry, bool):
        return bool(retry)
    return serialize(retry, "retry_exceptions", out_of_band=False).pickled


def time_limit(timeout_s: float | None, retry: bool | bytes) -> TimeLimit | None:
    """``retry``: as ``pickled_exceptions`` gives it."""
    if timeout_s is None:
        return None
    retried = retry if isinstance(retry, bool) else issubclass(exceptions.TaskTimeoutError, loads(retry))
    return TimeLimit(timeout_s, retried)
