"""The objects of one node: which there are, whose they are, who waits for them. Pure.

An object is created (its creator writes it), then sealed (readable) and kept until its owner frees it or ends.
A *pin* keeps its bytes where they are; the creator holds one until it seals, and the raylet itself one while
the bytes are copied to or from a blob. A deleted object leaves the index at once, its bytes when the last pin goes.
Where bytes lie, and what happens when there is no room for them, is ``room``'s.

An object whose home is another node is fetched when it is asked for, or ahead of that. Its copy here is secondary: it
is dropped before anything is spilled. What is fetched ahead takes only room that nobody else waits for, and never that
of another that was fetched ahead and has not been read.
"""

from __future__ import annotations

from itertools import islice

from shoal_common.channel import frames
from shoal_common.service.story import Story, explained, noted
from shoal_raylet.actions import Send
from shoal_raylet.objects.allocator import Allocator
from shoal_raylet.objects.entry import (
    CancelFetch,
    Changed,
    CopyGone,
    Deleted,
    Entry,
    Fetch,
    Hurry,
    Locate,
    RemoveFile,
    Restore,
    Spill,
    StoreAction,
)
from shoal_raylet.objects.errors import get_timed_out, lost, not_ahead
from shoal_raylet.objects.leaving import Ending, only_here, shrunk
from shoal_raylet.objects.pins import SELF, ask_to_uncache
from shoal_raylet.objects.room import Room
from shoal_raylet.objects.room_queue import Waiting
from shoal_raylet.objects.spills import Spills

#: What is asked for ahead beyond this many objects on the way is forgotten.
MAX_PREFETCHES = 1000


class ObjectIndex:
    def __init__(
        self, capacity: int, node_id: bytes, full_grace_s: float, fallback_dir: str, incarnation: int = 0
    ) -> None:
        """``capacity`` in bytes. ``full_grace_s``: how long to wait for room without any progress, in seconds;
        ``fallback_dir``: where the files lie for what finds none. Blobs of another ``incarnation`` may still exist."""
        self._story = Story("the object index")
        self.allocator = Allocator(capacity)
        spills = Spills(capacity, node_id, incarnation)
        self._room = Room(self.allocator, spills, full_grace_s, fallback_dir, self._place, self._evict)
        self._node_id = node_id
        self._entries: dict[bytes, Entry] = {}
        self._by_owner: dict[bytes, set[Entry]] = {}
        #: What is being looked for, fetched or restored although nobody waits for it yet.
        self._ahead: set[Entry] = set()
        self.restored_bytes = 0

    @property
    def count(self) -> int:
        return len(self._entries)

    def newest(self, limit: int) -> list[Entry]:
        """The objects there are, the one created last first; ``limit`` of them at most."""
        return list(islice(reversed(self._entries.values()), limit))

    @property
    def spilled_bytes(self) -> int:
        return self._room.spilled_bytes

    @property
    def spilled_jobs(self) -> set[bytes]:
        """Of which something was ever spilled."""
        return self._room.spills.jobs

    # --- requests of processes ---

    @noted
    def create(
        self, peer: bytes, request: int, object_id: bytes, size: int, owner: bytes, now: float
    ) -> list[StoreAction]:
        """An object that exists already is replaced: a retried task writes its results again."""
        actions: list[StoreAction] = []
        existing = self._entries.get(object_id)
        if existing is not None:
            actions += self._delete(existing)
        waiting = Waiting(object_id, size, now, peer, request, owner)
        return actions + self._room.wait(waiting, now)

    @noted
    def seal(self, peer: bytes, object_id: bytes, now: float) -> list[StoreAction]:
        entry = self._entries.get(object_id)
        if entry is None or entry.creator != peer or entry.sealed:
            return self._end_creation_of_dying(peer, object_id, now)
        entry.sealed = True
        actions = [Changed(object_id), *self._answer_getters(entry)]
        self._room.unpin(entry, peer, actions)
        return actions + self._room.serve(now)

    @noted
    def grant_piece(self, peer: bytes, request: int, size: int) -> list[StoreAction]:
        """A piece of the arena for objects to come, at once or not at all."""
        offset = self._room.grant_piece(peer, size) if size else None
        if offset is None:
            return [Send(peer, frames.ObjectCreated(request, 0, not_ahead()))]
        return [Send(peer, frames.ObjectCreated(request, offset))]

    @noted
    def place(
        self, peer: bytes, object_id: bytes, offset: int, size: int, owner: bytes, now: float
    ) -> list[StoreAction]:
        """An object has been written in a piece of the peer's: as ``create`` and ``seal``.

        Raises: ValueError when the piece is not the peer's.
        """
        entry = Entry(object_id, size, owner, peer, offset, sealed=True)
        self._room.placed(entry)
        existing = self._entries.get(object_id)
        actions = self._delete(existing) if existing is not None else []
        self._entries[object_id] = entry
        self._by_owner.setdefault(owner, set()).add(entry)
        return [*actions, Changed(object_id), *self._room.serve(now)]

    @noted
    def give_back(self, peer: bytes, offset: int, size: int, now: float) -> list[StoreAction]:
        """Bytes of a piece that the peer does not need. Raises: ValueError when they are not the peer's."""
        return self._room.give_back(peer, offset, size, now)

    @property
    def holders(self) -> list[bytes]:
        """Of pieces: they may have placed objects of which this node has not heard yet."""
        return self._room.pieces.holders

    @noted
    def abort(self, peer: bytes, object_id: bytes, now: float) -> list[StoreAction]:
        entry = self._entries.get(object_id)
        if entry is None or entry.creator != peer or entry.sealed:
            return self._end_creation_of_dying(peer, object_id, now)
        actions = self._delete(entry)
        return actions + self._end_creation_of_dying(peer, object_id, now)

    @noted
    def get(self, peer: bytes, request: int, object_id: bytes, home: bytes, now: float) -> list[StoreAction]:
        """``home``: the node that has the primary copy; empty = this one."""
        entry = self._entries.get(object_id)
        if entry is None:
            if not home or home == self._node_id:
                return [Send(peer, frames.ObjectLocated(request, 0, 0, lost()))]
            entry = self._expect(object_id, home)
            entry.getters.append((peer, request))
            return [Locate(entry)]
        if entry.sealed and entry.offset is not None and not entry.arriving:
            was_ahead, entry.unread = entry.unread, False
            self._room.pin(entry, peer)
            located = Send(peer, frames.ObjectLocated(request, entry.offset, entry.size, path=entry.path))
            return [located, *self._read_on(entry, now)] if was_ahead else [located]
        entry.getters.append((peer, request))
        if entry in self._ahead:
            return self._hurry(entry, now) + self._read_on(entry, now)
        if not entry.sealed or entry.arriving:
            return []
        entry.arriving = True
        return self._room.wait(Waiting(object_id, entry.size, now, entry=entry), now) + self._read_on(entry, now)

    @noted
    def end_get(self, peer: bytes, request: int, object_id: bytes, problem: str) -> list[StoreAction]:
        """It waits no longer; what it waits for still comes here. ``problem``: what keeps it away, or ""."""
        entry = self._entries.get(object_id)
        if entry is None or (peer, request) not in entry.getters:
            return []  # the answer is on its way
        entry.getters.remove((peer, request))
        return [Send(peer, frames.ObjectLocated(request, 0, 0, get_timed_out(problem)))]

    @noted
    def prefetch(self, objects: list[tuple[bytes, bytes]], now: float) -> list[StoreAction]:
        """Objects with their homes: those that are not here are fetched ahead, and spilled ones restored."""
        actions: list[StoreAction] = []
        for object_id, home in objects:
            entry = self._entries.get(object_id)
            if entry is not None:
                actions += self._restore_ahead(entry, now)
            elif home not in (b"", self._node_id) and len(self._ahead) < MAX_PREFETCHES:
                entry = self._expect(object_id, home)
                self._ahead.add(entry)
                actions.append(Locate(entry))
        return actions

    @noted
    def unpin(self, peer: bytes, object_id: bytes, now: float) -> list[StoreAction]:
        """Unknown pins are ignored: the object's end may have crossed the message on the way."""
        for entry in self._candidates(object_id):
            if peer in entry.pins and (entry.sealed or entry.creator != peer):
                actions: list[StoreAction] = []
                self._room.unpin(entry, peer, actions)
                return actions + self._room.serve(now)
        return []

    def pinned(self, peer: bytes, object_id: bytes) -> Entry | None:
        """The object that ``peer`` has pinned: it was told where it lies, or is writing it."""
        return next((entry for entry in self._candidates(object_id) if peer in entry.pins), None)

    def _candidates(self, object_id: bytes) -> list[Entry]:
        """The object of this id, and those before it of which bytes are still pinned."""
        entry = self._entries.get(object_id)
        return [*([entry] if entry is not None else []), *self._room.pins.dying(object_id)]

    @noted
    def free(self, object_ids: list[bytes], now: float) -> list[StoreAction]:
        return self._delete_all([e for e in map(self._entries.get, object_ids) if e is not None], now)

    # --- other nodes ---

    def find(self, object_id: bytes) -> Entry | None:
        return self._entries.get(object_id)

    def is_awaited(self, entry: Entry) -> bool:
        """Somebody waits for it: it is not only fetched ahead."""
        return entry not in self._ahead

    def pin_for_upload(self, peer: bytes, entry: Entry) -> bool:
        """Hold its bytes for a node that reads them, once a node however often it asks; False = they are not here."""
        if entry.offset is None or (entry.arriving and entry.sealed) or not (entry.sealed or entry.home):
            return False
        if peer not in entry.pins:
            self._room.pin(entry, peer)
        return True

    @noted
    def located(self, entry: Entry, size: int, owner: bytes, now: float) -> list[StoreAction]:
        """The copy can be had: it needs room now."""
        if entry.deleted:
            return []
        entry.size, entry.owner = size, owner
        self._by_owner.setdefault(owner, set()).add(entry)
        waiting = Waiting(entry.object_id, size, now, entry=entry)
        if entry not in self._ahead:
            return self._room.wait(waiting, now)
        if not self._room.fits(size):
            # It will become a file, which is not worth it before somebody waits for it.
            return self._delete(entry)
        return self._room.wait_ahead(entry, waiting, now)

    @noted
    def fetched(self, entry: Entry, home: bytes, now: float) -> list[StoreAction]:
        """The copy is complete. ``home``: where it was found in the end."""
        entry.home = home
        entry.arriving = False
        actions: list[StoreAction] = [Changed(entry.object_id)]
        if not entry.deleted:
            entry.sealed = True
            entry.unread = entry in self._ahead
            self._ahead.discard(entry)
            actions += self._answer_getters(entry)
        self._room.unpin(entry, SELF, actions)
        return actions + self._room.serve(now)

    @noted
    def not_fetched(self, entry: Entry, error: frames.StoreError, now: float) -> list[StoreAction]:
        """The copy could not be had, or is not wanted any more. ``error`` as in ``ObjectLocated``."""
        entry.arriving = False
        actions: list[StoreAction] = [Changed(entry.object_id)]
        if not entry.deleted:
            actions += self._fail_getters(entry, error)
            actions += self._delete(entry)
        if SELF in entry.pins:
            self._room.unpin(entry, SELF, actions)
        return actions + self._room.serve(now)

    def copies(self) -> list[Entry]:
        """Complete copies of objects whose home is another node."""
        return [entry for entry in self._entries.values() if entry.home and entry.sealed]

    @noted
    def adopt(self, entry: Entry) -> None:
        """The home is gone, or going: the copy is the primary one now."""
        entry.adopted_from, entry.home = entry.home or entry.adopted_from, b""
        entry.unread = False
        self._room.adopted(entry)

    def only_here(self, ending: Ending) -> list[Entry]:
        """Primary copies that others may need when this node is gone, and that are not on their way into a blob."""
        return [entry for entry in only_here(self._entries.values(), ending) if entry not in self._room.spills]

    def shrunk(self, ending: Ending) -> list[tuple[str, list[Entry]]]:
        return shrunk(self._entries.values(), ending)

    def save(self, entries: list[Entry]) -> Spill:
        """Write the first of them, of one job, to a blob, in use or not. ``spilled`` answers."""
        job_id = entries[0].job_id
        return self._room.spill(job_id, (entry for entry in entries if entry.job_id == job_id))

    # --- ends of processes and jobs ---

    @noted
    def peer_gone(self, peer: bytes, now: float) -> list[StoreAction]:
        """Its pins end, and what it had not sealed is dropped."""
        actions: list[StoreAction] = []
        self._room.forget_creator(peer)
        self._room.holder_gone(peer)
        for entry in self._entries.values():
            if entry.getters:
                entry.getters = [getter for getter in entry.getters if getter[0] != peer]
        for entry in self._room.pins.of(peer):
            if not entry.sealed and not entry.deleted and entry.creator == peer:
                actions += self._delete(entry)
            while peer in entry.pins:
                self._room.unpin(entry, peer, actions)
        return actions + self._room.serve(now)

    @noted
    def owner_gone(self, owner: bytes, now: float) -> list[StoreAction]:
        return self._delete_all(list(self._by_owner.get(owner, ())), now)

    @noted
    def job_ended(self, job_id: bytes, surviving_owners: set[bytes], now: float) -> list[StoreAction]:
        """Delete the job's objects, but not those of its detached actors."""
        ended = [
            entry for entry in self._entries.values() if entry.job_id == job_id and entry.owner not in surviving_owners
        ]
        return self._delete_all(ended, now)

    # --- results of I/O ---

    @noted
    def spilled(self, key: str, error: str, now: float) -> list[StoreAction]:
        """A blob was written, or not (``error``)."""
        return self._room.spilled(key, error, now)

    @noted
    def restored(self, entry: Entry, error: frames.StoreError | None, now: float) -> list[StoreAction]:
        """``error``: why its blob cannot be read, as ``ObjectLocated.error``."""
        entry.arriving = False
        entry.unread = entry in self._ahead and not error
        self._ahead.discard(entry)
        actions: list[StoreAction] = []
        if error:
            actions += self._fail_getters(entry, error)
        else:
            self.restored_bytes += entry.size
            actions += self._answer_getters(entry)
        self._room.unpin(entry, SELF, actions)
        if error and not entry.deleted and entry.offset is not None:
            # The bytes there are not the object's: only the blob is, if it can be read later.
            self._room.drop_bytes(entry, actions)
        return actions + self._room.serve(now)

    @noted
    def file_made(self, path: str, error: str, disk_full: bool) -> list[StoreAction]:
        """A file was made, or not: ``error`` says why."""
        waiting = self._room.file_made(path)
        if waiting is None:
            return [] if error else [RemoveFile(path)]
        if not error:
            return self._place(waiting, 0, path)
        refusal = self._room.why_none(waiting.size, error, disk_full)
        if waiting.entry is None:
            return [Send(waiting.peer, frames.ObjectCreated(waiting.request, 0, refusal))]
        actions = self._fail_getters(waiting.entry, refusal)
        if waiting.entry.home:
            return actions + self._delete(waiting.entry)
        waiting.entry.arriving = False
        return actions

    # --- time ---

    @explained
    def tick(self, now: float) -> list[StoreAction]:
        return self._room.tick(now)

    def next_deadline(self) -> float | None:
        return self._room.next_deadline()

    # --- life of an entry ---

    def _expect(self, object_id: bytes, home: bytes) -> Entry:
        entry = Entry(object_id, 0, b"", SELF, None, home=home, arriving=True)
        self._entries[object_id] = entry
        return entry

    def _hurry(self, entry: Entry, now: float) -> list[StoreAction]:
        """Somebody waits for it now."""
        self._ahead.discard(entry)
        hurry: list[StoreAction] = [Hurry(entry)] if entry.home else []
        return hurry + self._room.hurry(entry, now)

    def _restore_ahead(self, entry: Entry, now: float) -> list[StoreAction]:
        """If only its blob holds it, and nobody has asked for it yet."""
        if entry.blob is None or entry.offset is not None or entry.arriving or len(self._ahead) >= MAX_PREFETCHES:
            return []
        if not self._room.fits(entry.size):
            return []  # it would become a file, which is not worth it before somebody waits for it
        entry.arriving = True
        self._ahead.add(entry)
        return self._room.wait_ahead(entry, Waiting(entry.object_id, entry.size, now, entry=entry), now)

    def _read_on(self, entry: Entry, now: float) -> list[StoreAction]:
        """A spilled object is read: what is probably next is restored ahead."""
        following = self._room.spilled_order.after(entry)
        return [action for entry in following for action in self._restore_ahead(entry, now)]

    def _delete_all(self, entries: list[Entry], now: float) -> list[StoreAction]:
        actions: list[StoreAction] = []
        readers: list[tuple[bytes, bytes]] = []
        for entry in entries:
            readers += [(peer, entry.object_id) for peer in entry.pins if entry.sealed or peer != entry.creator]
            actions += self._delete(entry)
        actions += ask_to_uncache(readers)
        return actions + self._room.serve(now)

    def _delete(self, entry: Entry) -> list[StoreAction]:
        del self._entries[entry.object_id]
        owned = self._by_owner.get(entry.owner)
        if owned is not None:
            owned.discard(entry)
            if not owned:
                del self._by_owner[entry.owner]
        entry.deleted = True
        self._ahead.discard(entry)
        actions = [Changed(entry.object_id), *self._fail_getters(entry, lost())]
        if not entry.home:
            actions.append(Deleted(entry.object_id))
        if entry.arriving:
            self._room.forget(entry)
            if entry.home:
                actions.append(CancelFetch(entry))
        self._room.deleted(entry, actions)
        return actions

    def _evict(self, entry: Entry) -> list[StoreAction]:
        """A copy whose bytes others need, and which its home still has."""
        return [CopyGone(entry.home, entry.object_id), *self._delete(entry)]

    def _end_creation_of_dying(self, peer: bytes, object_id: bytes, now: float) -> list[StoreAction]:
        """The creator has finished with an object that was deleted meanwhile."""
        actions: list[StoreAction] = []
        for entry in self._room.pins.dying(object_id):
            if entry.creator == peer and not entry.sealed and peer in entry.pins:
                entry.sealed = True
                self._room.unpin(entry, peer, actions)
        return actions + self._room.serve(now)

    def _answer_getters(self, entry: Entry) -> list[StoreAction]:
        assert entry.offset is not None
        getters, entry.getters = entry.getters, []
        actions: list[StoreAction] = []
        for peer, request in getters:
            self._room.pin(entry, peer)
            actions.append(Send(peer, frames.ObjectLocated(request, entry.offset, entry.size, path=entry.path)))
        return actions

    def _fail_getters(self, entry: Entry, error: frames.StoreError) -> list[StoreAction]:
        getters, entry.getters = entry.getters, []
        return [Send(peer, frames.ObjectLocated(request, 0, 0, error)) for peer, request in getters]

    def _place(self, waiting: Waiting, offset: int, path: str) -> list[StoreAction]:
        if waiting.entry is not None:
            entry = waiting.entry
            entry.offset, entry.path = offset, path
            self._room.pin(entry, SELF)
            return [Restore(entry, entry.blob.key)] if entry.blob is not None else [Fetch(entry)]
        actions: list[StoreAction] = []
        existing = self._entries.get(waiting.object_id)
        if existing is not None:
            actions += self._delete(existing)
        entry = Entry(waiting.object_id, waiting.size, waiting.owner, waiting.peer, offset, path)
        self._entries[waiting.object_id] = entry
        self._by_owner.setdefault(waiting.owner, set()).add(entry)
        self._room.pin(entry, waiting.peer)
        actions.append(Send(waiting.peer, frames.ObjectCreated(waiting.request, offset, path=path)))
        return actions

    # --- for tests ---

    def validate(self) -> None:
        """Asserts what is true between any two events."""
        self._room.validate(self._entries.values())
        for object_id, entry in self._entries.items():
            assert entry.object_id == object_id and not entry.deleted
            readable = entry.sealed and entry.offset is not None and not entry.arriving
            assert not (entry.getters and readable), f"{entry} is here, and somebody waits for it"
            lies_somewhere = entry.offset is not None or entry.blob is not None
            assert lies_somewhere or (entry.arriving and entry.home), f"{entry} is nowhere"
        owned = [(owner, entry) for owner, entries in self._by_owner.items() for entry in entries]
        assert all(entry.owner == owner and self._entries[entry.object_id] is entry for owner, entry in owned)
        unlocated = [entry for entry in self._entries.values() if entry not in self._by_owner.get(entry.owner, ())]
        assert all(entry.arriving and entry.home for entry in unlocated), "an object without an owner"
        assert all(entry.arriving and not entry.deleted and not entry.getters for entry in self._ahead)
        assert all(entry.home and not entry.sealed for entry in self._ahead if entry.blob is None)
