"""Values to bytes and back: what stays out of band, what comes back, and what an unpicklable value is told."""

from __future__ import annotations

import array
import collections
import datetime
import struct
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal._values.serialization import (
    ALIGNMENT,
    collected,
    deregister_serializer,
    dumps_function,
    find_unserializable,
    largest_captures,
    load_inline,
    loads,
    loads_packed,
    register_serializer,
    serialize,
    unpack,
)


def round_trip(value: Any) -> Any:
    """Through the packed form, as a large value goes."""
    return loads_packed(serialize(value).packed())


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x


# -- values ----------------------------------------------------------------------------------------------------------

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
nested = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(nested)
def test_plain_data_comes_back(value: Any) -> None:
    serialized = serialize(value)
    assert load_inline(*serialized.inline()) == value
    assert loads_packed(serialized.packed()) == value


@pytest.mark.parametrize(
    "value",
    [
        Point(3),
        datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        collections.OrderedDict(a=1),
        ValueError("text"),
        range(5),
        bytearray(b"abc"),
        array.array("d", [1.0, 2.0]),
        Point,
        len,
    ],
)
def test_other_values_come_back(value: Any) -> None:
    back = round_trip(value)
    assert back == value or (repr(back) == repr(value) and type(back) is type(value))


def test_functions_and_classes_of_this_moment_travel() -> None:
    offset = 10

    class Local:
        def add(self, x: int) -> int:
            return x + offset

    back = round_trip([lambda x: x + offset, Local()])
    assert back[0](1) == 11
    assert back[1].add(2) == 12


def test_value_that_contains_itself() -> None:
    value: list[Any] = [1]
    value.append(value)
    back = round_trip(value)
    assert back[1] is back


# -- buffers ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 300), max_size=5))
def test_arrays_come_back_aligned_and_read_only(sizes: list[int]) -> None:
    arrays = [np.arange(size, dtype=np.uint8) for size in sizes]
    serialized = serialize(arrays)
    packed = serialized.packed()
    assert len(packed) == serialized.packed_size
    pickled, buffers = unpack(packed)
    start = np.frombuffer(packed, np.uint8).__array_interface__["data"][0]
    for buffer in buffers:
        if buffer.nbytes:
            assert (np.frombuffer(buffer, np.uint8).__array_interface__["data"][0] - start) % ALIGNMENT == 0
    back = loads(pickled, buffers=buffers)
    for before, after in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(before, after)
        assert after.size == 0 or not after.flags.writeable


def test_array_stays_out_of_the_pickle_and_is_not_copied_back() -> None:
    value = np.zeros(1_000_000)
    serialized = serialize(value)
    assert len(serialized.pickled) < 1_000
    assert serialized.size == serialized.packed_size > value.nbytes
    packed = serialized.packed()
    assert np.shares_memory(loads_packed(packed), np.frombuffer(packed, np.uint8))


def test_size_without_buffers_is_that_of_the_pickle() -> None:
    serialized = serialize("text")
    assert serialized.size == len(serialized.pickled) < serialized.packed_size


@pytest.mark.parametrize("order", ["C", "F"])
def test_layout_of_an_array_is_kept(order: Any) -> None:
    value = np.asarray(np.arange(12).reshape(3, 4), order=order)
    back = round_trip(value)
    np.testing.assert_array_equal(value, back)
    assert back.flags.c_contiguous == value.flags.c_contiguous


def test_array_with_gaps_comes_back() -> None:
    value = np.arange(100)[::3]
    np.testing.assert_array_equal(round_trip(value), value)


def test_arrays_of_objects_come_back() -> None:
    value = np.array([{"a": 1}, None, Point(2)], dtype=object)
    assert list(round_trip(value)) == list(value)


def test_large_buffers_are_copied_exactly() -> None:
    """Above a megabyte another copy routine is used, for read-only sources too."""
    data = np.random.default_rng(1).integers(0, 255, 3_000_001, dtype=np.uint8)
    frozen = data.copy()
    frozen.flags.writeable = False
    back = round_trip([data, frozen])
    np.testing.assert_array_equal(back[0], data)
    np.testing.assert_array_equal(back[1], data)


def test_packed_form_is_as_documented() -> None:
    serialized = serialize(np.arange(3, dtype=np.uint8))
    packed = serialized.packed()
    length, count, nbytes = struct.unpack_from("<IIQ", packed)
    assert (length, count, nbytes) == (len(serialized.pickled), 1, 3)
    assert packed[16 : 16 + length] == serialized.pickled
    assert packed[-3:] == b"\0\1\2"


def test_write_leaves_what_is_behind_it() -> None:
    serialized = serialize(np.arange(5, dtype=np.uint8))
    room = bytearray(b"\xff" * (serialized.packed_size + 10))
    serialized.write_packed(memoryview(room))
    assert room[serialized.packed_size :] == b"\xff" * 10


def test_arrow_is_read_in_place() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": list(range(1000))})
    packed = serialize(table).packed()
    back = loads_packed(packed)
    assert back.equals(table)
    start = np.frombuffer(packed, np.uint8).__array_interface__["data"][0]
    address = back.column("a").chunk(0).buffers()[1].address
    assert start <= address < start + len(packed)


def test_an_arrow_slice_takes_no_more_room_than_what_it_shows() -> None:
    pa = pytest.importorskip("pyarrow")
    numbers = range(100_000)
    table = pa.table(
        {
            "number": pa.array(numbers),
            "missing": pa.array([None if n % 3 else n for n in numbers]),
            "text": pa.array([f"text {n}" for n in numbers]),
            "list": pa.array([[n, n] for n in numbers]),
            "struct": pa.array([{"a": n, "b": str(n)} for n in numbers]),
            "dictionary": pa.array([f"text {n % 10}" for n in numbers]).dictionary_encode(),
        }
    )
    part = table.slice(12_345, 10)
    for value in (part, part.to_batches()[0], part.column("text"), part.column("text").chunk(0)):
        serialized = serialize(value)
        assert serialized.packed_size < 16_000
        assert loads_packed(serialized.packed()).equals(value)
    # Next to nothing of this one is missing: it is not copied for that.
    most = table.column("number").chunk(0).slice(10)
    assert most.buffers()[1].size <= serialize(most).packed_size < most.buffers()[1].size + 4_000


def test_an_arrow_slice_whose_buffers_cannot_be_cut_is_stored_with_them() -> None:
    pa = pytest.importorskip("pyarrow")
    views = pa.array([f"a text that is too long for the view {n}" for n in range(10_000)], pa.string_view()).slice(5, 3)
    assert loads_packed(serialize(views).packed()).equals(views)


# -- serializers of the user -----------------------------------------------------------------------------------------


class Guarded:
    def __init__(self, x: int) -> None:
        self.x = x
        self.lock = threading.Lock()


@pytest.fixture
def guarded_serializer() -> Any:
    register_serializer(Guarded, serializer=lambda value: value.x, deserializer=Guarded)
    yield
    deregister_serializer(Guarded)


@pytest.mark.usefixtures("guarded_serializer")
def test_registered_serializer_is_used_inside_values() -> None:
    back = round_trip({"deep": [Guarded(3)]})
    assert back["deep"][0].x == 3


@pytest.mark.usefixtures("guarded_serializer")
def test_registered_serializer_is_for_exactly_that_class() -> None:
    class Derived(Guarded):
        pass

    with pytest.raises(TypeError, match="lock"):
        serialize(Derived(1))


@pytest.mark.usefixtures("guarded_serializer")
def test_registered_serializer_is_used_for_what_a_function_closes_over() -> None:
    guarded, numbers = Guarded(3), np.arange(4)

    def function() -> int:
        return guarded.x + int(numbers.sum())

    data, contained = dumps_function(function)
    assert loads(data)() == 9
    assert contained == []


def test_deregistered_serializer_is_forgotten() -> None:
    register_serializer(Guarded, serializer=lambda value: value.x, deserializer=Guarded)
    deregister_serializer(Guarded)
    deregister_serializer(Guarded)
    with pytest.raises(TypeError, match="lock"):
        serialize(Guarded(1))


# -- what cannot be pickled ------------------------------------------------------------------------------------------


def error_of(value: Any) -> str:
    with pytest.raises(TypeError) as caught:
        serialize(value)
    return str(caught.value)


def test_path_into_containers_and_attributes() -> None:
    text = error_of({"a": [1, Guarded(2)]})
    assert "value['a'][1].lock" in text
    assert "register_serializer" in text


def test_path_into_a_closure() -> None:
    lock = threading.Lock()

    def uses_lock() -> Any:
        return lock

    text = error_of(uses_lock)
    assert "uses_lock" in text
    assert "closure variable 'lock'" in text


def test_path_into_globals() -> None:
    namespace: dict[str, Any] = {"the_lock": threading.Lock()}
    exec("def uses_global():\n    return the_lock", namespace)
    text = error_of(namespace["uses_global"])
    assert "global 'the_lock'" in text


def test_path_into_defaults_and_into_functions_inside() -> None:
    namespace: dict[str, Any] = {"the_lock": threading.Lock()}
    exec("def outer(plain, other=1, *, held=the_lock):\n    def inner():\n        return the_lock", namespace)
    text = error_of(namespace["outer"])
    assert "global 'the_lock'" in text
    namespace["outer"].__kwdefaults__["held"] = Guarded(1)
    del namespace["the_lock"]
    assert "default of 'held'.lock" in error_of(namespace["outer"])


# -- what is large ---------------------------------------------------------------------------------------------------


def test_the_largest_captures_are_named_largest_first() -> None:
    namespace: dict[str, Any] = {"table": bytes(5000), "small": 1}
    exec("def uses_both(x, *, key=bytes(3000)):\n    return table, small, (lambda: deep)", namespace)
    namespace["deep"] = np.zeros(4000, dtype=np.uint8)
    found = largest_captures(namespace["uses_both"], least=1000)
    assert [path for path, _ in found] == ["global 'table'", "global 'deep'", "default of 'key'"]
    for (_, size), least in zip(found, (5000, 4000, 3000), strict=True):
        assert least < size < least + 500


def test_captures_of_a_class_are_those_of_its_methods() -> None:
    table = bytes(5000)

    class Holder:
        attribute = bytes(2000)

        def method(self) -> bytes:
            return table

    assert [path for path, _ in largest_captures(Holder, least=1000)] == [
        ".method -> closure variable 'table'",
        ".attribute",
    ]


def test_what_is_small_or_cannot_be_pickled_is_no_large_capture() -> None:
    small, lock = bytes(10), threading.Lock()

    def function() -> Any:
        return small, lock, function

    assert largest_captures(function, least=1000) == []


def test_error_of_the_users_pickling_is_kept_as_cause() -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise RuntimeError("will not")

    with pytest.raises(TypeError, match="RuntimeError: will not") as caught:
        serialize([Refuses()])
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_long_representations_are_cut() -> None:
    class Wordy(Guarded):
        def __repr__(self) -> str:
            return "x" * 10_000

        def __reduce__(self) -> Any:
            raise RuntimeError("no")

    assert len(error_of(Wordy(1))) < 2_000


def test_broken_representation_does_not_hide_the_error() -> None:
    class Broken:
        def __reduce__(self) -> Any:
            raise RuntimeError("will not")

        def __repr__(self) -> str:
            raise ValueError("cannot show itself")

    with pytest.raises(TypeError, match="will not"):
        serialize(Broken())


def test_all_culprits_up_to_a_number_are_found() -> None:
    value = {"a": threading.Lock(), "b": 1, "c": threading.Lock()}
    assert [path for path, _ in find_unserializable(value)] == ["value['a']", "value['c']"]
    assert len(find_unserializable([threading.Lock() for _ in range(10)], most=4)) == 4


def test_culprit_below_the_depth_is_named_as_far_as_seen() -> None:
    value: Any = threading.Lock()
    for _ in range(5):
        value = [value]
    ((path, _),) = find_unserializable(value, depth=2)
    assert path == "value[0][0]"


def test_value_that_can_be_pickled_has_no_culprits() -> None:
    assert find_unserializable({"a": [1, 2]}) == []


def test_failure_leaves_no_collection_open() -> None:
    error_of(threading.Lock())
    assert collected.pickled is None
    serialize([1])
    assert collected.pickled is None
