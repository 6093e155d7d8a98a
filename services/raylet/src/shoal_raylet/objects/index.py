"""The objects of one node: where each lies, who holds it, which go when room is needed. Pure.

An object is created (its creator writes it), then sealed (readable) and kept until its owner frees it or ends.
A *pin* keeps its bytes where they are; the creator holds one until it seals, and this module itself one while
the bytes are copied to or from a blob. A deleted object leaves the index at once, its bytes when the last pin goes.

When an allocation does not fit: memory whose object also lies in a blob is taken, then the objects used least
recently are spilled, fused into blobs, then processes are asked to drop what they only cache. Whoever needs room
waits in one queue, first come, first served. After a time without any progress, and at once for an object larger
than the arena, it gets a file of its own on disk, which processes map instead of the arena; only where that cannot be
made, an error. Such a file goes with its object; nothing moves from it into the arena or into a blob.

An object whose home is another node is fetched when it is asked for, or ahead of that. Its copy here is secondary: it
is dropped before anything is spilled. What is fetched ahead takes only room that nobody else waits for, and never that
of another that was fetched ahead and has not been read.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal_common.channel import frames
from shoal_raylet.actions import Send
from shoal_raylet.objects.allocator import Allocator
from shoal_raylet.objects.entry import (
    Blob,
    CancelFetch,
    CopyGone,
    DeleteBlob,
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
from shoal_raylet.objects.errors import StoreUse, get_timed_out, lost, no_room
from shoal_raylet.objects.idle import IdleObjects
from shoal_raylet.objects.room_queue import RoomQueue, Waiting
from shoal_raylet.objects.spills import MAX_SPILLS, Spills

#: What is asked for ahead beyond this many objects on the way is forgotten.
MAX_PREFETCHES = 1000
#: The raylet's own pins.
_SELF = b""


class ObjectIndex:
    def __init__(
        self, capacity: int, node_id: bytes, full_grace_s: float, fallback_dir: str, incarnation: int = 0
    ) -> None:
        """``capacity`` in bytes. ``full_grace_s``: how long to wait for room without any progress, in seconds;
        ``fallback_dir``: where the files lie for what finds none. Blobs of another ``incarnation`` may still exist."""
        self.allocator = Allocator(capacity)
        self._node_id = node_id
        self._entries: dict[bytes, Entry] = {}
        self._by_owner: dict[bytes, set[Entry]] = {}
        self._pinned_by: dict[bytes, set[Entry]] = {}
        #: Deleted, but their bytes are still pinned.
        self._dying: dict[bytes, list[Entry]] = {}
        self._idle = IdleObjects()
        self._queue = RoomQueue(full_grace_s, fallback_dir)
        #: Copies that are fetched ahead and wait for room, behind the queue.
        self._prefetches: dict[Entry, Waiting] = {}
        #: Copies that are being looked for or fetched although nobody waits for them yet.
        self._ahead: set[Entry] = set()
        #: The grace is over, and no arena memory has become free since: who finds no room need not wait for it again.
        self._stuck = False
        self._spills = Spills(self.allocator.capacity, node_id, incarnation)
        self.spilled_bytes = 0
        self.restored_bytes = 0

    @property
    def count(self) -> int:
        return len(self._entries)

    @property
    def spilled_jobs(self) -> set[bytes]:
        """Of which something was ever spilled."""
        return self._spills.jobs

    # --- requests of processes ---

    def create(
        self, peer: bytes, request: int, object_id: bytes, size: int, owner: bytes, now: float
    ) -> list[StoreAction]:
        """An object that exists already is replaced: a retried task writes its results again."""
        actions: list[StoreAction] = []
        existing = self._entries.get(object_id)
        if existing is not None:
            actions += self._delete(existing)
        waiting = Waiting(object_id, size, now, peer, request, owner)
        if Allocator.rounded(size) > self.allocator.capacity:
            return [*actions, self._queue.fall_back(waiting)]
        self._queue.add(waiting, now)
        return actions + self._serve(now)

    def seal(self, peer: bytes, object_id: bytes, now: float) -> list[StoreAction]:
        entry = self._entries.get(object_id)
        if entry is None or entry.creator != peer or entry.sealed:
            return self._end_creation_of_dying(peer, object_id, now)
        entry.sealed = True
        actions = self._answer_getters(entry)
        self._unpin(entry, peer, actions)
        return actions + self._serve(now) if self._queue or self._prefetches else actions

    def abort(self, peer: bytes, object_id: bytes, now: float) -> list[StoreAction]:
        entry = self._entries.get(object_id)
        if entry is None or entry.creator != peer or entry.sealed:
            return self._end_creation_of_dying(peer, object_id, now)
        actions = self._delete(entry)
        return actions + self._end_creation_of_dying(peer, object_id, now)

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
            entry.unread = False
            self._pin(entry, peer)
            return [Send(peer, frames.ObjectLocated(request, entry.offset, entry.size, path=entry.path))]
        entry.getters.append((peer, request))
        if entry in self._ahead:
            return self._hurry(entry, now)
        if not entry.sealed or entry.arriving:
            return []
        entry.arriving = True
        self._queue.add(Waiting(object_id, entry.size, now, entry=entry), now)
        return self._serve(now)

    def end_get(self, peer: bytes, request: int, object_id: bytes, problem: str) -> list[StoreAction]:
        """It waits no longer; what it waits for still comes here. ``problem``: what keeps it away, or ""."""
        entry = self._entries.get(object_id)
        if entry is None or (peer, request) not in entry.getters:
            return []  # the answer is on its way
        entry.getters.remove((peer, request))
        return [Send(peer, frames.ObjectLocated(request, 0, 0, get_timed_out(problem)))]

    def prefetch(self, objects: list[tuple[bytes, bytes]]) -> list[StoreAction]:
        """Objects with their homes, of which those that are not here are fetched ahead."""
        actions: list[StoreAction] = []
        for object_id, home in objects:
            if object_id in self._entries or home in (b"", self._node_id) or len(self._ahead) >= MAX_PREFETCHES:
                continue
            entry = self._expect(object_id, home)
            self._ahead.add(entry)
            actions.append(Locate(entry))
        return actions

    def unpin(self, peer: bytes, object_id: bytes, now: float) -> list[StoreAction]:
        """Unknown pins are ignored: the object's end may have crossed the message on the way."""
        for entry in self._candidates(object_id):
            if peer in entry.pins and (entry.sealed or entry.creator != peer):
                actions: list[StoreAction] = []
                self._unpin(entry, peer, actions)
                return actions + self._serve(now) if self._queue or self._prefetches else actions
        return []

    def pinned(self, peer: bytes, object_id: bytes) -> Entry | None:
        """The object that ``peer`` has pinned: it was told where it lies, or is writing it."""
        return next((entry for entry in self._candidates(object_id) if peer in entry.pins), None)

    def _candidates(self, object_id: bytes) -> list[Entry]:
        """The object of this id, and those before it of which bytes are still pinned."""
        entry = self._entries.get(object_id)
        return [*([entry] if entry is not None else []), *self._dying.get(object_id, ())]

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
            self._pin(entry, peer)
        return True

    def located(self, entry: Entry, size: int, owner: bytes, now: float) -> list[StoreAction]:
        """The copy can be had: it needs room now."""
        if entry.deleted:
            return []
        entry.size, entry.owner = size, owner
        self._by_owner.setdefault(owner, set()).add(entry)
        waiting = Waiting(entry.object_id, size, now, entry=entry)
        fits = Allocator.rounded(size) <= self.allocator.capacity
        if entry in self._ahead:
            if not fits:
                # It will become a file, which is not worth it before somebody waits for it.
                return self._delete(entry)
            self._prefetches[entry] = waiting
        elif fits:
            self._queue.add(waiting, now)
        else:
            return [self._queue.fall_back(waiting)]
        return self._serve(now)

    def fetched(self, entry: Entry, now: float) -> list[StoreAction]:
        """The copy is complete."""
        entry.arriving = False
        actions: list[StoreAction] = []
        if not entry.deleted:
            entry.sealed = True
            entry.unread = entry in self._ahead
            self._ahead.discard(entry)
            actions += self._answer_getters(entry)
        self._unpin(entry, _SELF, actions)
        return actions + self._serve(now)

    def not_fetched(self, entry: Entry, error: str, now: float) -> list[StoreAction]:
        """The copy could not be had, or is not wanted any more. ``error`` as in ``ObjectLocated``."""
        entry.arriving = False
        actions: list[StoreAction] = []
        if not entry.deleted:
            actions += self._fail_getters(entry, error)
            actions += self._delete(entry)
        if _SELF in entry.pins:
            self._unpin(entry, _SELF, actions)
        return actions + self._serve(now)

    def copies(self) -> list[Entry]:
        """Complete copies of objects whose home is another node."""
        return [entry for entry in self._entries.values() if entry.home and entry.sealed]

    def adopt(self, entry: Entry) -> None:
        """The home is gone, or going: the copy is the primary one now."""
        entry.home = b""
        entry.unread = False
        if entry in self._idle:
            self._idle.discard(entry)
            self._idle.add(entry)

    def only_here(self, ending_owners: set[bytes], ending_jobs: set[bytes]) -> list[Entry]:
        """Primary copies without a blob, but for those whose owner or job ends with this node."""
        return [
            entry
            for entry in self._entries.values()
            if entry.sealed
            and not entry.home
            and entry.blob is None
            and entry.owner not in ending_owners
            and entry.object_id[:4] not in ending_jobs
            and entry not in self._spills
        ]

    def shrunk(self, ending_owners: set[bytes], ending_jobs: set[bytes]) -> list[tuple[str, list[Entry]]]:
        """The blobs of which objects have been deleted, or end with this node, and what else is in them; not those of
        jobs that end."""
        blobs: dict[Blob, list[Entry]] = {}
        for entry in self._entries.values():
            if entry.blob is not None and entry.object_id[:4] not in ending_jobs:
                kept = blobs.setdefault(entry.blob, [])
                if entry.owner not in ending_owners:
                    kept.append(entry)
        return [(blob.key, kept) for blob, kept in blobs.items() if len(kept) < blob.written]

    def save(self, entries: list[Entry]) -> Spill:
        """Write the first of them, of one job, to a blob, in use or not. ``spilled`` answers."""
        job_id = entries[0].object_id[:4]
        return self._begin_spill(job_id, (entry for entry in entries if entry.object_id[:4] == job_id))

    # --- ends of processes and jobs ---

    def peer_gone(self, peer: bytes, now: float) -> list[StoreAction]:
        """Its pins end, and what it had not sealed is dropped."""
        actions: list[StoreAction] = []
        self._queue.forget_creator(peer)
        for entry in self._entries.values():
            if entry.getters:
                entry.getters = [getter for getter in entry.getters if getter[0] != peer]
        for entry in list(self._pinned_by.get(peer, ())):
            if not entry.sealed and not entry.deleted and entry.creator == peer:
                actions += self._delete(entry)
            while peer in entry.pins:
                self._unpin(entry, peer, actions)
        return actions + self._serve(now)

    def owner_gone(self, owner: bytes, now: float) -> list[StoreAction]:
        return self._delete_all(list(self._by_owner.get(owner, ())), now)

    def job_ended(self, job_id: bytes, surviving_owners: set[bytes], now: float) -> list[StoreAction]:
        """Delete the job's objects, but not those of its detached actors."""
        ended = [
            entry
            for entry in self._entries.values()
            if entry.object_id.startswith(job_id) and entry.owner not in surviving_owners
        ]
        return self._delete_all(ended, now)

    # --- results of I/O ---

    def spilled(self, key: str, error: str, now: float) -> list[StoreAction]:
        """A blob was written, or not (``error``)."""
        entries = self._spills.ended(key, error, now)
        actions: list[StoreAction] = []
        if not error:
            self._queue.progress(now)
            blob = Blob(key, len(entries))
            for entry in entries:
                if not entry.deleted:
                    entry.blob = blob
                    blob.live += 1
                    self.spilled_bytes += entry.size
            if not blob.live:
                actions.append(DeleteBlob(key))
        for entry in entries:
            self._unpin(entry, _SELF, actions)
        return actions + self._serve(now)

    def restored(self, entry: Entry, error: str, now: float) -> list[StoreAction]:
        """``error``: why its blob cannot be read, as ``ObjectLocated.error``."""
        entry.arriving = False
        actions: list[StoreAction] = []
        if error:
            actions += self._fail_getters(entry, error)
        else:
            self.restored_bytes += entry.size
            actions += self._answer_getters(entry)
        self._unpin(entry, _SELF, actions)
        if error and not entry.deleted and entry.offset is not None:
            # The bytes there are not the object's: only the blob is, if it can be read later.
            self._drop_bytes(entry, actions)
        return actions + self._serve(now)

    def file_made(self, path: str, error: str, disk_full: bool) -> list[StoreAction]:
        """A file was made, or not: ``error`` says why."""
        waiting = self._queue.file_made(path)
        if waiting is None:
            return [] if error else [RemoveFile(path)]
        if not error:
            return self._place(waiting, 0, path)
        text = no_room(waiting.size, self._use(), self._spills.error, error, disk_full)
        if waiting.entry is None:
            return [Send(waiting.peer, frames.ObjectCreated(waiting.request, 0, text))]
        actions = self._fail_getters(waiting.entry, text)
        if waiting.entry.home:
            return actions + self._delete(waiting.entry)
        waiting.entry.arriving = False
        return actions

    # --- time ---

    def tick(self, now: float) -> list[StoreAction]:
        """Try to spill again, and end the wait for arena memory when nothing has moved for too long."""
        actions = self._serve(now)
        if self._queue and not self._spills.promise_room and now >= self._queue.patience_ends:
            self._stuck = True
            actions += self._serve(now)
        return actions

    def next_deadline(self) -> float | None:
        deadlines = []
        if self._queue and not self._spills.promise_room:
            deadlines.append(self._queue.patience_ends)
        if self._queue and self._idle.spillable and (retry_at := self._spills.retry_at) is not None:
            deadlines.append(retry_at)
        return min(deadlines, default=None)

    # --- pins ---

    def _pin(self, entry: Entry, peer: bytes) -> None:
        entry.pins[peer] = entry.pins.get(peer, 0) + 1
        entry.uncache_sent = False
        self._pinned_by.setdefault(peer, set()).add(entry)
        self._idle.discard(entry)

    def _unpin(self, entry: Entry, peer: bytes, actions: list[StoreAction]) -> None:
        left = entry.pins[peer] - 1
        if left:
            entry.pins[peer] = left
            return
        del entry.pins[peer]
        holders = self._pinned_by[peer]
        holders.discard(entry)
        if not holders:
            del self._pinned_by[peer]
        if entry.pins:
            return
        if entry.deleted:
            dying = self._dying[entry.object_id]
            dying.remove(entry)
            if not dying:
                del self._dying[entry.object_id]
            self._release(entry, actions)
        elif entry.sealed and entry.offset is not None:
            if not entry.path:
                self._idle.add(entry)
            elif entry.blob is not None:
                # It lies on disk twice, and nobody reads it.
                self._drop_bytes(entry, actions)

    # --- life of an entry ---

    def _expect(self, object_id: bytes, home: bytes) -> Entry:
        entry = Entry(object_id, 0, b"", _SELF, None, home=home, arriving=True)
        self._entries[object_id] = entry
        return entry

    def _hurry(self, entry: Entry, now: float) -> list[StoreAction]:
        """Somebody waits for it now."""
        self._ahead.discard(entry)
        waiting = self._prefetches.pop(entry, None)
        if waiting is None:
            return [Hurry(entry)]
        waiting.since = now
        self._queue.add(waiting, now)
        return [Hurry(entry), *self._serve(now)]

    def _delete_all(self, entries: list[Entry], now: float) -> list[StoreAction]:
        actions: list[StoreAction] = []
        uncache: dict[bytes, list[bytes]] = {}
        for entry in entries:
            for peer in entry.pins:
                if peer != _SELF and (entry.sealed or peer != entry.creator):
                    uncache.setdefault(peer, []).append(entry.object_id)
            actions += self._delete(entry)
        actions += [Send(peer, frames.ObjectUncache(object_ids)) for peer, object_ids in uncache.items()]
        return actions + self._serve(now) if self._queue or self._prefetches else actions

    def _delete(self, entry: Entry) -> list[StoreAction]:
        del self._entries[entry.object_id]
        owned = self._by_owner.get(entry.owner)
        if owned is not None:
            owned.discard(entry)
            if not owned:
                del self._by_owner[entry.owner]
        entry.deleted = True
        self._ahead.discard(entry)
        actions = self._fail_getters(entry, lost())
        if not entry.home:
            actions.append(Deleted(entry.object_id))
        if entry.arriving:
            self._queue.forget(entry)
            self._prefetches.pop(entry, None)
            if entry.home:
                actions.append(CancelFetch(entry))
        if entry.pins:
            self._dying.setdefault(entry.object_id, []).append(entry)
        else:
            self._release(entry, actions)
        return actions

    def _release(self, entry: Entry, actions: list[StoreAction]) -> None:
        if entry.offset is not None:
            self._drop_bytes(entry, actions)
        blob, entry.blob = entry.blob, None
        if blob is not None:
            blob.live -= 1
            self.spilled_bytes -= entry.size
            if not blob.live:
                actions.append(DeleteBlob(blob.key))

    def _drop_bytes(self, entry: Entry, actions: list[StoreAction]) -> None:
        """Its blob may still hold it."""
        assert entry.offset is not None
        if entry.path:
            actions.append(RemoveFile(entry.path))
            entry.path = ""
        else:
            self._idle.discard(entry)
            self.allocator.free(entry.offset, entry.size)
            self._stuck = False
        entry.offset = None

    def _end_creation_of_dying(self, peer: bytes, object_id: bytes, now: float) -> list[StoreAction]:
        """The creator has finished with an object that was deleted meanwhile."""
        actions: list[StoreAction] = []
        for entry in list(self._dying.get(object_id, ())):
            if entry.creator == peer and not entry.sealed and peer in entry.pins:
                entry.sealed = True
                self._unpin(entry, peer, actions)
        return actions + self._serve(now) if self._queue or self._prefetches else actions

    def _answer_getters(self, entry: Entry) -> list[StoreAction]:
        assert entry.offset is not None
        getters, entry.getters = entry.getters, []
        actions: list[StoreAction] = []
        for peer, request in getters:
            self._pin(entry, peer)
            actions.append(Send(peer, frames.ObjectLocated(request, entry.offset, entry.size, path=entry.path)))
        return actions

    def _fail_getters(self, entry: Entry, error: str) -> list[StoreAction]:
        getters, entry.getters = entry.getters, []
        return [Send(peer, frames.ObjectLocated(request, 0, 0, error)) for peer, request in getters]

    # --- room ---

    def _serve(self, now: float) -> list[StoreAction]:
        """Place what waits, in order; make room for the first that does not fit."""
        actions: list[StoreAction] = []
        while self._queue:
            waiting = self._queue.first
            offset = self._allocate(waiting.size, actions)
            if offset is None:
                actions += self._make_room(now)
                if not self._stuck or self._spills.promise_room:
                    break
                actions.append(self._queue.fall_back(self._queue.pop()))
                continue
            self._queue.pop()
            self._queue.progress(now)
            actions += self._place(waiting, offset, "")
        if not self._queue:
            for entry, waiting in list(self._prefetches.items()):
                offset = self._allocate(waiting.size, actions, for_prefetch=True)
                if offset is None:
                    break
                del self._prefetches[entry]
                actions += self._place(waiting, offset, "")
        return actions

    def _allocate(self, size: int, actions: list[StoreAction], *, for_prefetch: bool = False) -> int | None:
        """Drops what is elsewhere too until there is room."""
        offset = self.allocator.allocate(size)
        while offset is None:
            entry = self._idle.evictable(for_prefetch=for_prefetch)
            if entry is None:
                return None
            if entry.home:
                actions.append(CopyGone(entry.home, entry.object_id))
                actions += self._delete(entry)
            else:
                self._drop_bytes(entry, actions)
            offset = self.allocator.allocate(size)
        return offset

    def _place(self, waiting: Waiting, offset: int, path: str) -> list[StoreAction]:
        if waiting.entry is not None:
            entry = waiting.entry
            entry.offset, entry.path = offset, path
            self._pin(entry, _SELF)
            return [Restore(entry, entry.blob.key)] if entry.blob is not None else [Fetch(entry)]
        actions: list[StoreAction] = []
        existing = self._entries.get(waiting.object_id)
        if existing is not None:
            actions += self._delete(existing)
        entry = Entry(waiting.object_id, waiting.size, waiting.owner, waiting.peer, offset, path)
        self._entries[waiting.object_id] = entry
        self._by_owner.setdefault(waiting.owner, set()).add(entry)
        self._pin(entry, waiting.peer)
        actions.append(Send(waiting.peer, frames.ObjectCreated(waiting.request, offset, path=path)))
        return actions

    def _make_room(self, now: float) -> list[StoreAction]:
        actions: list[StoreAction] = []
        needed = self._queue.size
        coming = self.allocator.capacity - self.allocator.used + self._spills.size
        if self._spills.may_begin(now):
            # With nothing under way, free bytes that suffice in sum lie scattered: spill on until the first fits.
            while self._idle.spillable and (not self._spills or (coming < needed and len(self._spills) < MAX_SPILLS)):
                spill = self._next_spill()
                coming += sum(entry.size for entry in spill.entries)
                actions.append(spill)
        if not self._idle.spillable and not self._spills:
            actions += self._ask_to_uncache()
        return actions

    def _next_spill(self) -> Spill:
        """The objects of one job that were used least recently."""
        job_id = next(iter(self._idle.spillable)).object_id[:4]
        return self._begin_spill(job_id, (e for e in self._idle.spillable if e.object_id[:4] == job_id))

    def _begin_spill(self, job_id: bytes, entries: Iterable[Entry]) -> Spill:
        """As many of them as one blob takes."""
        spill = self._spills.begin(job_id, entries)
        offset = 0
        for entry in spill.entries:
            self._pin(entry, _SELF)
            entry.blob_offset = offset
            offset += entry.size
        return spill

    def _ask_to_uncache(self) -> list[StoreAction]:
        asked: dict[bytes, list[bytes]] = {}
        for entry in self._entries.values():
            if entry.sealed and entry.pins and not entry.path and not entry.uncache_sent:
                entry.uncache_sent = True
                for peer in entry.pins:
                    if peer != _SELF:
                        asked.setdefault(peer, []).append(entry.object_id)
        return [Send(peer, frames.ObjectUncache(object_ids)) for peer, object_ids in asked.items()]

    def _use(self) -> StoreUse:
        pinned = sum(entry.size for entry in self._entries.values() if entry.pins and not entry.path)
        pinned += sum(entry.size for entries in self._dying.values() for entry in entries if not entry.path)
        return StoreUse(self.allocator.capacity, self.allocator.used, pinned)
