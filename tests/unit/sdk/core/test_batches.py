from __future__ import annotations

from shoal._core.batches import MESSAGE_BYTES, in_messages, push_bytes, reply_bytes
from shoal._core.task_record import FunctionRecord, TaskRecord
from shoal._wire.peer_frames import Argument, TaskPush, TaskReply, Value
from shoal._wire.value_kinds import INLINE
from shoal_common.channel.frames import WorkerAddress

OWNER = WorkerAddress(b"", b"", "")


def push(argument_bytes: int, *values: int) -> TaskPush:
    refs = [Argument(0, "", b"", OWNER, Value(INLINE, bytes(size))) for size in values]
    return TaskPush(b"", b"", "f", bytes(argument_bytes), refs=refs or None)


def messages(pushes: list[TaskPush]) -> list[list[TaskPush]]:
    return in_messages([TaskRecord(push, FunctionRecord(b"", "f"), [], size=push_bytes(push)) for push in pushes])


def test_few_bytes_go_in_one_message_however_many_tasks() -> None:
    pushes = [push(10) for _ in range(512)]
    assert messages(pushes) == [pushes]


def test_messages_keep_the_order_and_the_limit() -> None:
    pushes = [push(MESSAGE_BYTES // 3) for _ in range(8)]
    found = messages(pushes)
    assert [len(message) for message in found] == [3, 3, 2]
    assert [each for message in found for each in message] == pushes


def test_what_is_over_the_limit_goes_alone() -> None:
    large, small = push(2 * MESSAGE_BYTES), push(1)
    assert messages([large]) == [[large]]
    assert messages([small, large, small, large, large]) == [[small], [large], [small], [large], [large]]


def test_the_values_of_references_count() -> None:
    assert push_bytes(push(5, 10, 20)) == 35
    half = push(0, MESSAGE_BYTES // 2)
    assert messages([half, half, half]) == [[half, half], [half]]


def test_the_bytes_of_a_reply_are_those_of_its_values() -> None:
    assert reply_bytes(TaskReply(b"", 0, INLINE, bytes(7))) == 7
    assert reply_bytes(TaskReply(b"", 0, 0, b"", [Value(INLINE, bytes(3)), Value(INLINE, bytes(4))])) == 7
