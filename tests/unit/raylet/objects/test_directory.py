from __future__ import annotations

import random

from shoal_raylet.objects.directory import MAX_READERS, ObjectDirectory

HOME = b"home"
OBJECT = b"object"


def node(number: int) -> bytes:
    return b"node" + bytes([number])


def ask(
    directory: ObjectDirectory, asker: bytes, *without: bytes, here: bool = True, blob: bool = False
) -> list[bytes]:
    return directory.locate(OBJECT, asker, list(without), here=here, blob=blob)


def test_the_first_askers_read_from_the_home_and_the_next_from_them() -> None:
    directory = ObjectDirectory(HOME)
    sources = [ask(directory, node(number)) for number in range(7)]
    assert sources[:2] == [[HOME], [HOME]]
    readers = [source for (source,) in sources]
    assert max(readers.count(each) for each in readers) <= MAX_READERS


def test_complete_copies_share_the_work() -> None:
    directory = ObjectDirectory(HOME)
    ask(directory, node(1))
    directory.completed(OBJECT, node(1))
    assert set(ask(directory, node(2))) == {HOME, node(1)}


def test_a_node_that_has_its_copy_makes_the_home_less_busy() -> None:
    directory = ObjectDirectory(HOME)
    for number in range(MAX_READERS):
        ask(directory, node(number))
        directory.completed(OBJECT, node(number))
        directory.gone(OBJECT, node(number))
    assert ask(directory, node(9)) == [HOME]


def test_nobody_reads_from_whom_it_feeds() -> None:
    """Whatever fails, there is no circle of nodes that wait for one another."""
    for seed in range(50):
        rng = random.Random(seed)
        directory = ObjectDirectory(HOME)
        reads: dict[bytes, list[bytes]] = {}
        for _ in range(60):
            asker = node(rng.randrange(8))
            reads[asker] = ask(directory, asker, *rng.sample([HOME, *map(node, range(8))], 3))
            if rng.random() < 0.2:
                done = node(rng.randrange(8))
                directory.completed(OBJECT, done)
                reads[done] = []
            if rng.random() < 0.2:
                lost = node(rng.randrange(8))
                directory.node_lost(lost)
                reads.pop(lost, None)
            for start in reads:
                path, seen = [start], set()
                while path:
                    for source in reads.get(path.pop(), ()):
                        assert source != start, (seed, reads)
                        if source not in seen:
                            seen.add(source)
                            path.append(source)


def test_a_source_that_did_not_deliver_is_not_given_again() -> None:
    directory = ObjectDirectory(HOME)
    ask(directory, node(1))
    directory.completed(OBJECT, node(1))
    assert ask(directory, node(2), HOME) == [node(1)]
    assert ask(directory, node(2), HOME, node(1)) == []


def test_a_spilled_object_is_read_from_a_copy_or_else_from_its_blob() -> None:
    directory = ObjectDirectory(HOME)
    assert ask(directory, node(1), here=False, blob=True) == []
    assert ask(directory, node(2), here=False, blob=True) == [node(1)], "which reads the blob"
    directory.completed(OBJECT, node(1))
    assert ask(directory, node(3), here=False, blob=True) == [node(1)]


def test_a_deleted_object_is_told_to_all_who_have_it() -> None:
    directory = ObjectDirectory(HOME)
    ask(directory, node(1))
    ask(directory, node(2))
    directory.completed(OBJECT, node(2))
    assert directory.complete_copies(OBJECT) == [node(2)]
    directory.gone(OBJECT, node(1))
    assert directory.forget(OBJECT) == [node(2)]
    assert directory.forget(OBJECT) == []
