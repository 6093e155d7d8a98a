"""put and get: arguments, copies, zero-copy, sizes, serialization, spilling."""

from __future__ import annotations

import collections
import dataclasses
import enum
import os
import pickle
import subprocess
import threading

import numpy as np
import pytest
from e2e.compat.target import QUIET, better_than_ray, exceptions, new_signal, ray, submodule

pytestmark = pytest.mark.usefixtures("cluster")


class Colour(enum.Enum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


VALUES = [
    None,
    True,
    0,
    -1,
    1 << 62,
    1 << 999,
    0.5,
    float("inf"),
    1 + 2j,
    "",
    "text ☯",
    b"",
    b"bytes" * 1000,
    (),
    [1, [2, [3]]],
    {"a": {"b": (1, 2)}},
    {1, 2},
    frozenset({1}),
    range(5),
    slice(1, 2),
    Ellipsis,
    NotImplemented,
    int,
    ValueError,
    collections.OrderedDict(a=1),
    collections.Counter("hello"),
    collections.deque([1, 2], maxlen=5),
    collections.defaultdict(list, {"a": [1]}),
    np.float32(1.5),
    np.int64(5),
    np.dtype("float64"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:30])
def test_value_survives_put_and_task(value):
    @ray.remote
    def echo(x):
        return x

    for again in (ray.get(ray.put(value)), ray.get(echo.remote(value)), ray.get(ray.put([value]))[0]):
        assert type(again) is type(value)
        assert again == value


def test_local_classes():
    @dataclasses.dataclass
    class Local:
        x: int

    LocalTuple = collections.namedtuple("LocalTuple", "a b")

    class LocalEnum(enum.Enum):
        A = 1

    assert ray.get(ray.put(Local(3))).x == 3
    assert tuple(ray.get(ray.put(LocalTuple(1, 2)))) == (1, 2)
    assert ray.get(ray.put(LocalEnum.A)).name == "A"
    assert ray.get(ray.put(lambda x: x + 1))(1) == 2


def test_self_reference():
    loop = [1]
    loop.append(loop)
    again = ray.get(ray.put(loop))
    assert again[1] is again


@better_than_ray
def test_identity_and_bytearrays():
    shared = [0]
    a, b = ray.get(ray.put([shared, shared]))
    assert a is b
    assert type(ray.get(ray.put(bytearray(b"abc")))) is bytearray


# --- numpy, arrow, buffers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10),
        np.arange(1_000_000, dtype=np.float64),
        np.zeros((0, 3)),
        np.array(5),
        np.arange(200_000).reshape(400, 500).T,
        np.arange(200_000)[::2],
        np.array(["a", "bcd"]),
        np.array([1, "a", None], dtype=object),
        np.zeros(100_000, dtype=[("a", "i4"), ("b", "f8")]),
        np.datetime64("2026-01-01"),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays(array):
    again = ray.get(ray.put(array))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


def test_arrays_from_the_store_are_read_only():
    again = ray.get(ray.put(np.zeros(1_000_000)))
    assert not again.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 1


def test_arrays_from_the_store_share_memory():
    ref = ray.put(np.arange(1_000_000))
    first, second = ray.get(ref), ray.get(ref)
    assert np.shares_memory(first, second) or first.__array_interface__["data"] == second.__array_interface__["data"]


def test_array_outlives_its_reference():
    ref = ray.put(np.full(500_000, 7))
    array = ray.get(ref)
    del ref
    others = [ray.put(np.zeros(500_000)) for _ in range(10)]
    assert array.sum() == 3_500_000
    assert len(others) == 10


def test_putting_copies():
    array = np.zeros(500_000)
    ref = ray.put(array)
    array[:] = 1
    assert ray.get(ref).sum() == 0


def test_arguments_are_read_only_in_tasks():
    @ray.remote
    def writable(array):
        return array.flags.writeable

    assert not ray.get(writable.remote(np.zeros(1_000_000)))
    assert not ray.get(writable.remote(ray.put(np.zeros(1_000_000))))


def test_arrow_tables():
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": list(range(100_000)), "b": ["text"] * 100_000})
    assert ray.get(ray.put(table)).equals(table)

    @ray.remote
    def rows(t):
        return t.num_rows

    assert ray.get(rows.remote(table)) == 100_000


def test_many_buffers_in_one_object():
    arrays = {i: np.full(50_000, i) for i in range(20)}
    again = ray.get(ray.put(arrays))
    assert [int(again[i][-1]) for i in range(20)] == list(range(20))


def test_large_bytes_and_strings():
    assert ray.get(ray.put(b"x" * 5_000_000)) == b"x" * 5_000_000
    assert ray.get(ray.put("ü" * 1_000_000)) == "ü" * 1_000_000


# --- get ---------------------------------------------------------------------------------------------------------


def test_get_keeps_the_order():
    refs = [ray.put(i) for i in range(100)]
    assert ray.get(refs) == list(range(100))
    assert ray.get(refs[::-1]) == list(range(99, -1, -1))
    assert ray.get([refs[0], refs[0]]) == [0, 0]
    assert ray.get([]) == []


@pytest.mark.parametrize("thing", [1, None, "ref", {1}, (1, 2), object()], ids=lambda v: type(v).__name__)
def test_get_something_else(thing):
    with pytest.raises(ValueError, match="Invalid type of object refs"):
        ray.get(thing)


def test_get_a_tuple_of_references():
    with pytest.raises(ValueError, match="Invalid type of object refs"):
        ray.get((ray.put(1),))


def test_get_a_list_of_something_else():
    with pytest.raises(TypeError, match="Attempting to call `get` on the value 1"):
        ray.get([1])
    with pytest.raises(TypeError):
        ray.get([[ray.put(1)]])


def test_get_timeout():
    signal = new_signal()
    waiting = signal.wait.remote()
    for timeout in (0, 0.1):
        with pytest.raises(exceptions.GetTimeoutError):
            ray.get(waiting, timeout=timeout)
    with pytest.raises(TimeoutError):
        ray.get([ray.put(1), waiting], timeout=0.1)
    ray.get(signal.send.remote())
    assert ray.get(waiting, timeout=60) is None


def test_get_without_waiting():
    assert ray.get(ray.put(1), timeout=0) == 1


def test_a_timeout_is_a_number_of_seconds():
    ref = ray.put(1)
    with pytest.raises(TypeError):
        ray.get(ref, timeout="1")
    with pytest.raises(ValueError, match="NaN"):
        ray.get(ref, timeout=float("nan"))


def test_get_raises_the_first_error_without_waiting_for_the_rest():
    signal = new_signal()
    waiting = signal.wait.remote()

    @ray.remote
    def fail():
        raise ValueError("early")

    with pytest.raises(ValueError, match="early"):
        ray.get([fail.remote(), waiting], timeout=60)
    ray.get(signal.send.remote())


def test_get_from_many_threads():
    ref = ray.put(np.arange(100_000))
    sums = []
    threads = [threading.Thread(target=lambda: sums.append(int(ray.get(ref).sum()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [4999950000] * 8


# --- put and references --------------------------------------------------------------------------------------------


def test_put_a_reference():
    with pytest.raises(TypeError, match="wrap the"):
        ray.put(ray.put(1))


def test_put_a_list_of_references():
    inner = ray.get(ray.put([ray.put(1)]))[0]
    assert ray.get(inner) == 1


def test_put_inside_a_task_and_an_actor():
    @ray.remote
    def make():
        return [ray.put(i) for i in range(5)]

    assert ray.get(ray.get(make.remote())) == list(range(5))


def test_references_are_values():
    a, b = ray.put(1), ray.put(1)
    assert a != b
    assert len({a, b, a}) == 2
    assert {a: "x"}[a] == "x"
    again = ray.get(ray.put([a]))[0]
    assert again == a
    assert hash(again) == hash(a)


def test_parts_of_a_reference():
    @ray.remote
    def f():
        return ray.get_runtime_context().get_task_id()

    ref = f.remote()
    assert ref.task_id().hex() == ray.get(ref)
    assert ref.job_id().hex() == ray.get_runtime_context().get_job_id()
    assert bytes.fromhex(ref.hex()) == ref.binary()
    assert ref.hex() in repr(ref)
    assert not ref.is_nil()


def test_unpicklable_value():
    with pytest.raises(TypeError, match="lock"):
        ray.put(threading.Lock())


def test_unpicklable_part_of_a_value():
    with pytest.raises(TypeError, match=r"Could not serialize the put value(.|\n)*lock"):
        ray.put({"a": [threading.Lock()]})


def test_unpicklable_argument():
    @ray.remote
    def f(x):
        return x

    with pytest.raises(TypeError, match=r"Could not serialize the argument(.|\n)*lock"):
        f.remote(threading.Lock())


def test_unpicklable_closure():
    lock = threading.Lock()

    @ray.remote
    def f():
        return lock

    with pytest.raises(TypeError, match=r"Could not serialize the function(.|\n)*lock"):
        f.remote()


def test_unpicklable_result():
    @ray.remote
    def f():
        return threading.Lock()

    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        ray.get(f.remote())


def test_failed_serialization_leaves_the_session_usable():
    for _ in range(20):
        with pytest.raises(TypeError):
            ray.put([np.zeros(100_000), threading.Lock()])
    assert ray.get(ray.put(1)) == 1


def test_object_that_cannot_be_unpickled():
    def explode():
        raise RuntimeError("cannot be unpickled")

    class Bomb:
        def __reduce__(self):
            return explode, ()

    with pytest.raises((exceptions.RaySystemError, RuntimeError), match="cannot be unpickled"):
        ray.get(ray.put(Bomb()))


def test_custom_serializer():
    util = submodule("util")

    class Guarded:
        def __init__(self, x):
            self.x = x
            self.lock = threading.Lock()

    @ray.remote
    def read(guarded):
        return guarded.x

    util.register_serializer(Guarded, serializer=lambda g: g.x, deserializer=lambda x: Guarded(x + 1))
    try:
        assert ray.get(ray.put(Guarded(1))).x == 2
        assert ray.get(read.remote(Guarded(5))) == 6
    finally:
        util.deregister_serializer(Guarded)
    with pytest.raises(TypeError):
        ray.put(Guarded(1))


def test_reference_in_a_closure():
    ref = ray.put("captured")

    @ray.remote
    def f():
        return ray.get(ref)

    assert ray.get(f.remote()) == "captured"


def test_reference_pickled_by_hand():
    ref = ray.put("by hand")
    assert ray.get(pickle.loads(ray.cloudpickle.dumps(ref))) == "by hand"


def test_reference_pickled_by_hand_where_that_is_forbidden(monkeypatch):
    ref = ray.put("by hand")

    @ray.remote
    def captures():
        return ray.get(ref)

    for name in ("RAY_allow_out_of_band_object_ref_serialization", "SHOAL_ALLOW_OUT_OF_BAND_OBJECT_REF_SERIALIZATION"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(exceptions.OufOfBandObjectRefSerializationException, match=ref.hex()):
        ray.cloudpickle.dumps(ref)
    with pytest.raises(exceptions.OufOfBandObjectRefSerializationException):
        captures.remote()
    assert ray.get(ray.put([ref]))[0] == ref, "in values and arguments they are counted"


# --- more than fits ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_store():
    ray.shutdown()
    ray.init(num_cpus=2, object_store_memory=100 * 1024 * 1024, **QUIET)
    yield
    ray.shutdown()


def test_more_than_the_store_holds_is_spilled_and_restored(small_store):
    refs = [ray.put(np.full(20 * 1024 * 1024, i, dtype=np.uint8)) for i in range(15)]
    for i in (0, 7, 14, 3):
        assert int(ray.get(refs[i])[-1]) == i


def test_results_of_tasks_are_spilled_too(small_store):
    @ray.remote
    def make(i):
        return np.full(20 * 1024 * 1024, i, dtype=np.uint8)

    refs = [make.remote(i) for i in range(12)]
    ray.wait(refs, num_returns=len(refs), fetch_local=False)
    assert [int(ray.get(ref)[0]) for ref in refs] == list(range(12))


def test_garbage_makes_room(small_store):
    for i in range(30):
        ref = ray.put(np.full(30 * 1024 * 1024, i, dtype=np.uint8))
        assert int(ray.get(ref)[0]) == i
        del ref


def test_object_larger_than_the_store(small_store):
    ref = ray.put(np.full(150 * 1024 * 1024, 5, dtype=np.uint8))
    assert int(ray.get(ref)[-1]) == 5


def test_a_store_full_of_arrays_in_use_takes_more(small_store):
    arrays = [ray.get(ray.put(np.full(20 * 1024 * 1024, i, dtype=np.uint8))) for i in range(8)]
    assert [int(array[-1]) for array in arrays] == list(range(8))
    assert not arrays[-1].flags.writeable


def test_results_and_arguments_find_room_beside_arrays_in_use(small_store):
    @ray.remote
    def double(array):
        return array * 2

    held = [ray.get(ray.put(np.full(20 * 1024 * 1024, i, dtype=np.uint8))) for i in range(4)]
    ref = double.remote(np.full(30 * 1024 * 1024, 4, dtype=np.uint8))
    assert int(ray.get(ref)[-1]) == 8
    assert [int(array[-1]) for array in held] == list(range(4))


@pytest.fixture
def tiny_disk(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=30m", "compat-test", tmp_path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


@better_than_ray
def test_a_full_disk_is_an_error_that_ends_when_references_do(tiny_disk):
    ray.shutdown()
    directory = str(tiny_disk)
    ray.init(num_cpus=2, object_store_memory=100 * 1024 * 1024, object_spilling_directory=directory, **QUIET)
    try:
        refs = []
        with pytest.raises((exceptions.OutOfDiskError, exceptions.ObjectStoreFullError), match=r"disk.*MiB left"):
            for i in range(10):
                refs.append(ray.put(np.full(20 * 1024 * 1024, i, dtype=np.uint8)))
        assert len(refs) >= 4
        assert [int(ray.get(ref)[-1]) for ref in refs] == list(range(len(refs)))
        refs.clear()
        assert int(ray.get(ray.put(np.full(90 * 1024 * 1024, 7, dtype=np.uint8)))[-1]) == 7
    finally:
        ray.shutdown()
    assert os.listdir(directory) == []
