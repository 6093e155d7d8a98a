"""How many bytes go into one message, and ahead of answers.

A message is decoded when the last of its bytes has come. So large arguments and results go in several messages: the
first is worked on while the next is on its way, and what one side has just written the other reads before it has left
the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shoal._wire.peer_frames import TaskPush, TaskReply

#: One message of several pushes or replies has at most about so many bytes of arguments or values.
MESSAGE_BYTES = 256 * 1024
#: Arguments of the tasks that one worker has and has not answered, at most; a task with more goes alone.
AHEAD_BYTES = 4 * MESSAGE_BYTES


def push_bytes(push: TaskPush) -> int:
    """Of the arguments that go along."""
    size = len(push.args)
    if push.buffers is not None:
        size += sum(map(len, push.buffers))
    if push.refs is not None:
        size += sum(len(argument.value.payload) for argument in push.refs)
    return size


def reply_bytes(reply: TaskReply) -> int:
    """Of the values that go along."""
    if reply.values is None:
        return len(reply.payload)
    return sum(len(value.payload) for value in reply.values)


class Pushed(Protocol):
    push: TaskPush
    #: ``push_bytes`` of it, which is not asked again for every task.
    size: int


def in_messages(records: Sequence[Pushed]) -> list[list[TaskPush]]:
    """In the same order, as the contents of as few messages as their bytes allow."""
    pushes = [record.push for record in records]
    total = 0
    for record in records:
        total += record.size
    if total <= MESSAGE_BYTES:
        return [pushes]
    messages: list[list[TaskPush]] = []
    begin = size = 0
    for index, record in enumerate(records):
        size += record.size
        if size > MESSAGE_BYTES and index > begin:
            messages.append(pushes[begin:index])
            begin, size = index, record.size
    messages.append(pushes[begin:])
    return messages
