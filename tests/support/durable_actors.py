"""A durable actor without a worker around: its class, what runs its calls, and who makes them."""

from __future__ import annotations

from typing import Any

from shoal._wire.peer_frames import TaskPush, TaskReply
from shoal._wire.value_kinds import INLINE

ACTOR = b"a" * 16
CALLERS = [bytes([number]) * 16 for number in range(1, 5)]


class Register:
    """The actor: a list of what was done to it."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def do(self, what: Any) -> int:
        self.done.append(what)
        return len(self.done)


class InstanceRunner:
    """Runs calls without a worker around."""

    def __init__(self, instance: Register) -> None:
        self._instance = instance

    def run(self, caller: bytes, push: TaskPush) -> TaskReply:
        answer = self._instance.do((caller[0], push.sequence))
        return TaskReply(push.task_id, 1, INLINE, str(answer).encode())


class Caller:
    def __init__(self, worker_id: bytes) -> None:
        self.worker_id = worker_id
        self.made = 0
        #: Unanswered, in order.
        self.open: dict[bytes, TaskPush] = {}
        self.answers: dict[int, bytes] = {}

    def call(self) -> TaskPush:
        self.made += 1
        task_id = self.worker_id + self.made.to_bytes(4, "big")
        push = self.open[task_id] = TaskPush(task_id, b"", "do", b"", sequence=self.made)
        return push

    @property
    def answered(self) -> int:
        return next(iter(self.open.values())).sequence - 1 if self.open else self.made

    def on_reply(self, reply: TaskReply) -> None:
        push = self.open.pop(reply.task_id, None)
        if push is not None:
            self.answers[push.sequence] = reply.payload
        else:
            sequence = int.from_bytes(reply.task_id[-4:], "big")
            assert self.answers[sequence] == reply.payload, "a second answer is the first one"
