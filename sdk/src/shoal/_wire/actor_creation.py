"""What a creator sends, through the GCS and a raylet, to the worker that becomes the actor. Opaque to both."""

from __future__ import annotations

import msgspec

from shoal._wire.peer_frames import Argument
from shoal_common.channel.frames import WorkerAddress


class ActorCreation(msgspec.Struct, array_like=True, gc=False):
    """Everything needed to construct an actor, again after each crash."""

    #: Function table key of the class.
    class_id: bytes
    class_name: str
    creator: WorkerAddress
    name: str
    namespace: str
    #: As in TaskPush.
    args: bytes = b""
    buffers: list[bytes] | None = None
    args_object: bytes = b""
    refs: list[Argument] | None = None
    #: Calls at once outside of any concurrency group.
    max_concurrency: int = 1
    concurrency_groups: dict[str, int] | None = None
    #: Any method is ``async def``: all methods run on one event loop.
    is_async: bool = False
    #: A checkpoint after so many calls, and after so many seconds with calls; 0 = not for that.
    checkpoint_every: int = 0
    checkpoint_interval_s: float = 0.0
    #: Its calls since the last checkpoint run again after a crash, in the same order.
    durable: bool = False
    #: It comes back after a crash, so that a checkpoint is of use.
    restarts: bool = False
    #: Handle payload for ``get_runtime_context().current_actor``.
    handle: bytes = b""
    #: As in TaskPush.
    trace: dict[str, str] | None = None
    #: The task that has created it; empty = a driver.
    parent: bytes = b""
    #: Seconds since 1970; 0 = nothing is told of its constructor.
    submitted_at: float = 0.0


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(ActorCreation).decode
