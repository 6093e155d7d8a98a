"""Bytes made of buffers: the same as ``bytes`` makes, however long."""

from __future__ import annotations

import os

import numpy as np
import pytest

from shoal._values.long_bytes import HUGE_BYTES, make_bytes


@pytest.mark.parametrize("size", [0, 1, 4096, HUGE_BYTES - 1, HUGE_BYTES, HUGE_BYTES + 4097])
def test_a_copy_of_any_buffer(size: int) -> None:
    source = bytearray(os.urandom(size))
    for buffer in (source, memoryview(source), memoryview(source).toreadonly()):
        made = make_bytes(buffer)
        assert type(made) is bytes and made == source and len(made) == size
    assert hash(make_bytes(memoryview(source))) == hash(bytes(source))


def test_bytes_are_not_copied() -> None:
    source = bytes(HUGE_BYTES)
    assert make_bytes(source) is source


def test_the_source_may_change_afterwards() -> None:
    source = np.ones(HUGE_BYTES, dtype=np.uint8)
    made = make_bytes(memoryview(source))
    source[:] = 0
    assert made == b"\1" * HUGE_BYTES
