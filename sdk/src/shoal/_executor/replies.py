"""What a call's owner is answered: values, small ones inline and large ones in the object store, or an error."""

from __future__ import annotations

import os
import pickle
import time
from typing import TYPE_CHECKING, Any

from shoal import _context, exceptions
from shoal._core.objects import MAX_INLINE_BYTES
from shoal._values.serialization import Serialized, loads, serialize
from shoal._wire.peer_frames import TaskPush, TaskReply, Value
from shoal._wire.value_kinds import ERROR, INLINE, PACKED, STORED
from shoal_common import ids

if TYPE_CHECKING:
    from shoal._executor.ports import Actor
    from shoal._owner.core_worker import CoreWorker


def result_reply(
    core: CoreWorker, actor: Actor | None, caller: bytes, push: TaskPush, result: Any, started: int
) -> TaskReply:
    """Of a call that returned. A generator runs here, and when it raises, what it has yielded is kept.

    Raises: TypeError, ValueError when that is not what ``num_returns`` says; what a generator raises that runs again.
    """
    if push.num_returns == 1:
        serialized = serialize(result, "the return value")
        if not serialized.buffers and not serialized.contained and len(serialized.pickled) <= MAX_INLINE_BYTES:
            return TaskReply(push.task_id, (time.perf_counter_ns() - started) // 1000, INLINE, serialized.pickled)
        values = [_value(core, caller, push, 0, serialized)]
    else:
        parts, error = _parts(result, push.num_returns)
        if error is not None and _retriable(push, error):
            raise error  # its values will be made again, under the same ids
        values = [
            _value(core, caller, push, index, serialize(part, "the return value")) for index, part in enumerate(parts)
        ]
        if error is not None:
            failed = Value(ERROR, pickle.dumps(wrap_error(core, actor, push.name, error), 5))
            values += [failed] * (push.num_returns - len(values))
    return TaskReply(push.task_id, (time.perf_counter_ns() - started) // 1000, 0, b"", values)


def _value(core: CoreWorker, caller: bytes, push: TaskPush, index: int, serialized: Serialized) -> Value:
    contained = None
    if serialized.contained:
        with core.lock:
            contained = core.borrowing.lend(serialized.contained, core.peers.address_of(caller))
    if serialized.size > MAX_INLINE_BYTES:
        size = core.values.write(ids.object_of_task(ids.TaskID(push.task_id), index), serialized, caller)
        return Value(STORED, b"", size, core.node_id, contained)
    if serialized.buffers:
        return Value(PACKED, serialized.packed(), contained=contained)
    return Value(INLINE, serialized.pickled, contained=contained)


def error_reply(core: CoreWorker, actor: Actor | None, push: TaskPush, error: BaseException, started: int) -> TaskReply:
    """Of a call that raised."""
    return TaskReply(
        push.task_id,
        (time.perf_counter_ns() - started) // 1000,
        ERROR,
        pickle.dumps(wrap_error(core, actor, push.name, error), 5),
        retriable=_retriable(push, error),
    )


def _retriable(push: TaskPush, error: BaseException) -> bool:
    which = push.retry_exceptions
    if isinstance(which, bool):
        return which and isinstance(error, Exception)
    return isinstance(error, loads(which))


def wrap_error(core: CoreWorker, actor: Actor | None, name: str, error: BaseException) -> Exception:
    """What the caller's ``get`` raises: a TaskError; an interrupted task counts as cancelled (as in Ray)."""
    if isinstance(error, KeyboardInterrupt):
        task = _context.current_task.get()
        return exceptions.TaskCancelledError(task.task_id.hex() if task is not None else None)
    where: dict[str, Any] = {"ip": core.host, "pid": os.getpid()}
    process = _context.process
    if process.actor_id:
        where["actor_id"] = process.actor_id.hex()
        where["actor_repr"] = process.actor_class_name
    if actor is not None:
        name = f"{process.actor_class_name}.{name}"
        where["actor_repr"] = actor.describe()
    return exceptions.TaskError.from_exception(name, error, **where)


def _parts(result: Any, num_returns: int) -> tuple[list[Any], Exception | None]:
    """What was returned, and the error of an iterator that raised or ended before there were enough values.

    Raises: TypeError (cannot be iterated over), ValueError (another number of values).
    """
    if num_returns == 0:
        return [], None
    try:
        values = iter(result)
    except TypeError:
        raise TypeError(
            f"Task returned a {type(result).__name__} but num_returns={num_returns}: return {num_returns} values"
        ) from None
    if values is not result and hasattr(result, "__len__") and len(result) != num_returns:
        raise ValueError(f"Task returned {len(result)} objects, but num_returns={num_returns}.")
    parts: list[Any] = []
    try:
        for part in values:
            parts.append(part)
            if len(parts) > num_returns:
                break
    except Exception as error:
        if len(parts) == num_returns:
            raise  # no value is left to stand for it
        return parts, error
    if len(parts) > num_returns:
        raise ValueError(f"Task returned more than {num_returns} objects, but num_returns={num_returns}.")
    if len(parts) < num_returns:
        return parts, ValueError(f"Task returned {len(parts)} objects, but num_returns={num_returns}.")
    return parts, None
