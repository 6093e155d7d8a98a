from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shoal_common.channel import frames
from shoal_common.channel.frames import StoreError
from shoal_common.kinds import StoreErrorKind
from shoal_raylet.actions import Send
from shoal_raylet.objects.entry import (
    DeleteBlob,
    MakeFile,
    RemoveFile,
    Restore,
    Spill,
    StoreAction,
)
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.objects.spills import RETRY_S

JOB = b"job1"
A, B = b"process-A", b"process-B"
GRACE_S = 10.0


def oid(number: int, job: bytes = JOB) -> bytes:
    return job + number.to_bytes(20, "big")


class Store:
    """The index with an arena of ``kib`` KiB, a scripted blob store and a scripted disk."""

    def __init__(self, kib: int = 64) -> None:
        self.index = ObjectIndex(kib * 1024, bytes(16), GRACE_S, "/files")
        self.now = 0.0
        self.requests = 0
        self.spills: list[Spill] = []
        self.restores: list[Restore] = []
        self.deleted: list[str] = []
        self.making: list[MakeFile] = []
        self.files: set[str] = set()
        self.sent: list[tuple[bytes, Any]] = []

    def run(self, actions: list[StoreAction]) -> list[Any]:
        """The messages among the actions; the rest is noted."""
        messages = []
        for action in actions:
            match action:
                case Send(peer, message):
                    self.sent.append((peer, message))
                    messages.append(message)
                case Spill():
                    self.spills.append(action)
                case Restore():
                    self.restores.append(action)
                case DeleteBlob(key):
                    self.deleted.append(key)
                case MakeFile():
                    self.making.append(action)
                case RemoveFile(path):
                    self.files.remove(path)
        return messages

    def create(self, number: int, kib: int, peer: bytes = A, owner: bytes = A, job: bytes = JOB) -> list[Any]:
        self.requests += 1
        return self.run(self.index.create(peer, self.requests, oid(number, job), kib * 1024, owner, self.now))

    def put(self, number: int, kib: int, peer: bytes = A, owner: bytes = A, job: bytes = JOB) -> None:
        (created,) = self.create(number, kib, peer, owner, job)
        assert not created.error
        self.run(self.index.seal(peer, oid(number, job), self.now))

    def get(self, number: int, peer: bytes = A) -> list[Any]:
        self.requests += 1
        return self.run(self.index.get(peer, self.requests, oid(number), b"", self.now))

    def prefetch(self, *numbers: int) -> list[Any]:
        return self.run(self.index.prefetch([(oid(number), b"") for number in numbers], self.now))

    def restoring(self) -> list[int]:
        """The numbers of the objects that are being restored."""
        return [int.from_bytes(restore.entry.object_id[len(JOB) :], "big") for restore in self.restores]

    def unpin(self, number: int, peer: bytes = A) -> list[Any]:
        return self.run(self.index.unpin(peer, oid(number), self.now))

    def free(self, *numbers: int) -> list[Any]:
        return self.run(self.index.free([oid(number) for number in numbers], self.now))

    def finish_spill(self, error: str = "") -> list[Any]:
        return self.run(self.index.spilled(self.spills.pop(0).key, error, self.now))

    def finish_restore(self, error: str = "") -> list[Any]:
        return self.run(self.index.restored(self.restores.pop(0).entry, error, self.now))

    def finish_file(self, error: str = "", disk_full: bool = False) -> list[Any]:
        made = self.making.pop(0)
        if not error:
            self.files.add(made.path)
        return self.run(self.index.file_made(made.path, error, disk_full))

    @property
    def used_kib(self) -> int:
        return self.index.allocator.used // 1024


def test_created_sealed_read_and_freed() -> None:
    store = Store()
    (created,) = store.create(1, 4)
    assert created == frames.ObjectCreated(1, 0)
    # Who asks before it is sealed waits for it.
    assert store.get(1, B) == []
    assert store.run(store.index.seal(A, oid(1), 0.0)) == [frames.ObjectLocated(2, 0, 4096)]
    store.unpin(1, B)
    store.free(1)
    assert store.used_kib == 0
    (lost,) = store.get(1)
    assert lost.error.kind is StoreErrorKind.OBJECT_LOST


def test_only_its_creator_seals_an_object() -> None:
    store = Store()
    store.create(1, 4)
    store.run(store.index.seal(B, oid(1), 0.0))
    assert store.get(1) == []


def test_who_waits_no_longer_is_told_once_and_pins_nothing() -> None:
    store = Store()
    store.create(1, 4)
    store.get(1, A)
    store.get(1, B)
    (ended,) = store.run(store.index.end_get(A, 2, oid(1), "the node is not reached"))
    assert ended.request == 2 and ended.error.kind is StoreErrorKind.GET_TIMED_OUT and "not reached" in ended.error.text
    assert store.run(store.index.seal(A, oid(1), 0.0)) == [frames.ObjectLocated(3, 0, 4096)]
    # The answer was on its way.
    assert store.run(store.index.end_get(B, 3, oid(1), "")) == []
    store.unpin(1, B)
    store.free(1)
    assert store.used_kib == 0
    assert store.run(store.index.end_get(B, 3, oid(1), "")) == []


def test_bytes_in_use_outlive_the_free_and_their_holders_are_told() -> None:
    store = Store()
    store.put(1, 4)
    store.get(1, B)
    store.get(1, B)
    store.free(1)
    assert store.sent[-1] == (B, frames.ObjectUncache([oid(1)]))
    store.unpin(1, B)
    assert store.used_kib == 4
    store.unpin(1, B)
    assert store.used_kib == 0


def test_an_object_freed_before_it_is_sealed_goes_when_it_is() -> None:
    store = Store()
    store.create(1, 4)
    store.free(1)
    assert store.used_kib == 4
    store.run(store.index.seal(A, oid(1), 0.0))
    assert store.used_kib == 0


def test_a_processs_end_drops_its_pins_and_what_it_had_not_sealed() -> None:
    store = Store()
    store.put(1, 4, peer=A, owner=B)
    store.get(1, A)
    store.create(2, 4, peer=A, owner=B)
    waiting = store.get(2, B)
    assert waiting == []
    messages = store.run(store.index.peer_gone(A, 0.0))
    assert messages[0].error.kind is StoreErrorKind.OBJECT_LOST
    assert store.used_kib == 4
    store.free(1)
    assert store.used_kib == 0


def test_an_owners_end_deletes_its_objects_when_the_readers_let_go() -> None:
    store = Store()
    store.put(1, 4, peer=A, owner=B)
    store.get(1, A)
    store.run(store.index.owner_gone(B, 0.0))
    assert store.index.count == 0
    store.unpin(1, A)
    assert store.used_kib == 0


def test_a_retried_task_replaces_its_result() -> None:
    store = Store()
    store.put(1, 4, peer=A)
    store.get(1, B)
    store.put(1, 8, peer=A)
    (located,) = store.get(1, A)
    assert located.size == 8 * 1024
    assert store.used_kib == 12
    store.unpin(1, B)
    assert store.used_kib == 8


def test_a_jobs_end_deletes_its_objects_but_not_its_detached_actors() -> None:
    store = Store()
    store.put(1, 4, owner=A)
    store.put(2, 4, owner=B)
    store.put(3, 4, owner=A, job=b"job2")
    store.run(store.index.job_ended(JOB, {B}, 0.0))
    assert store.index.count == 2


def test_the_object_used_least_recently_is_spilled() -> None:
    store = Store(64)
    for number in range(4):
        store.put(number, 16)
    store.get(0)
    store.unpin(0)
    assert store.create(9, 16) == []
    (spill,) = store.spills
    assert [entry.object_id for entry in spill.entries] == [oid(1)]
    assert spill.key == f"spill/{JOB.hex()}/{'00' * 16}/0-1"
    (created,) = store.finish_spill()
    assert not created.error
    assert store.index.spilled_bytes == 16 * 1024


def test_small_objects_are_fused_by_job() -> None:
    store = Store(64)
    for number in range(8):
        store.put(number, 4)
    for number in range(8):
        store.put(number, 4, job=b"job2")
    store.create(99, 8)
    (spill,) = store.spills
    assert [entry.object_id for entry in spill.entries] == [oid(number) for number in range(4)]


def test_a_spilled_object_is_restored_for_whoever_asks() -> None:
    store = Store(64)
    store.put(1, 40)
    store.create(2, 40)
    store.finish_spill()
    store.run(store.index.seal(A, oid(2), 0.0))
    assert store.get(1, A) == []
    assert store.get(1, B) == []
    store.finish_spill()
    (restore,) = store.restores
    assert restore.entry.object_id == oid(1)
    located = store.finish_restore()
    assert [message.size for message in located] == [40 * 1024] * 2
    assert store.index.restored_bytes == 40 * 1024


def full_store() -> Store:
    """1 to 4 lie in blobs only, 5 to 8 in memory only; each is a quarter of it."""
    store = Store()
    for number in range(1, 9):
        created = store.create(number, 16)
        while not created:
            created = store.finish_spill()
        store.run(store.index.seal(A, oid(number), store.now))
    return store


def test_who_reads_in_the_order_of_spilling_finds_the_next_ones_restored_ahead() -> None:
    store = full_store()
    store.get(1)
    store.finish_spill()  # of 5, which makes room
    assert store.restoring() == [1]
    store.finish_restore()
    store.unpin(1)
    assert store.restoring() == [2]
    store.finish_restore()
    (located,) = store.get(2)
    assert not located.error
    store.unpin(2)
    assert store.restoring() == [3]
    # Now that somebody waits for it, it is no longer ahead.
    assert store.get(3) == []
    (located,) = store.finish_restore()
    assert not located.error


def test_who_reads_in_another_order_has_nothing_restored_ahead() -> None:
    store = full_store()
    store.get(3)
    store.finish_spill()
    store.finish_restore()
    store.unpin(3)
    assert store.restores == []


def test_what_is_asked_for_ahead_is_restored_several_at_a_time_and_takes_no_room_from_others() -> None:
    store = full_store()
    store.prefetch(1, 2, 3, 99)
    assert store.restores == [] and store.spills == []
    store.free(7, 8)
    assert store.restoring() == [1, 2]
    store.finish_restore()
    store.finish_restore()
    # What nobody has read yet does not make room for the third.
    store.prefetch(3)
    assert store.restores == []
    store.get(1)
    store.unpin(1)
    assert store.restoring() == [3]


def test_what_is_freed_is_not_restored_ahead() -> None:
    store = full_store()
    store.prefetch(1, 2)
    store.free(1)
    store.free(8)
    assert store.restoring() == [2]
    store.free(2)
    store.finish_restore()
    assert store.used_kib == 48


def test_what_cannot_be_restored_ahead_is_tried_again_for_whoever_asks() -> None:
    store = full_store()
    store.prefetch(1)
    store.free(8)
    store.finish_restore("the disk fails")
    assert store.get(1) == []
    (located,) = store.finish_restore()
    assert not located.error


def test_memory_whose_object_lies_in_a_blob_is_taken_without_writing_again() -> None:
    store = Store(64)
    store.put(1, 40)
    store.create(2, 40)
    store.finish_spill()
    store.free(2)
    store.run(store.index.seal(A, oid(2), 0.0))
    store.get(1)
    store.finish_restore()
    store.unpin(1)
    (created,) = store.create(3, 40)
    assert not created.error and store.spills == []


def test_a_blob_goes_with_its_last_object() -> None:
    store = Store(64)
    for number in range(4):
        store.put(number, 4)
    store.create(9, 60)
    store.finish_spill()
    store.free(0, 1, 2)
    assert store.deleted == []
    store.free(3)
    assert store.deleted == [f"spill/{JOB.hex()}/{'00' * 16}/0-1"]
    assert store.index.spilled_bytes == 0


def test_objects_freed_while_they_are_spilled_leave_no_blob() -> None:
    store = Store(64)
    store.put(1, 40)
    store.create(2, 40)
    store.free(1)
    assert store.used_kib == 40
    (created,) = store.finish_spill()
    assert not created.error
    assert store.deleted and store.index.spilled_bytes == 0


def test_an_object_read_while_it_is_spilled_stays_in_memory() -> None:
    store = Store(64)
    store.put(1, 40)
    store.create(2, 40)
    (located,) = store.get(1)
    assert not located.error
    assert store.finish_spill() == [frames.ObjectUncache([oid(1)])]
    (created,) = store.unpin(1)
    assert not created.error


def test_creators_are_served_in_order() -> None:
    store = Store(64)
    store.put(1, 60)
    store.get(1)
    assert store.create(2, 30) == [frames.ObjectUncache([oid(1)])]
    assert store.create(3, 1) == []
    created = store.free(1) + store.unpin(1)
    assert [message.request for message in created if isinstance(message, frames.ObjectCreated)] == [3, 4]


def test_cached_pins_are_asked_back_when_nothing_can_be_spilled() -> None:
    store = Store(64)
    store.put(1, 60)
    store.get(1, B)
    assert store.create(2, 30) == [frames.ObjectUncache([oid(1)])]
    store.run(store.index.tick(1.0))
    assert [message for _, message in store.sent].count(frames.ObjectUncache([oid(1)])) == 1
    store.unpin(1, B)
    assert len(store.spills) == 1


def full_of_pinned_bytes() -> Store:
    """60 of 64 KiB are held by B, and a creator waits for 30: request 3."""
    store = Store(64)
    store.put(1, 60)
    store.get(1, B)
    store.create(2, 30)
    return store


def test_what_finds_no_room_becomes_a_file_after_the_grace() -> None:
    store = full_of_pinned_bytes()
    store.now = GRACE_S - 0.1
    assert store.run(store.index.tick(store.now)) == []
    assert store.making == [] and store.index.next_deadline() == GRACE_S
    assert store.run(store.index.tick(GRACE_S)) == []
    assert store.making == [MakeFile("/files/00000001", 30 * 1024)]
    assert store.finish_file() == [frames.ObjectCreated(3, 0, path="/files/00000001")]
    assert store.index.next_deadline() is None
    store.run(store.index.seal(A, oid(2), store.now))
    (located,) = store.get(2, B)
    assert (located.path, located.size) == ("/files/00000001", 30 * 1024)
    assert store.used_kib == 60


def test_a_file_goes_with_its_object_and_the_last_that_reads_it() -> None:
    store = full_of_pinned_bytes()
    store.run(store.index.tick(GRACE_S))
    store.finish_file()
    store.run(store.index.seal(A, oid(2), GRACE_S))
    store.get(2, B)
    store.free(2)
    assert store.files == {"/files/00000001"}
    store.unpin(2, B)
    assert store.files == set()


def test_the_grace_is_waited_for_once_until_memory_becomes_free() -> None:
    store = full_of_pinned_bytes()
    store.now = GRACE_S
    store.run(store.index.tick(store.now))
    store.finish_file()
    store.create(3, 30)
    assert len(store.making) == 1
    # What fits goes to memory all the same.
    (created,) = store.create(4, 4)
    assert created.path == ""
    store.free(4)
    store.run(store.index.seal(A, oid(4), store.now))
    store.create(5, 30)
    assert len(store.making) == 1


def test_an_object_larger_than_the_store_becomes_a_file_at_once() -> None:
    store = Store(64)
    assert store.create(1, 65) == []
    (created,) = store.finish_file()
    assert created.path == "/files/00000001"


def test_nothing_that_waits_is_stopped_by_an_object_larger_than_the_store() -> None:
    store = Store(64)
    store.create(1, 65)
    (created,) = store.create(2, 30)
    assert created.path == ""


def test_a_full_disk_is_told_with_all_that_matters() -> None:
    store = full_of_pinned_bytes()
    store.run(store.index.tick(GRACE_S))
    (created,) = store.finish_file("the disk of /files has 1.0 KiB left", disk_full=True)
    assert created.error.kind is StoreErrorKind.OUT_OF_DISK and created.error.text.startswith(
        "no room for an object of 30.0 KiB"
    )
    assert "60.0 KiB of the 64.0 KiB" in created.error.text
    assert "60.0 KiB of them by values" in created.error.text
    assert "1.0 KiB left" in created.error.text
    assert "object_spilling_directory" in created.error.text
    assert store.index.next_deadline() is None


def test_a_disk_that_cannot_be_written_is_told() -> None:
    store = Store(64)
    store.create(1, 65)
    (created,) = store.finish_file("Read-only file system")
    assert created.error.kind is StoreErrorKind.STORE_FULL and "Read-only file system" in created.error.text


def test_a_file_that_nobody_wants_any_more_is_removed() -> None:
    store = Store(64)
    store.create(1, 65, peer=B)
    store.run(store.index.peer_gone(B, 0.0))
    store.finish_file()
    assert store.files == set()


def spilled_and_no_room_for_it() -> Store:
    """Object 1 is in a blob, and B holds 60 KiB of the arena."""
    store = Store(64)
    store.put(1, 40)
    store.create(2, 60)
    store.finish_spill()
    store.run(store.index.seal(A, oid(2), 0.0))
    store.get(2, B)
    return store


def test_a_spilled_object_is_restored_to_a_file_when_there_is_no_room() -> None:
    store = spilled_and_no_room_for_it()
    store.get(1, A)
    store.run(store.index.tick(GRACE_S))
    store.finish_file()
    (restore,) = store.restores
    assert restore.entry.path == "/files/00000001"
    (located,) = store.finish_restore()
    assert located.path == "/files/00000001"
    # Its blob has it too.
    store.unpin(1, A)
    assert store.files == set() and store.deleted == []
    assert store.get(1, A) == []


def test_a_restore_that_finds_the_disk_full_can_be_tried_again() -> None:
    store = spilled_and_no_room_for_it()
    store.get(1, A)
    store.run(store.index.tick(GRACE_S))
    (located,) = store.finish_file("full", disk_full=True)
    assert located.error.kind is StoreErrorKind.OUT_OF_DISK
    store.get(1, A)
    store.finish_file()
    (located,) = store.finish_restore()
    assert not located.error


def test_an_object_freed_while_its_file_is_made_leaves_none() -> None:
    store = spilled_and_no_room_for_it()
    store.get(1, A)
    store.run(store.index.tick(GRACE_S))
    (located,) = store.free(1)
    assert located.error.kind is StoreErrorKind.OBJECT_LOST
    store.finish_file()
    assert store.files == set() and store.restores == []


def test_progress_of_others_extends_the_wait() -> None:
    store = Store(64)
    store.put(1, 30)
    store.put(2, 30)
    store.get(1, B)
    store.get(2, B)
    store.create(3, 30)
    store.create(4, 30)
    store.now = 9.0
    store.unpin(1, B)
    store.finish_spill()
    store.run(store.index.tick(GRACE_S))
    assert store.making == []
    store.run(store.index.tick(9.0 + GRACE_S))
    assert len(store.making) == 1


def test_spilling_that_fails_loses_nothing_and_is_tried_again() -> None:
    store = Store(64)
    store.put(1, 40)
    store.create(2, 40)
    assert store.finish_spill("unreachable") == []
    # It is tried again, after a pause.
    assert store.spills == [] and store.index.next_deadline() == RETRY_S
    store.now = RETRY_S
    store.run(store.index.tick(store.now))
    store.finish_spill("unreachable")
    store.now = GRACE_S
    store.run(store.index.tick(store.now))
    (created,) = store.finish_file("full", disk_full=True)
    assert created.error.kind is StoreErrorKind.OUT_OF_DISK and "unreachable" in created.error.text
    store.finish_spill("unreachable")
    (located,) = store.get(1)
    assert not located.error


def test_a_slow_spill_is_waited_for() -> None:
    store = Store(64)
    store.put(1, 40)
    store.create(2, 40)
    assert store.run(store.index.tick(5 * GRACE_S)) == []
    assert store.index.next_deadline() is None
    (created,) = store.finish_spill()
    assert not created.error and store.making == []


def test_a_blob_that_cannot_be_read_is_told_and_can_be_tried_again() -> None:
    store = Store(64)
    store.put(1, 40)
    store.create(2, 40)
    store.finish_spill()
    store.free(2)
    store.run(store.index.seal(A, oid(2), 0.0))
    store.get(1)
    (located,) = store.finish_restore(StoreError(StoreErrorKind.FETCH_TIMED_OUT, "x"))
    assert located.error == StoreError(StoreErrorKind.FETCH_TIMED_OUT, "x")
    assert store.used_kib == 0
    store.get(1)
    (located,) = store.finish_restore()
    assert not located.error


NUMBERS = st.integers(0, 7)
PEERS = st.sampled_from([A, B])


# --- pieces --------------------------------------------------------------------------------------------------------


def piece(store: Store, peer: bytes = A, kib: int = 4) -> frames.ObjectCreated:
    (answer,) = store.run(store.index.grant_piece(peer, 7, kib * 1024))
    return answer


def test_an_object_placed_in_a_piece_is_as_any_other() -> None:
    store = Store(64)
    offset = piece(store).offset
    assert store.run(store.index.place(A, oid(1), offset + 1024, 1024, B, store.now)) == []
    (located,) = store.get(1, B)
    assert (located.offset, located.size) == (offset + 1024, 1024)
    store.run(store.index.unpin(B, oid(1), store.now))
    store.free(1)
    store.run(store.index.give_back(A, offset, 1024, store.now))
    store.run(store.index.give_back(A, offset + 2048, 2048, store.now))
    assert store.index.allocator.used == 0
    assert store.index.holders == []


def test_what_is_placed_replaces_an_object_of_the_same_id() -> None:
    store = Store(64)
    store.put(1, 2)
    offset = piece(store).offset
    store.run(store.index.place(A, oid(1), offset, 1024, A, store.now))
    assert store.get(1)[0].offset == offset
    assert store.index.count == 1


@pytest.mark.parametrize(("peer", "offset", "size"), [(B, 0, 1024), (A, 3072, 2048), (A, 8192, 1024)])
def test_nobody_places_an_object_where_it_holds_no_piece(peer: bytes, offset: int, size: int) -> None:
    store = Store(64)
    begin = piece(store).offset
    with pytest.raises(ValueError, match="not the process's to use"):
        store.index.place(peer, oid(1), begin + offset, size, A, store.now)
    assert store.index.count == 0


def test_a_piece_is_granted_only_where_there_is_plenty() -> None:
    store = Store(128)
    assert piece(store, kib=16).error, "more than pieces may take together"
    assert not piece(store).error
    assert not piece(store, B).error
    assert piece(store).error
    store.run(store.index.peer_gone(B, store.now))
    assert not piece(store).error
    store = Store(128)
    store.put(1, 64)
    assert piece(store).error, "half of the arena is used"


def test_pieces_are_asked_back_once_when_others_need_room() -> None:
    store = Store(64)
    offset = piece(store).offset
    (asked,) = store.create(1, 62, B)
    assert asked == frames.ObjectUncache([])
    assert store.create(2, 62, B) == []
    assert piece(store).error, "others wait for room"
    (created,) = store.run(store.index.give_back(A, offset, 4096, store.now))
    assert (created.request, created.error) == (1, None)


def test_what_a_process_holds_goes_with_it_and_what_it_has_placed_stays() -> None:
    store = Store(64)
    store.run(store.index.place(A, oid(1), piece(store).offset, 1024, B, store.now))
    store.run(store.index.peer_gone(A, store.now))
    assert store.index.allocator.used == 1024
    assert not store.get(1, B)[0].error


class IndexMachine(RuleBasedStateMachine):
    """Random requests against a model: which bytes lie where, and what each object must contain."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(64)
        self.version = 0
        #: What is written at each place (a file or "", an offset), and in each blob: (object, version).
        self.bytes_at: dict[tuple[str, int], tuple[bytes, int]] = {}
        self.blobs: dict[str, list[tuple[bytes, int]]] = {}
        #: Version of each sealed object that is not freed.
        self.sealed: dict[bytes, int] = {}
        self.creating: dict[bytes, tuple[bytes, tuple[str, int], int]] = {}
        self.asked: dict[int, tuple[bytes, bytes, int]] = {}
        self.pins: list[tuple[bytes, bytes, tuple[str, int], int]] = []
        #: Of the arena: holder, offset, KiB.
        self.pieces: list[tuple[bytes, int, int]] = []

    def note(self, messages: list[Any]) -> None:
        """Messages as they come: creators write, readers check what they read."""
        for message in messages:
            if isinstance(message, frames.ObjectCreated):
                object_id, peer, _ = self.asked.pop(message.request)
                if message.error:
                    continue
                self.version += 1
                place = (message.path, message.offset)
                self.bytes_at[place] = (object_id, self.version)
                self.creating[object_id] = (peer, place, self.version)
            elif isinstance(message, frames.ObjectLocated):
                object_id, peer, _ = self.asked.pop(message.request)
                if message.error:
                    assert object_id not in self.sealed or message.error.kind is StoreErrorKind.OUT_OF_DISK
                    continue
                place = (message.path, message.offset)
                assert self.bytes_at[place] == (object_id, self.sealed[object_id])
                self.pins.append((peer, object_id, place, self.sealed[object_id]))

    def replaced(self, object_id: bytes) -> None:
        self.sealed.pop(object_id, None)
        self.creating.pop(object_id, None)

    @rule(number=NUMBERS, kib=st.sampled_from([*range(1, 41), 70]), peer=PEERS)
    def create(self, number: int, kib: int, peer: bytes) -> None:
        if oid(number) in self.creating or any(object_id == oid(number) for object_id, _, _ in self.asked.values()):
            return
        self.replaced(oid(number))
        self.asked[self.store.requests + 1] = (oid(number), peer, kib)
        self.note(self.store.create(number, kib, peer, peer))

    @rule(number=NUMBERS)
    def seal(self, number: int) -> None:
        if oid(number) in self.creating:
            peer, _, version = self.creating.pop(oid(number))
            self.sealed[oid(number)] = version
            self.note(self.store.run(self.store.index.seal(peer, oid(number), self.store.now)))

    @rule(number=NUMBERS)
    def abort(self, number: int) -> None:
        if oid(number) in self.creating:
            peer, _, _ = self.creating.pop(oid(number))
            self.note(self.store.run(self.store.index.abort(peer, oid(number), self.store.now)))

    @rule(peer=PEERS)
    def ask_for_a_piece(self, peer: bytes) -> None:
        (answer,) = self.store.run(self.store.index.grant_piece(peer, 0, 4 * 1024))
        if not answer.error:
            self.pieces.append((peer, answer.offset, 4))

    @rule(data=st.data(), number=NUMBERS, kib=st.integers(1, 4))
    def place(self, data: st.DataObject, number: int, kib: int) -> None:
        object_id = oid(number)
        if object_id in self.creating or any(asked == object_id for asked, _, _ in self.asked.values()):
            return
        fitting = [piece for piece in self.pieces if piece[2] >= kib]
        if not fitting:
            return
        peer, offset, size = piece = data.draw(st.sampled_from(fitting))
        self.pieces.remove(piece)
        skipped = data.draw(st.integers(0, size - kib))
        begin = offset + skipped * 1024
        self.pieces += [(peer, offset, skipped)] if skipped else []
        self.pieces += [(peer, begin + kib * 1024, size - skipped - kib)] if size - skipped - kib else []
        self.version += 1
        self.bytes_at["", begin] = (object_id, self.version)
        self.note(self.store.run(self.store.index.place(peer, object_id, begin, kib * 1024, peer, self.store.now)))
        self.sealed[object_id] = self.version

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if self.pieces:
            peer, offset, kib = piece = data.draw(st.sampled_from(self.pieces))
            self.pieces.remove(piece)
            self.note(self.store.run(self.store.index.give_back(peer, offset, kib * 1024, self.store.now)))

    @rule(number=NUMBERS, peer=PEERS)
    def get(self, number: int, peer: bytes) -> None:
        self.asked[self.store.requests + 1] = (oid(number), peer, 0)
        self.note(self.store.get(number, peer))

    @rule(number=NUMBERS, following=NUMBERS)
    def prefetch(self, number: int, following: int) -> None:
        self.note(self.store.prefetch(number, following))

    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        if self.pins:
            peer, object_id, _, _ = self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))
            self.note(self.store.run(self.store.index.unpin(peer, object_id, self.store.now)))

    @rule(number=NUMBERS)
    def free(self, number: int) -> None:
        if oid(number) in self.sealed:
            del self.sealed[oid(number)]
            self.note(self.store.free(number))

    @rule(fails=st.booleans())
    def finish_spill(self, fails: bool) -> None:
        if self.store.spills:
            spill = self.store.spills[0]
            contents = []
            for entry in spill.entries:
                assert entry.offset is not None
                assert not entry.path
                contents.append(self.bytes_at["", entry.offset])
            if not fails:
                self.blobs[spill.key] = contents
            self.note(self.store.finish_spill("unreachable" if fails else ""))

    @rule()
    def finish_restore(self) -> None:
        if self.store.restores:
            restore = self.store.restores[0]
            contents = [c for c in self.blobs[restore.key] if c[0] == restore.entry.object_id]
            assert restore.key not in self.store.deleted
            assert restore.entry.offset is not None
            self.bytes_at[restore.entry.path, restore.entry.offset] = contents[0]
            self.note(self.store.finish_restore())

    @rule(fails=st.booleans())
    def finish_file(self, fails: bool) -> None:
        if self.store.making:
            self.note(self.store.finish_file("full" if fails else "", disk_full=fails))

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    def pass_time(self, seconds: float) -> None:
        self.store.now += seconds
        self.note(self.store.run(self.store.index.tick(self.store.now)))

    @invariant()
    def pinned_bytes_are_not_touched(self) -> None:
        places = [(place, (object_id, version)) for _, object_id, place, version in self.pins]
        places += [(place, (object_id, version)) for object_id, (_, place, version) in self.creating.items()]
        for place, contents in places:
            assert self.bytes_at[place] == contents
            assert not place[0] or place[0] in self.store.files

    @invariant()
    def nothing_overlaps_and_nothing_leaks(self) -> None:
        index = self.store.index
        index.validate()
        assert all(index.find(object_id) is not None for object_id in self.sealed)
        entries = {*index._entries.values(), *index._room.pins.entries()}
        assert self.store.files == {entry.path for entry in entries if entry.path}


IndexMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_random_requests = IndexMachine.TestCase
