"""Workers of actors with which the connection has ended: their raylets are asked what they have left."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal._core.actors import ActorClient
from shoal._net import last_replies
from shoal._wire.peer_frames import TaskReply
from shoal_common.channel import frames
from shoal_common.channel.frames import WorkerAddress

if TYPE_CHECKING:
    from shoal._owner.process import Process

#: The raylet of a worker that is gone has answered by then, in seconds, however busy it is, or is gone, too.
LAST_REPLIES_S = 10.0


class LostWorkers:
    """Calls that have run although their replies were not sent any more: their fate is known, before the GCS says what
    became of the actor, as the others fail then. The caller of any method holds the lock."""

    def __init__(
        self, process: Process, on_left: Callable[[ActorClient, WorkerAddress, list[TaskReply]], None]
    ) -> None:
        """``on_left``: called once for each that was added, with the replies that it has left."""
        self._process = process
        self._on_left = on_left
        #: By worker. The number tells one time from the next.
        self._asked: dict[bytes, tuple[int, ActorClient, WorkerAddress]] = {}
        self._numbers = itertools.count(1)

    def add(self, client: ActorClient, address: WorkerAddress) -> None:
        number = next(self._numbers)
        self._asked[address.worker_id] = number, client, address
        self._process.raylets.send(address.node_id, frames.LastRepliesGet(address.worker_id))

        def give_up() -> None:
            with self._process.lock:
                if not self._process.closed and self._asked.get(address.worker_id, (0,))[0] == number:
                    self.on_last_replies(frames.LastRepliesFound(address.worker_id, b""))

        self._process.reactor.call_later(LAST_REPLIES_S, give_up)

    def has_one_of(self, client: ActorClient) -> bool:
        """What it has left is not known yet."""
        return any(asked is client for _, asked, _ in self._asked.values())

    def on_raylet_lost(self, node_id: bytes) -> None:
        """Nobody answers for the workers of that node any more."""
        for worker_id in [id_ for id_, (_, _, address) in self._asked.items() if address.node_id == node_id]:
            self.on_last_replies(frames.LastRepliesFound(worker_id, b""))

    def on_last_replies(self, message: frames.LastRepliesFound) -> None:
        asked = self._asked.pop(message.worker_id, None)
        if asked is None:
            return  # it took too long
        _, client, address = asked
        replies = last_replies.for_caller(message.data, self._process.worker_id)
        for reply in replies:
            reply.borrowed = None  # it holds nothing any more
        self._on_left(client, address, replies)

    def forget_all(self) -> None:
        """The session ends."""
        self._asked.clear()
