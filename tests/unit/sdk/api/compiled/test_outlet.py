"""What lies in the object store on its way through a ring, and until when."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest

from shoal import exceptions
from shoal._api.compiled import ring
from shoal._api.compiled.messages import Failed, packed, unpacked
from shoal._api.compiled.outlet import STORED_BYTES, Outlet
from shoal._api.compiled.ring import RingReader, RingWriter
from shoal._values.serialization import Serialized, loads_packed

LARGE = STORED_BYTES + 1


class Ref:
    def __init__(self, values: Values, object_id: bytes) -> None:
        self._values = values
        self._object_id = object_id

    def binary(self) -> bytes:
        return self._object_id

    def __del__(self) -> None:
        del self._values.objects[self._object_id]


class Values:
    """An object store in which an object lies for as long as somebody has its reference."""

    def __init__(self) -> None:
        self.objects: dict[bytes, bytes] = {}
        self.full = False
        self._puts = 0

    def put_serialized(self, serialized: Serialized) -> Ref:
        if self.full:
            raise exceptions.ObjectStoreFullError("full")
        self._puts += 1
        object_id = b"%028d" % self._puts
        self.objects[object_id] = serialized.packed()
        return Ref(self, object_id)

    def load(self, object_id: bytes) -> Any:
        return loads_packed(self.objects[object_id])


def make(values: Values, readers: int = 1, slot_bytes: int = 4096) -> tuple[Outlet, list[RingReader]]:
    fd = ring.create(readers, 3, slot_bytes)
    return Outlet(RingWriter(fd), cast(Any, values)), [RingReader(os.dup(fd), number) for number in range(readers)]


def send(outlet: Outlet, value: Any) -> None:
    outlet.ring.await_room(0)
    outlet.write(outlet.placed(packed(value, "the value")))


def read(reader: RingReader, values: Values) -> Any:
    kind, payload = reader.message()
    value = unpacked(kind, payload, values.load)
    payload.release()
    reader.release()
    return value


@pytest.mark.parametrize("value", [b"x" * LARGE, "x" * LARGE, [bytearray(LARGE), 1]], ids=["bytes", "str", "list"])
def test_large_values_of_every_kind_lie_in_the_store(value: Any) -> None:
    values = Values()
    outlet, [reader] = make(values)
    send(outlet, value)
    assert len(values.objects) == 1
    assert read(reader, values) == value


def test_what_fits_goes_through_the_ring() -> None:
    values = Values()
    outlet, [reader] = make(values, slot_bytes=2 * LARGE)
    for value in (1, b"x" * LARGE):
        send(outlet, value)
        assert read(reader, values) == value
    outlet, [reader] = make(values)
    for value in (b"x" * 5000, Failed(b"y" * LARGE)):
        send(outlet, value)
        read(reader, values)
    assert not values.objects


def test_it_is_let_go_of_when_every_reader_has_read_it() -> None:
    values = Values()
    outlet, [quick, slow] = make(values, readers=2)
    send(outlet, b"a" * LARGE)
    send(outlet, b"b" * LARGE)
    read(quick, values)
    read(quick, values)
    send(outlet, 1)
    assert len(values.objects) == 2, "the slow one has not read them"
    read(slow, values)
    read(quick, values)
    send(outlet, 2)
    assert len(values.objects) == 1
    assert read(slow, values) == b"b" * LARGE
    outlet.placed(packed(3, "the value"))
    assert not values.objects


def test_at_the_end_nothing_is_kept() -> None:
    values = Values()
    outlet, _ = make(values)
    send(outlet, b"a" * LARGE)
    outlet.clear()
    assert not values.objects


def test_a_store_without_room_leaves_the_ring_as_it_was() -> None:
    values = Values()
    outlet, [reader] = make(values)
    values.full = True
    with pytest.raises(exceptions.ObjectStoreFullError):
        send(outlet, b"a" * LARGE)
    assert not reader.is_ready()
    send(outlet, "small")
    assert read(reader, values) == "small"
