"""Objects larger than the store, views that outlive them, and references that pass through several processes."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from support.actors import Gate, Record
from support.processes import PATIENCE_S, eventually

import shoal
from shoal import exceptions

pytestmark = pytest.mark.usefixtures("no_cluster")

MIB = 1 << 20
STORE = 80 * MIB


def start(**arguments):
    arguments = {"num_cpus": 2, "object_store_memory": STORE, **arguments}
    return shoal.init(logging_level="ERROR", log_to_driver=False, **arguments)


def block(seed: int, size: int = 8 * MIB) -> np.ndarray:
    """Bytes that depend on the seed, in the middle as at both ends."""
    array = np.full(size, seed % 251, dtype=np.uint8)
    array[:: 64 * 1024] = np.arange(len(array[:: 64 * 1024]), dtype=np.uint64).astype(np.uint8) ^ (seed % 256)
    return array


def digest(array: np.ndarray) -> str:
    return hashlib.blake2b(array.data, digest_size=16).hexdigest()


def spilled(context) -> int:
    """Bytes in the session's spill directory."""
    total = 0
    for directory, _, names in os.walk(Path(context["session_dir"]) / "spill"):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # complete, or deleted, meanwhile
                total += os.stat(os.path.join(directory, name)).st_size
    return total


# --- more than fits ------------------------------------------------------------------------------------------------


def test_five_times_the_store_by_put():
    context = start()
    refs = [shoal.put(block(number)) for number in range(50)]
    assert spilled(context) > 0
    for number in [*range(50), 3, 49, 0]:
        assert digest(shoal.get(refs[number], timeout=PATIENCE_S)) == digest(block(number))
    del refs
    gc.collect()
    eventually(lambda: spilled(context) == 0, "spilled objects that nobody needs are deleted")


def test_what_is_read_in_order_pushes_out_what_was_read_and_not_what_comes_next():
    context = start()
    refs = [shoal.put(block(number)) for number in range(50)]
    before = spilled(context)
    for ref in refs:
        shoal.get(ref, timeout=PATIENCE_S)
    # The first ones need room, and nothing has been read yet that could make it: one blob, or two.
    assert spilled(context) - before <= 2 * 24 * MIB + MIB


def test_a_list_of_spilled_objects_is_read_at_once():
    start()
    refs = [shoal.put(block(number)) for number in range(30)]
    for first in (0, 8, 24):
        arrays = shoal.get(refs[first : first + 6], timeout=PATIENCE_S)
        assert [digest(array) for array in arrays] == [digest(block(first + number)) for number in range(6)]


def test_five_times_the_store_by_results():
    start()

    @shoal.remote
    def make(number):
        return block(number)

    @shoal.remote
    def check(array):
        return digest(array)

    refs = [make.remote(number) for number in range(50)]
    digests = shoal.get([check.remote(ref) for ref in refs], timeout=PATIENCE_S)
    assert digests == [digest(block(number)) for number in range(50)]
    for number in (0, 25, 49):
        assert digest(shoal.get(refs[number], timeout=PATIENCE_S)) == digests[number]


class Footprint:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_list_is_read_while_the_last_of_it_is_made(tmp_path):
    start()

    @shoal.remote
    def make(number):
        return block(number), Footprint(tmp_path / str(number))

    @shoal.remote
    def wait_for_a_reader():
        eventually(lambda: len(os.listdir(tmp_path)) == 3, "what is ready is read", within=PATIENCE_S)
        return "last"

    *arrays, last = shoal.get([*map(make.remote, range(3)), wait_for_a_reader.remote()], timeout=2 * PATIENCE_S)
    assert last == "last"
    assert [digest(array) for array, _ in arrays] == [digest(block(number)) for number in range(3)]


def test_the_first_error_of_a_list_ends_the_reading_of_it():
    start()

    @shoal.remote
    def make(number):
        return block(number)

    @shoal.remote
    def fail():
        raise ValueError("on purpose")

    refs = [*map(make.remote, range(4)), fail.remote(), *map(make.remote, range(4, 6))]
    with pytest.raises(ValueError, match="on purpose"):
        shoal.get(refs, timeout=PATIENCE_S)
    arrays = shoal.get([*refs[:4], *refs[5:]], timeout=PATIENCE_S)
    assert [digest(array) for array in arrays] == [digest(block(number)) for number in range(6)]


def test_spilled_arguments_of_actors_and_parts_of_results():
    start()

    @shoal.remote(num_returns=4)
    def parts(number):
        return tuple(block(number * 4 + part, 4 * MIB) for part in range(4))

    @shoal.remote
    class Checker:
        def check(self, box, direct):
            return digest(shoal.get(box[0])), digest(direct)

    checker = Checker.remote()
    refs = [ref for number in range(12) for ref in parts.remote(number)]
    for number in range(0, 48, 5):
        expected = digest(block(number, 4 * MIB)), digest(block(number + 1 if number < 47 else 0, 4 * MIB))
        direct = refs[number + 1 if number < 47 else 0]
        assert shoal.get(checker.check.remote([refs[number]], direct), timeout=PATIENCE_S) == expected


def test_small_objects_written_in_pieces_of_the_arena():
    """By a driver, tasks and an actor that is killed while it holds one; nothing of the arena stays in use."""
    start(object_store_memory=512 * MIB)
    size, count = 200_000, 60

    @shoal.remote
    def turn(data):
        return data[::-1]

    @shoal.remote
    class Maker:
        def make(self, number):
            return number.to_bytes(2, "big") * (size // 2)

    maker = Maker.remote()
    made = [maker.make.remote(number) for number in range(count)]
    put = [shoal.put(number.to_bytes(2, "big") * (size // 2)) for number in range(count)]
    turned = shoal.get([turn.remote(ref) for pair in zip(made, put, strict=True) for ref in pair], timeout=PATIENCE_S)
    assert turned == [number.to_bytes(2, "little") * (size // 2) for number in range(count) for _ in range(2)]
    for number in range(count):
        # One at a time: the question for an object is close behind the word that it is there.
        assert shoal.get(maker.make.remote(number), timeout=PATIENCE_S) == number.to_bytes(2, "big") * (size // 2)
    more = [maker.make.remote(number) for number in range(count)]
    shoal.wait(more, num_returns=count // 2, timeout=PATIENCE_S)
    shoal.kill(maker)
    del made, put, turned, more
    gc.collect()
    total = shoal.cluster_resources()["object_store_memory"]
    eventually(lambda: shoal.available_resources()["object_store_memory"] == total, "the arena is free", PATIENCE_S)


def test_view_outlives_eviction():
    """What a program still looks at does not change or vanish, whatever the store has to do for others."""
    start()
    first = shoal.put(block(1))
    view = shoal.get(first)
    part = view[1000:2000]
    refs = [shoal.put(block(number)) for number in range(2, 30)]
    assert digest(view) == digest(block(1))
    del first, view
    gc.collect()
    refs += [shoal.put(block(number)) for number in range(30, 50)]
    assert bytes(part) == bytes(block(1)[1000:2000])
    for index, number in enumerate(range(2, 50)):
        assert digest(shoal.get(refs[index], timeout=PATIENCE_S)) == digest(block(number))


def test_views_in_several_processes():
    start(num_cpus=3)

    @shoal.remote
    class Reader:
        def look(self, box):
            self.view = shoal.get(box[0])

        def digest(self):
            return digest(self.view)

    readers = [Reader.remote() for _ in range(3)]
    refs = [shoal.put(block(number)) for number in range(3)]
    shoal.get([reader.look.remote([ref]) for reader, ref in zip(readers, refs, strict=True)])
    # The driver lets go; the readers have not.
    del refs
    gc.collect()
    others = [shoal.put(block(number)) for number in range(10, 40)]
    assert shoal.get([reader.digest.remote() for reader in readers]) == [digest(block(number)) for number in range(3)]
    assert digest(shoal.get(others[0], timeout=PATIENCE_S)) == digest(block(10))


def test_store_full_of_views():
    """When everything in memory is being looked at, a new object still has a place or an error says why; then it works
    again."""
    start()
    refs = [shoal.put(block(number)) for number in range(9)]
    views = [shoal.get(ref) for ref in refs]
    try:
        extra = shoal.put(block(100, 40 * MIB))
    except exceptions.ObjectStoreFullError as error:
        assert "object" in str(error)
    else:
        assert digest(shoal.get(extra, timeout=PATIENCE_S)) == digest(block(100, 40 * MIB))
    for number, view in enumerate(views):
        assert digest(view) == digest(block(number))
    del views, view
    gc.collect()
    later = shoal.put(block(101, 40 * MIB))
    assert digest(shoal.get(later, timeout=PATIENCE_S)) == digest(block(101, 40 * MIB))


def test_many_writers_at_once():
    start(num_cpus=4)

    @shoal.remote
    def writer(number):
        refs = [shoal.put(block(number * 10 + i, 3 * MIB)) for i in range(10)]
        return [digest(shoal.get(ref)) for ref in refs]

    results = shoal.get([writer.remote(number) for number in range(8)], timeout=PATIENCE_S)
    assert results == [[digest(block(number * 10 + i, 3 * MIB)) for i in range(10)] for number in range(8)]


@pytest.mark.parametrize("argument", ["object_spilling_directory", "_object_spilling_directory"])
def test_spilling_to_a_directory_of_ones_own(tmp_path, argument):
    start(**{argument: str(tmp_path / "spill")})
    refs = [shoal.put(block(number)) for number in range(20)]
    assert any((tmp_path / "spill").rglob("*"))
    assert digest(shoal.get(refs[0], timeout=PATIENCE_S)) == digest(block(0))
    shoal.shutdown()
    left = [path for path in (tmp_path / "spill").rglob("*") if path.is_file()]
    assert left == []


def test_result_written_when_its_owner_has_gone_is_not_kept():
    context = start()
    total = shoal.available_resources()

    @shoal.remote(max_retries=0)
    def owner(record, gate):
        ref = make.remote(gate)
        shoal.get(record.note.remote(os.getpid()))
        shoal.get(ref)

    @shoal.remote
    def make(gate):
        shoal.get(gate.pass_through.remote())
        return block(0)

    record, gate = Record.remote(), Gate.remote()
    ref = owner.remote(record, gate)
    [pid] = shoal.get(record.notes.remote(1))
    shoal.get(gate.arrived.remote(1))
    os.kill(pid, 9)
    with pytest.raises(exceptions.WorkerCrashedError):
        shoal.get(ref, timeout=PATIENCE_S)
    shoal.get(gate.open.remote())
    eventually(lambda: shoal.available_resources()["CPU"] == total["CPU"], "both workers' CPUs are free")
    refs = [shoal.put(block(number)) for number in range(20)]
    assert digest(shoal.get(refs[0], timeout=PATIENCE_S)) == digest(block(0))
    assert spilled(context) < 20 * 9 * MIB


# --- references over several processes -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 2 * MIB], ids=["small", "large"])
def test_chain_of_owners(size):
    """An object within an object within an object, each made by another process that then forgets it."""
    start(num_cpus=4)

    @shoal.remote
    class Maker:
        def make(self, number):
            return {"data": block(number, size), "inner": None}

        def wrap(self, number, box):
            return {"data": block(number, size), "inner": box[0]}

        def put(self, number, box):
            return {"data": block(number, size), "inner": shoal.put({"data": block(number + 1, size), "inner": box[0]})}

    makers = [Maker.remote() for _ in range(3)]
    ref = makers[0].make.remote(0)
    ref = makers[1].wrap.remote(1, [ref])
    ref = makers[2].put.remote(2, [ref])
    gc.collect()
    numbers = []
    while ref is not None:
        value = shoal.get(ref, timeout=PATIENCE_S)
        numbers.append(int(value["data"][0]))
        assert digest(value["data"]) in {digest(block(number, size)) for number in range(4)}
        ref = value["inner"]
        del value
        gc.collect()
    assert len(numbers) == 4


def test_reference_goes_round():
    """Driver → first → second → driver, and back to be read in each."""
    start(num_cpus=4)

    @shoal.remote
    class Node:
        def __init__(self):
            self.kept = []

        def keep(self, box):
            self.kept += box
            return list(box)

        def pass_on(self, other, box):
            return shoal.get(other.keep.remote(box))

        def digests(self):
            return [digest(array) for array in shoal.get(self.kept)]

        def drop(self):
            self.kept.clear()
            gc.collect()

    first, second = Node.remote(), Node.remote()
    ref = shoal.put(block(7))
    [back] = shoal.get(first.pass_on.remote(second, [ref]))
    assert back == ref
    shoal.get(first.keep.remote([back]))
    del ref, back
    gc.collect()
    assert shoal.get([first.digests.remote(), second.digests.remote()]) == [[digest(block(7))]] * 2
    shoal.get(first.drop.remote())
    assert shoal.get(second.digests.remote()) == [digest(block(7))]


def test_thousand_references_through_two_processes():
    start()

    @shoal.remote
    def inner(refs):
        return sum(shoal.get(refs)), refs[::2]

    @shoal.remote
    def outer(refs):
        total, half = shoal.get(inner.remote(refs))
        return total + sum(shoal.get(half)), half[:10]

    refs = [shoal.put(number) for number in range(1000)]
    total, some = shoal.get(outer.remote(refs), timeout=PATIENCE_S)
    assert total == sum(range(1000)) + sum(range(0, 1000, 2))
    del refs
    gc.collect()
    assert shoal.get(some) == list(range(0, 20, 2))
