"""Objects that are filled where they lie in the store."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.processes import PATIENCE_S, eventually

import shoal
from shoal import exceptions
from shoal.experimental import ObjectBuffer, create_object

STORE = 80 * 1024 * 1024
as_floats = partial(np.frombuffer, dtype=np.float64)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    shoal.init(num_cpus=1, object_store_memory=STORE, logging_level="ERROR", log_to_driver=False)
    yield
    shoal.shutdown()


def nothing_is_left() -> None:
    total = shoal.cluster_resources()["object_store_memory"]
    eventually(lambda: shoal.available_resources()["object_store_memory"] == total, "the arena is free", PATIENCE_S)


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


@shoal.remote(num_cpus=0)
def total(values: np.ndarray[Any, Any]) -> float:
    return float(values.sum())


@shoal.remote(num_cpus=0)
def made_elsewhere(count: int) -> list[shoal.ObjectRef[Any]]:
    with create_object(8 * count, as_floats) as buffer:
        as_floats(buffer.memory)[:] = 2
        return [buffer.seal()]


@pytest.mark.parametrize("count", [1, 1_000, 1_000_000])
def test_an_object_is_filled_where_it_lies(count: int) -> None:
    with create_object(8 * count, as_floats) as buffer:
        assert len(buffer) == len(buffer.memory) == 8 * count
        assert address(as_floats(buffer.memory)) % 64 == 0
        as_floats(buffer.memory)[:] = 0.5
        ref = buffer.seal()
    values = shoal.get(ref)
    assert (values == 0.5).all()
    assert not values.flags.writeable
    assert address(values) % 64 == 0
    assert shoal.get(total.remote(ref)) == count / 2
    [other] = shoal.get(made_elsewhere.remote(count))
    assert shoal.get(other).sum() == 2 * count
    del values, ref, other
    nothing_is_left()


def test_without_a_reader_it_is_its_memory() -> None:
    buffer = create_object(300_000)
    buffer.memory[:] = bytes(range(250)) * 1200
    memory = shoal.get(buffer.seal())
    assert isinstance(memory, memoryview)
    assert memory.readonly
    assert memory[:250] == bytes(range(250))


def test_arrow_is_written_into_it() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"number": range(10_000), "text": ["x" * 10] * 10_000})
    size = pa.MockOutputStream()
    with pa.ipc.new_stream(size, table.schema) as writer:
        writer.write_table(table)
    with create_object(size.size(), pa.ipc.open_stream) as buffer:
        with pa.ipc.new_stream(pa.FixedSizeBufferWriter(pa.py_buffer(buffer.memory)), table.schema) as writer:
            writer.write_table(table)
        del writer
        ref = buffer.seal()
    assert shoal.get(ref).read_all().equals(table)


def test_every_buffer_of_an_object_in_the_store_is_aligned() -> None:
    arrays = [np.arange(size, dtype=np.int8) for size in (70_001, 3, 130_007, 64)]
    assert [address(array) % 64 for array in shoal.get(shoal.put(arrays))] == [0, 0, 0, 0]
    pa = pytest.importorskip("pyarrow")
    table = shoal.get(shoal.put(pa.table({"a": range(50_001), "b": ["xyz"] * 50_001})))
    buffers = [each for column in table.columns for chunk in column.chunks for each in chunk.buffers()]
    assert [each.address % 64 for each in buffers if each is not None] == [0, 0, 0]


@pytest.mark.parametrize("view", [as_floats, lambda memory: memory[8:16]])
def test_what_can_still_be_written_is_not_sealed(view: Any) -> None:
    buffer = create_object(800, as_floats)
    writer = view(buffer.memory)
    with pytest.raises(BufferError, match="can still write to this object"):
        buffer.seal()
    buffer.memory[:] = bytes(800)
    del writer
    ref = buffer.seal()
    assert not shoal.get(ref).any()


@pytest.mark.parametrize("size", [1_000, 10_000_000])
def test_what_is_not_sealed_gives_its_memory_back(size: int) -> None:
    kept = create_object(size)
    array = as_floats(kept.memory)
    array[:] = 1
    kept.drop()
    array[:] = 2  # its memory is nobody else's yet
    with create_object(size), pytest.raises(ValueError, match="sealed or dropped"), create_object(size) as left:
        left.drop()
        left.seal()
    create_object(size)
    del array
    nothing_is_left()


def test_misuse() -> None:
    buffer = create_object(10)
    memory = buffer.memory
    buffer.seal()
    for again in (buffer.seal, lambda: buffer.memory, lambda: len(buffer)):
        with pytest.raises(ValueError, match="sealed or dropped before"):
            again()
    with pytest.raises(ValueError, match="released"):
        memory[0] = 1
    with pytest.raises(TypeError, match=r"seal\(\) it, and send the reference"):
        pickle.dumps(create_object(10))
    for size, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="size must be"):
            create_object(size)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="read must be a function"):
        create_object(1, 2)  # type: ignore[arg-type]


def test_more_than_there_is() -> None:
    with pytest.raises((exceptions.ObjectStoreFullError, exceptions.OutOfDiskError)):
        create_object(1 << 45)
    held: list[ObjectBuffer] = [create_object(STORE // 4) for _ in range(3)]
    for buffer in held:
        buffer.memory[-1] = 7
    refs = [buffer.seal() for buffer in held]
    assert [shoal.get(ref)[-1] for ref in refs] == [7, 7, 7]
