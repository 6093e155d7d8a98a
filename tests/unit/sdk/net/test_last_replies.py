"""Replies that a worker held back are there when it is gone, each for its caller."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal._net.last_replies import LastReplies, for_caller
from shoal._wire.peer_frames import TaskReply
from shoal._wire.value_kinds import INLINE
from shoal_common.last_replies import SIZE, path_of

ONE, OTHER = b"1" * 16, b"2" * 16


def reply(number: int, size: int = 10) -> TaskReply:
    return TaskReply(number.to_bytes(20, "big"), 5, INLINE, bytes(size))


def read(path: str, caller: bytes) -> list[TaskReply]:
    return for_caller(Path(path).read_bytes(), caller)


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "sockets").mkdir()
    return path_of(str(tmp_path), b"w" * 16)


def test_each_caller_finds_its_own(path: str) -> None:
    left = LastReplies(path)
    for number in range(6):
        assert left.add(OTHER if number % 3 == 0 else ONE, reply(number))
    assert read(path, ONE) == [reply(1), reply(2), reply(4), reply(5)]
    assert read(path, OTHER) == [reply(0), reply(3)]


def test_what_was_sent_is_not_found_again(path: str) -> None:
    left = LastReplies(path)
    left.add(ONE, reply(1))
    left.sent(1)
    assert read(path, ONE) == []
    left.add(ONE, reply(2))
    assert read(path, ONE) == [reply(2)]


def test_it_is_emptied_when_the_last_of_those_who_share_it_has_sent_its_own(path: str) -> None:
    left = LastReplies(path)
    left.add(ONE, reply(1))
    left.add(OTHER, reply(2))
    left.sent(1)
    assert (read(path, ONE), read(path, OTHER)) == ([reply(1)], [reply(2)]), "which of them is not known"
    left.sent(1)
    assert read(path, ONE) == read(path, OTHER) == []


def test_what_has_no_room_is_refused_and_harms_nothing(path: str) -> None:
    left = LastReplies(path)
    assert left.add(ONE, reply(1))
    assert not left.add(ONE, reply(2, SIZE))
    assert left.add(ONE, reply(3))
    assert read(path, ONE) == [reply(1), reply(3)]


def test_a_worker_that_never_held_one_back_has_left_nothing(path: str) -> None:
    assert for_caller(b"", ONE) == []
    LastReplies(path)
    assert read(path, ONE) == []


def test_without_room_for_the_file_there_is_none(tmp_path: Path) -> None:
    assert LastReplies.of(str(tmp_path / "missing"), b"w" * 16) is None
