"""Rings: messages of every size, several readers, room, the end; and how actors get the memory."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.processes import PATIENCE_S

from shoal._api.compiled import ring
from shoal._api.compiled.handover import HandOver, take
from shoal._api.compiled.messages import Failed, packed, unpacked
from shoal._api.compiled.ring import RingClosed, RingReader, RingTimeout, RingWriter


def make(readers: int = 1, slots: int = 2, slot_bytes: int = 4096) -> tuple[RingWriter, list[RingReader]]:
    fd = ring.create(readers, slots, slot_bytes)
    return RingWriter(fd), [RingReader(os.dup(fd), number) for number in range(readers)]


def write(writer: RingWriter, value: Any, timeout: float = 0) -> None:
    message = packed(value, "the value")
    writer.await_room(time.monotonic() + timeout)
    writer.reserve(message.size)
    writer.write(*message[:3])


def _nothing_stored(object_id: bytes) -> Any:
    raise AssertionError(object_id)


def read(reader: RingReader, timeout: float = 0) -> Any:
    reader.await_message(time.monotonic() + timeout)
    kind, payload = reader.message()
    value = unpacked(kind, payload, _nothing_stored)
    payload.release()
    reader.release()
    return value


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_values_come_out_as_they_went_in() -> None:
    writer, [reader] = make()
    for value in (1, "text", b"", b"x" * 100, b"y" * 100_000, [1, {2: 3}], None, b"z" * 50_000):
        write(writer, value)
        assert read(reader) == value


def test_arrays_are_aligned_copies() -> None:
    writer, [reader] = make()
    for size in (7, 100_000, 3):
        given = np.arange(size, dtype=np.float64)
        write(writer, given)
        array = read(reader)
        assert array.ctypes.data % 64 == 0
        assert not array.flags.writeable, "as in an ordinary call, and as large ones"
        write(writer, np.ones(size))
        read(reader)
        assert np.array_equal(array, given), "its own memory"


def test_errors() -> None:
    writer, [reader] = make()
    write(writer, Failed.of(ValueError("no")))
    failed = read(reader)
    assert isinstance(failed, Failed)
    assert str(failed.error()) == "no"


def test_every_reader_reads_everything_and_the_slowest_makes_room() -> None:
    writer, [quick, slow] = make(readers=2)
    write(writer, 1)
    write(writer, 2)
    assert [read(quick), read(quick)] == [1, 2]
    with pytest.raises(RingTimeout):
        write(writer, 3)
    assert read(slow) == 1
    write(writer, 3)
    assert [read(slow), read(slow), read(quick)] == [2, 3, 3]
    with pytest.raises(RingTimeout):
        read(quick)


def test_many_readers_and_slots() -> None:
    writer, readers = make(readers=100, slots=300)
    for value in range(300):
        write(writer, value)
    for reader in readers:
        assert [read(reader) for _ in range(300)] == list(range(300))


def test_who_waits_is_woken() -> None:
    writer, [reader] = make(slots=1)
    received: list[Any] = []

    def consume() -> None:
        for _ in range(500):
            received.append(read(reader, PATIENCE_S))

    consumer = threading.Thread(target=consume)
    consumer.start()
    for value in range(500):
        write(writer, value, PATIENCE_S)
    consumer.join(PATIENCE_S)
    assert received == list(range(500))


def test_after_the_end_what_was_written_is_still_read() -> None:
    writer, [reader] = make()
    write(writer, 1)
    writer.close()
    assert read(reader) == 1
    with pytest.raises(RingClosed):
        read(reader, PATIENCE_S)
    with pytest.raises(RingClosed):
        write(writer, 2)


def test_who_sleeps_is_told_of_the_end() -> None:
    writer, [reader] = make()
    ended: list[bool] = []

    def wait() -> None:
        try:
            reader.await_message(None)
        except RingClosed:
            ended.append(True)

    waiting = threading.Thread(target=wait)
    waiting.start()
    writer.close()
    waiting.join(PATIENCE_S)
    assert ended == [True]


def test_a_wait_that_is_to_end() -> None:
    _, [reader] = make()
    with pytest.raises(RingClosed):
        reader.await_message(None, lambda: True)


def test_memory_goes_to_who_knows_the_secret(tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    fd = ring.create(1, 2, 4096)
    with HandOver(str(tmp_path)) as handover:
        taken: list[int] = []

        def come() -> None:
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(handover.path)
                stranger.sendall(bytes(20))
                assert stranger.recv(1) == b""
            taken.extend(take(handover.path, handover.secret, 0, 200))

        actor = threading.Thread(target=come)
        actor.start()
        handover.serve([[fd] * 200], lambda: None)
        actor.join(PATIENCE_S)
    assert not list((tmp_path / "sockets").iterdir())
    writer, reader = RingWriter(fd), RingReader(taken[0], 0)
    write(writer, "over there")
    assert read(reader) == "over there"
    for each in taken[1:]:
        os.close(each)


def test_an_actor_that_will_not_come(tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()

    def look() -> None:
        raise RuntimeError("it has died")

    with HandOver(str(tmp_path)) as handover, pytest.raises(RuntimeError, match="it has died"):
        handover.serve([[]], look)
