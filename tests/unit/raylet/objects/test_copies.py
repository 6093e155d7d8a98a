"""Copies of objects whose home is another node: in the index, in virtual time."""

from __future__ import annotations

from typing import Any

from shoal_common.channel import frames
from shoal_common.channel.frames import StoreError
from shoal_common.kinds import StoreErrorKind
from shoal_raylet.actions import Send
from shoal_raylet.objects.entry import (
    CancelFetch,
    Changed,
    CopyGone,
    Deleted,
    Entry,
    Fetch,
    Hurry,
    Locate,
    MakeFile,
    Spill,
    StoreAction,
)
from shoal_raylet.objects.index import MAX_PREFETCHES, ObjectIndex
from shoal_raylet.objects.leaving import Ending

GONE = StoreError(StoreErrorKind.OBJECT_LOST, "gone")

HERE, HOME = bytes(16), b"home" * 4
A, B, OWNER = b"process-A", b"process-B", b"owner"
GRACE_S = 10.0
KIB = 1024


def oid(number: int) -> bytes:
    return b"job1" + number.to_bytes(20, "big")


class Store:
    """The index with an arena of ``kib`` KiB; homes and sources are scripted."""

    def __init__(self, kib: int = 64) -> None:
        self.index = ObjectIndex(kib * KIB, HERE, GRACE_S, "/files")
        self.now = 0.0
        self.requests = 0
        #: What is to be located, and fetched.
        self.locates: list[Entry] = []
        self.fetches: list[Entry] = []
        self.happened: list[StoreAction] = []
        #: Of which whoever waits elsewhere was told to ask again.
        self.changed: list[bytes] = []

    def run(self, actions: list[StoreAction]) -> list[Any]:
        """The messages among the actions; the rest is noted."""
        messages = []
        for action in actions:
            match action:
                case Send(_, message):
                    messages.append(message)
                case Locate(entry):
                    self.locates.append(entry)
                case Fetch(entry):
                    self.fetches.append(entry)
                case Changed(object_id):
                    self.changed.append(object_id)
                case _:
                    self.happened.append(action)
        return messages

    def take(self) -> list[StoreAction]:
        happened, self.happened = self.happened, []
        return happened

    def get(self, number: int, peer: bytes = A) -> list[Any]:
        self.requests += 1
        return self.run(self.index.get(peer, self.requests, oid(number), HOME, self.now))

    def prefetch(self, *numbers: int) -> None:
        self.run(self.index.prefetch([(oid(number), HOME) for number in numbers], self.now))

    def locate(self, kib: int) -> list[Any]:
        """The home answers about what was asked first."""
        return self.run(self.index.located(self.locates.pop(0), kib * KIB, OWNER, self.now))

    def fetch(self) -> list[Any]:
        """The first that is under way has come."""
        return self.run(self.index.fetched(self.fetches.pop(0), HOME, self.now))

    def copy(self, number: int, kib: int) -> None:
        """A copy that was read, and is not pinned."""
        self.get(number)
        self.locate(kib)
        (located,) = self.fetch()
        assert not located.error
        self.unpin(number)

    def put(self, number: int, kib: int, peer: bytes = A) -> None:
        self.requests += 1
        self.run(self.index.create(peer, self.requests, oid(number), kib * KIB, peer, self.now))
        self.run(self.index.seal(peer, oid(number), self.now))

    def unpin(self, number: int, peer: bytes = A) -> None:
        self.run(self.index.unpin(peer, oid(number), self.now))

    @property
    def used_kib(self) -> int:
        return self.index.allocator.used // KIB


def test_whoever_asks_waits_until_the_copy_is_here() -> None:
    store = Store()
    assert store.get(1) == []
    assert store.get(1, B) == [], "it is looked for once"
    assert len(store.locates) == 1
    assert store.locate(8) == []
    assert store.fetch() == [frames.ObjectLocated(1, 0, 8 * KIB), frames.ObjectLocated(2, 0, 8 * KIB)]
    assert store.get(1) == [frames.ObjectLocated(3, 0, 8 * KIB)]


def test_nodes_that_wait_for_an_object_hear_when_it_is_here_or_will_never_be() -> None:
    store = Store()
    for number in (1, 2):
        store.get(number)
        store.locate(8)
    assert store.changed == []
    store.fetch()
    assert store.changed == [oid(1)]
    store.run(store.index.not_fetched(store.fetches.pop(), StoreError(StoreErrorKind.OBJECT_LOST, "x"), store.now))
    assert set(store.changed[1:]) == {oid(2)}
    store.changed.clear()
    store.put(3, 8)
    assert store.changed == [oid(3)]
    store.run(store.index.free([oid(3)], store.now))
    assert store.changed == [oid(3), oid(3)]


def test_an_object_of_this_node_is_not_looked_for() -> None:
    store = Store()
    (lost,) = store.run(store.index.get(A, 1, oid(1), HERE, 0.0))
    assert lost.error.kind is StoreErrorKind.OBJECT_LOST
    assert store.locates == []


def test_what_cannot_be_had_fails_and_may_be_asked_for_again() -> None:
    store = Store()
    store.get(1)
    (failed,) = store.run(store.index.not_fetched(store.locates.pop(), GONE, 0.0))
    assert failed.error == GONE
    store.get(1)
    store.locate(8)
    (failed,) = store.run(store.index.not_fetched(store.fetches.pop(), GONE, 0.0))
    assert store.used_kib == 0
    assert store.get(1) == []
    assert len(store.locates) == 1


def test_copies_go_before_anything_is_spilled_and_their_home_is_told() -> None:
    store = Store(64)
    store.put(1, 16)
    store.copy(2, 16)
    store.copy(3, 16)
    store.get(2)
    store.unpin(2)
    store.put(4, 32)
    assert store.take() == [CopyGone(HOME, oid(3))]
    store.put(5, 16)
    assert store.take() == [CopyGone(HOME, oid(2))]
    store.put(6, 16)
    (spill,) = store.take()
    assert isinstance(spill, Spill)


def test_a_copy_freed_while_it_comes_gives_its_room_back_when_nothing_touches_it() -> None:
    store = Store()
    store.get(1)
    store.locate(16)
    (located,) = store.run(store.index.free([oid(1)], 0.0))
    assert located.error.kind is StoreErrorKind.OBJECT_LOST
    (entry,) = store.fetches
    assert store.take() == [CancelFetch(entry)]
    assert store.used_kib == 16
    store.run(store.index.not_fetched(entry, "", 0.0))
    assert store.used_kib == 0
    assert store.index.count == 0


def test_a_copy_that_finds_no_room_becomes_a_file_when_somebody_waits_for_it() -> None:
    store = Store(32)
    store.put(1, 24)
    store.run(store.index.get(A, 100, oid(1), b"", 0.0))
    store.get(2)
    store.locate(16)
    assert store.fetches == []
    store.now = GRACE_S
    store.run(store.index.tick(store.now))
    (made,) = [action for action in store.take() if isinstance(action, MakeFile)]
    store.run(store.index.file_made(made.path, "", False))
    (located,) = store.fetch()
    assert located.path == made.path


def test_what_is_fetched_ahead_takes_no_room_that_others_wait_for() -> None:
    store = Store(64)
    store.put(1, 48)
    store.prefetch(2, 3)
    store.locate(16)
    store.locate(16)
    assert [entry.object_id for entry in store.fetches] == [oid(2)], "nothing is spilled for the other"
    assert store.take() == []
    store.fetch()
    store.put(4, 16)
    assert store.take() == [CopyGone(HOME, oid(2))], "a creator takes what was fetched ahead"


def test_what_is_fetched_ahead_does_not_push_out_what_was_and_is_not_read_yet() -> None:
    store = Store(32)
    store.prefetch(1, 2, 3)
    for _ in range(3):
        store.locate(16)
    store.fetch()
    store.fetch()
    assert store.fetches == []
    assert store.take() == []
    store.get(1)
    store.unpin(1)
    # Read, and not in use: its room may go to the next.
    assert [entry.object_id for entry in store.fetches] == [oid(3)]
    assert store.take() == [CopyGone(HOME, oid(1))]


def test_a_copy_that_waits_for_room_ahead_is_next_when_somebody_asks_for_it() -> None:
    store = Store(32)
    store.put(1, 32)
    store.prefetch(2)
    store.locate(16)
    assert store.take() == []
    store.get(2)
    hurry, spill = store.take()
    assert isinstance(hurry, Hurry)
    assert isinstance(spill, Spill)
    store.run(store.index.spilled(spill.key, "", 0.0))
    (located,) = store.fetch()
    assert located.size == 16 * KIB


def test_what_is_too_large_for_the_arena_is_not_fetched_ahead() -> None:
    store = Store(32)
    store.prefetch(1)
    entry = store.locates[0]
    store.locate(64)
    assert store.take() == [CancelFetch(entry)]
    assert store.index.count == 0


def test_fetching_ahead_is_bounded() -> None:
    store = Store()
    store.prefetch(*range(2 * MAX_PREFETCHES))
    assert len(store.locates) == MAX_PREFETCHES


def test_an_adopted_copy_is_spilled_like_any_primary_one() -> None:
    store = Store(32)
    store.copy(1, 16)
    (entry,) = store.index.copies()
    store.index.adopt(entry)
    assert store.index.copies() == []
    store.put(2, 32)
    (spill,) = store.take()
    assert isinstance(spill, Spill)
    assert spill.entries == (entry,)


def test_a_reader_elsewhere_holds_the_bytes_until_it_has_them() -> None:
    store = Store(32)
    store.put(1, 16)
    entry = store.index.find(oid(1))
    assert entry is not None
    assert store.index.pin_for_upload(B, entry)
    assert store.index.pin_for_upload(B, entry), "one pin, however often it asks"
    store.run(store.index.free([oid(1)], 0.0))
    assert store.take() == [Deleted(oid(1))]
    assert store.used_kib == 16
    store.unpin(1, B)
    assert store.used_kib == 0


def test_what_is_being_written_here_is_not_for_others_yet() -> None:
    store = Store()
    store.run(store.index.create(A, 1, oid(1), KIB, A, 0.0))
    entry = store.index.find(oid(1))
    assert entry is not None
    assert not store.index.pin_for_upload(B, entry)


def test_a_leaving_node_saves_what_others_need_and_nothing_else() -> None:
    store = Store(64)
    store.put(1, 8, A)
    store.put(2, 8, B)
    store.copy(3, 8)
    left = store.index.only_here(Ending({A}, set()))
    assert [entry.object_id for entry in left] == [oid(2)]
    assert store.index.only_here(Ending({A}, {b"job1"})) == []
    spill = store.index.save(left)
    assert store.index.only_here(Ending({A}, set())) == [], "it is on its way"
    store.run(store.index.spilled(spill.key, "", 0.0))
    assert store.index.only_here(Ending({A}, set())) == []


def test_the_end_of_an_asking_process_leaves_the_copy_to_others() -> None:
    store = Store()
    store.get(1, A)
    store.get(1, B)
    store.run(store.index.peer_gone(A, 0.0))
    store.locate(8)
    (located,) = store.fetch()
    assert located.request == 2
