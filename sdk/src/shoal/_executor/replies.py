"""What a call's owner is answered: values, small ones inline and large ones in the object store, or an error."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from shoal import _context, exceptions
from shoal._core.objects import MAX_INLINE_BYTES
from shoal._values.serialization import Serialized, loads, serialize
from shoal._wire.peer_frames import ERROR, INLINE, PACKED, STORED, TaskPush, TaskReply, Value
from shoal_common import ids

if TYPE_CHECKING:
    from shoal._executor.actor_host import ActorHost
    from shoal._owner.core_worker import CoreWorker


def result_reply(core: CoreWorker, caller: bytes, push: TaskPush, result: Any, started: int) -> TaskReply:
    """Of a call that returned. Raises: TypeError, ValueError when that is not what ``num_returns`` says."""
    if push.num_returns == 1:
        serialized = serialize(result, "the return value")
        if not serialized.buffers and not serialized.contained and len(serialized.pickled) <= MAX_INLINE_BYTES:
            return TaskReply(push.task_id, (time.perf_counter_ns() - started) // 1000, INLINE, serialized.pickled)
        values = [_value(core, caller, push, 0, serialized)]
    else:
        values = [
            _value(core, caller, push, index, serialize(part, "the return value"))
            for index, part in enumerate(_parts(result, push.num_returns))
        ]
    return TaskReply(push.task_id, (time.perf_counter_ns() - started) // 1000, 0, b"", values)


def _value(core: CoreWorker, caller: bytes, push: TaskPush, index: int, serialized: Serialized) -> Value:
    contained = None
    if serialized.contained:
        with core.lock:
            contained = core.borrowing.lend(serialized.contained, core.peers.address_of(caller))
    if serialized.size > MAX_INLINE_BYTES:
        size = core.write_object(ids.object_of_task(ids.TaskID(push.task_id), index), serialized, caller)
        return Value(STORED, b"", size, core.node_id, contained)
    if serialized.buffers:
        return Value(PACKED, serialized.packed(), contained=contained)
    return Value(INLINE, serialized.pickled, contained=contained)


def error_reply(
    core: CoreWorker, actor: ActorHost | None, push: TaskPush, error: BaseException, started: int
) -> TaskReply:
    """Of a call that raised."""
    wrapped = wrap_error(core, actor, push.name, error)
    retriable = False
    if push.retry_exceptions is True:
        retriable = isinstance(error, Exception)
    elif push.retry_exceptions:
        retriable = isinstance(error, loads(push.retry_exceptions))
    return TaskReply(
        push.task_id,
        (time.perf_counter_ns() - started) // 1000,
        ERROR,
        core.pickle_error(wrapped),
        retriable=retriable,
    )


def wrap_error(core: CoreWorker, actor: ActorHost | None, name: str, error: BaseException) -> Exception:
    """What the caller's ``get`` raises: a TaskError; an interrupted task counts as cancelled (as in Ray)."""
    if isinstance(error, KeyboardInterrupt):
        task = _context.current_task.get()
        return exceptions.TaskCancelledError(task.task_id.hex() if task is not None else None)
    where: dict[str, Any] = {"ip": core.host, "pid": os.getpid()}
    if actor is not None:
        name = f"{_context.process.actor_class_name}.{name}"
        where["actor_repr"] = actor.describe()
        where["actor_id"] = _context.process.actor_id.hex()
    return exceptions.TaskError.from_exception(name, error, **where)


def _parts(result: Any, num_returns: int) -> list[Any]:
    if num_returns == 0:
        return []
    try:
        parts = list(result)
    except TypeError:
        raise TypeError(
            f"Task returned a {type(result).__name__} but num_returns={num_returns}: return {num_returns} values"
        ) from None
    if len(parts) != num_returns:
        raise ValueError(f"Task returned {len(parts)} objects, but num_returns={num_returns}.")
    return parts
