"""Long bytes are copied into the object store from where they are, not into a pickle first."""

from __future__ import annotations

import os
import pickle

import pytest

from shoal._core.objects import MAX_INLINE_BYTES
from shoal._values.serialization import (
    APART_BYTES,
    Serialized,
    load_inline,
    loads,
    loads_packed,
    pickle_arguments,
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


def test_arguments_of_a_message_hold_long_bytes_as_they_are() -> None:
    args, kwargs = (1, LONG, b"short"), {"other": LONG[1:] + b"y"}
    found = pickle_arguments(args, kwargs)
    assert found is not None
    pickled, buffers = found
    assert buffers is not None and buffers[0] is LONG and len(buffers) == 2 and len(pickled) < 100
    loaded = loads(pickled, buffers=buffers)
    assert loaded == (args, kwargs) and loaded[0][1] is LONG


@pytest.mark.parametrize("args", [(1, "x"), (b"short",), (LONG[:APART_BYTES],)])
def test_short_arguments_are_one_pickle(args: tuple[object, ...]) -> None:
    found = pickle_arguments(args, {"k": 1})
    assert found is not None and found[1] is None and loads(found[0]) == (args, {"k": 1})


@pytest.mark.parametrize("args", [([1],), (object(),), (LONG,) * 4, ("x" * MAX_INLINE_BYTES,), (LONG, "x" * 80_000)])
def test_other_arguments_and_what_fits_into_no_message_are_not_pickled_so(args: tuple[object, ...]) -> None:
    assert pickle_arguments(args, {}) is None


@pytest.mark.parametrize("value", [bytearray(LONG), [LONG], {"k": LONG}])
def test_other_values_with_long_bytes_come_back_as_they_were(value: object) -> None:
    assert round_trip(serialize(value)) == value
    assert round_trip(serialize_arguments((value,), {})) == ((value,), {})
