"""Long bytes are copied into the object store from where they are, not into a pickle first."""

from __future__ import annotations

import os
import pickle

import pytest

from shoal._values.serialization import (
    APART_BYTES,
    Serialized,
    load_inline,
    loads_packed,
    serialize,
    serialize_arguments,
)

LONG = os.urandom(APART_BYTES + 1)


def round_trip(serialized: Serialized) -> object:
    packed = bytearray(serialized.packed_size)
    serialized.write_packed(memoryview(packed))
    return loads_packed(bytes(packed))


def test_long_bytes_are_a_buffer_of_their_own() -> None:
    serialized = serialize(LONG)
    assert len(serialized.pickled) < 100
    (buffer,) = serialized.buffers
    assert buffer.obj is LONG
    value = round_trip(serialized)
    assert type(value) is bytes and value == LONG


@pytest.mark.parametrize("value", [b"", b"x", LONG])
def test_bytes_travel_in_a_message_as_they_are(value: bytes) -> None:
    kind, payload = serialize(value).inline()
    assert payload is value and load_inline(kind, payload) is value


def test_long_bytes_stay_in_a_pickle_that_takes_no_buffers() -> None:
    assert pickle.loads(serialize(LONG, out_of_band=False).pickled) == LONG


def test_long_bytes_among_arguments_are_buffers_and_one_object_stays_one() -> None:
    serialized = serialize_arguments((LONG, 1, LONG), {"short": b"x", "long": LONG, "other": LONG[1:] + b"y"})
    assert len(serialized.buffers) == 2 and len(serialized.pickled) < 300
    args, kwargs = round_trip(serialized)  # type: ignore[misc]
    assert args == (LONG, 1, LONG) and args[0] is args[2] is kwargs["long"]
    assert kwargs == {"short": b"x", "long": LONG, "other": LONG[1:] + b"y"}
    assert type(args[0]) is bytes


@pytest.mark.parametrize("value", [bytearray(LONG), [LONG], {"k": LONG}])
def test_other_values_with_long_bytes_come_back_as_they_were(value: object) -> None:
    assert round_trip(serialize(value)) == value
    assert round_trip(serialize_arguments((value,), {})) == ((value,), {})
