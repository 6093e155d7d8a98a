"""What a call's owner is answered: values, small ones inline and large ones in the object store, or an error."""

from __future__ import annotations

import logging
import os
import pickle
import time
from typing import TYPE_CHECKING, Any

from shoal import _context, exceptions
from shoal._core.objects import MAX_INLINE_BYTES
from shoal._executor.time_limits import Stopped
from shoal._owner.tasks import failures
from shoal._values.serialization import Serialized, loads, serialize
from shoal._wire.peer_frames import STREAMING, TaskPush, TaskReply, Value
from shoal._wire.value_kinds import BYTES, ERROR, INLINE, STORED
from shoal_common import ids
from shoal_common.events.task_events import Failure

logger = logging.getLogger("shoal")

#: Values that go along with one reply, in bytes; the others go to the object store.
MAX_INLINED_BYTES = 10 * 1024 * 1024
#: Larger values go there, too, while the caller leaves its replies unread.
SMALL_BYTES = 1024
#: Values of one reply of a durable actor, in bytes.
MAX_DURABLE_BYTES = 64 * 1024 * 1024
#: Of a pickled exception: those of a few replies in one message stay under the limit of that.
MAX_ERROR_BYTES = 64 * 1024 * 1024

#: What ``completed()`` of a generator is.
_NONE = Value(INLINE, pickle.dumps(None, 5))

if TYPE_CHECKING:
    from shoal._executor.ports import Actor
    from shoal._owner.core_worker import CoreWorker


def result_reply(
    core: CoreWorker, actor: Actor | None, caller: bytes, push: TaskPush, result: Any, started: int
) -> TaskReply:
    """Of a call that returned. A generator with ``num_returns=n`` runs here, and when it raises, what it has yielded is
    kept; of a streaming one, ``result`` is what ``Yielding.iterate`` tells.

    Raises: TypeError, ValueError when that is not what ``num_returns`` says; what a generator raises that runs again.
    """
    if push.num_returns == 1:
        if type(result) is bytes and _goes_along(core, caller, len(result)):
            return TaskReply(push.task_id, (time.perf_counter_ns() - started) // 1000, BYTES, result)
        serialized = serialize(result, "the return value")
        if not serialized.buffers and not serialized.contained and _goes_along(core, caller, len(serialized.pickled)):
            return TaskReply(push.task_id, (time.perf_counter_ns() - started) // 1000, INLINE, serialized.pickled)
        values = [_value(core, actor, caller, push, 0, serialized, 0)]
    elif push.num_returns == STREAMING:
        items, failure = result
        return _end_reply(core, actor, push, items, failure, started)
    else:
        parts, error = _parts(result, push.num_returns)
        if error is not None and _retriable(push, error):
            raise error  # its values will be made again, under the same ids
        values, inlined = [], 0
        for index, part in enumerate(parts):
            value = _value(core, actor, caller, push, index, serialize(part, "the return value"), inlined)
            inlined += len(value.payload)
            values.append(value)
        if error is not None and len(parts) == push.num_returns:
            logger.error("%s has raised after the last of its values, which nobody sees", push.name, exc_info=error)
        elif error is not None:
            failed = Value(ERROR, _pickled_error(core, actor, push, error))
            values += [failed] * (push.num_returns - len(values))
            reply = TaskReply(push.task_id, (time.perf_counter_ns() - started) // 1000, 0, b"", values)
            reply.failure = failures.of_raised(error)
            return reply
    return TaskReply(push.task_id, (time.perf_counter_ns() - started) // 1000, 0, b"", values)


def item_value(core: CoreWorker, caller: bytes, push: TaskPush, index: int, item: Any) -> Value:
    """What a generator has yielded. Raises as ``serialize``."""
    if type(item) is bytes and _goes_along(core, caller, len(item)):
        return Value(BYTES, item)
    serialized = serialize(item, "the yielded value")
    if not serialized.buffers and not serialized.contained and _goes_along(core, caller, len(serialized.pickled)):
        return Value(INLINE, serialized.pickled)
    return _value(core, None, caller, push, index + 1, serialized, 0)


def _end_reply(
    core: CoreWorker, actor: Actor | None, push: TaskPush, items: int, failure: Exception | None, started: int
) -> TaskReply:
    """Of a generator that has ended, or raised, after so many items."""
    if failure is None:
        return TaskReply(push.task_id, (time.perf_counter_ns() - started) // 1000, 0, b"", [_NONE], items=items)
    reply = error_reply(core, actor, push, failure, started)
    reply.items = items
    return reply


def _goes_along(core: CoreWorker, caller: bytes, size: int, limit: int = MAX_INLINE_BYTES) -> bool:
    """Whether a value of so many bytes is sent to the caller: the others go to the object store."""
    return size <= SMALL_BYTES or (size <= limit and core.peers.has_room(caller))


def _value(
    core: CoreWorker,
    actor: Actor | None,
    caller: bytes,
    push: TaskPush,
    index: int,
    serialized: Serialized,
    inlined: int,
) -> Value:
    """``inlined``: bytes of values that go along already.

    Raises: ValueError when a durable actor returns too much: its answers are in its log, and nowhere else.
    """
    contained = None
    if serialized.contained:
        with core.lock:
            contained = core.borrowing.lend(serialized.contained, core.peers.address_of(caller))
    size = serialized.size
    if actor is not None and actor.durable:
        if inlined + size > MAX_DURABLE_BYTES:
            raise ValueError(
                f"{push.name} returned {inlined + size} bytes, more than the {MAX_DURABLE_BYTES} that an answer of a "
                "durable actor may have: return less at once"
            )
    elif not _goes_along(core, caller, size, min(MAX_INLINE_BYTES, MAX_INLINED_BYTES - inlined)):
        size = core.values.write(ids.object_of_task(ids.TaskID(push.task_id), index), serialized, caller)
        return Value(STORED, b"", size, core.node_id, contained)
    return Value(*serialized.inline(), contained=contained)


def error_reply(core: CoreWorker, actor: Actor | None, push: TaskPush, error: BaseException, started: int) -> TaskReply:
    """Of a call that raised."""
    return TaskReply(
        push.task_id,
        (time.perf_counter_ns() - started) // 1000,
        ERROR,
        _pickled_error(core, actor, push, error),
        retriable=_retriable(push, error),
        failure=_failure(push, error),
    )


def _pickled_error(core: CoreWorker, actor: Actor | None, push: TaskPush, error: BaseException) -> bytes:
    """An error goes along with its reply, large or not, up to what a message holds."""
    pickled = pickle.dumps(wrap_error(core, actor, push.name, push.task_id, error), 5)
    if len(pickled) <= MAX_ERROR_BYTES:
        return pickled
    told = RuntimeError(
        f"{push.name} raised {type(error).__name__} with {len(pickled)} bytes, more than the {MAX_ERROR_BYTES} that an "
        "error may have: put() large values, and name them in the error"
    )
    return pickle.dumps(wrap_error(core, actor, push.name, push.task_id, told), 5)


def _failure(push: TaskPush, error: BaseException) -> Failure:
    if isinstance(error, KeyboardInterrupt):
        return failures.of_system(exceptions.TaskCancelledError(push.task_id.hex()))
    return failures.of_system(error.error) if isinstance(error, Stopped) else failures.of_raised(error)


def _retriable(push: TaskPush, error: BaseException) -> bool:
    which = push.retry_exceptions
    if isinstance(which, bool):
        return which and isinstance(error, Exception)
    return isinstance(error, loads(which))


def wrap_error(core: CoreWorker, actor: Actor | None, name: str, task_id: bytes, error: BaseException) -> Exception:
    """What the caller's ``get`` raises: a TaskError; an interrupted task counts as cancelled (as in Ray)."""
    if isinstance(error, KeyboardInterrupt):
        return exceptions.TaskCancelledError(task_id.hex())
    if isinstance(error, Stopped):
        return error.error
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
    """What was returned, and the error of an iterator that raised, or ended before there were enough values.

    Raises: TypeError (cannot be iterated over), ValueError (another number of values).
    """
    if num_returns == 0:
        return [], None
    try:
        values = iter(result)
    except TypeError:
        raise TypeError(
            f"Task returned one value of type {type(result).__name__}, but num_returns={num_returns}: return "
            f"{num_returns} values"
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
        return parts, error
    if len(parts) > num_returns:
        raise ValueError(f"Task returned more than {num_returns} objects, but num_returns={num_returns}.")
    if len(parts) < num_returns:
        return parts, ValueError(f"Task returned {len(parts)} objects, but num_returns={num_returns}.")
    return parts, None
