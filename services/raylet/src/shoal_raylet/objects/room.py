"""The bytes of a node's objects: where they are, what goes when room is needed, and who gets it. Pure.

When an allocation does not fit: memory whose object also lies elsewhere is taken, then the objects used least recently
are spilled, fused into blobs, then processes are asked to drop what they only cache. Whoever needs room waits in one
queue, first come, first served; what is fetched ahead waits behind it. After a time without any progress, and at once
for an object larger than the arena, it gets a file of its own on disk, which processes map instead of the arena. Such a
file goes with its object; nothing moves from it into the arena or into a blob.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from shoal_common.channel import frames
from shoal_common.channel.frames import StoreError
from shoal_raylet.actions import Send
from shoal_raylet.objects.allocator import Allocator
from shoal_raylet.objects.entry import Blob, DeleteBlob, Entry, RemoveFile, Spill, StoreAction
from shoal_raylet.objects.errors import StoreUse, no_room
from shoal_raylet.objects.idle import IdleObjects
from shoal_raylet.objects.pins import SELF, Pins, ask_to_uncache
from shoal_raylet.objects.read_ahead import SpilledOrder
from shoal_raylet.objects.room_ahead import RoomAhead
from shoal_raylet.objects.room_queue import RoomQueue, Waiting
from shoal_raylet.objects.spills import MAX_SPILLS, Spills


class Room:
    """``place(waiting, offset, path)`` and ``evict(copy)`` are the index's, and answer with what is to be done then."""

    def __init__(
        self,
        allocator: Allocator,
        spills: Spills,
        full_grace_s: float,
        fallback_dir: str,
        place: Callable[[Waiting, int, str], list[StoreAction]],
        evict: Callable[[Entry], list[StoreAction]],
    ) -> None:
        self.allocator = allocator
        self.spills = spills
        self.pins = Pins()
        self.pieces = RoomAhead(allocator)
        self.spilled_bytes = 0
        self.spilled_order = SpilledOrder()
        self._place = place
        self._evict = evict
        self._idle = IdleObjects()
        self._queue = RoomQueue(full_grace_s, fallback_dir)
        #: What is fetched or restored ahead and waits for room, behind the queue.
        self._ahead: dict[Entry, Waiting] = {}
        #: The grace is over, and no arena memory has become free since: who finds no room need not wait for it again.
        self._stuck = False

    # --- who needs room ---

    def fits(self, size: int) -> bool:
        """The arena is large enough for it."""
        return Allocator.rounded(size) <= self.allocator.capacity

    def wait(self, waiting: Waiting, now: float) -> list[StoreAction]:
        if not self.fits(waiting.size):
            return [self._queue.fall_back(waiting)]
        self._queue.add(waiting, now)
        return self.serve(now)

    def wait_ahead(self, entry: Entry, waiting: Waiting, now: float) -> list[StoreAction]:
        self._ahead[entry] = waiting
        return self.serve(now)

    def hurry(self, entry: Entry, now: float) -> list[StoreAction]:
        """What waits for room ahead, if it does, waits in the queue from now on."""
        waiting = self._ahead.pop(entry, None)
        if waiting is None:
            return []
        waiting.since = now
        return self.wait(waiting, now)

    def forget(self, entry: Entry) -> None:
        """It needs no room any more."""
        self._queue.forget(entry)
        self._ahead.pop(entry, None)

    def forget_creator(self, peer: bytes) -> None:
        self._queue.forget_creator(peer)

    def serve(self, now: float) -> list[StoreAction]:
        """Place what waits, in order; make room for the first that does not fit."""
        if not self._ahead and not self._queue:
            return []
        actions: list[StoreAction] = []
        while self._queue:
            waiting = self._queue.first
            offset = self._allocate(waiting.size, actions)
            if offset is None:
                actions += self._make_room(now)
                if not self._stuck or self.spills.promise_room:
                    break
                actions.append(self._queue.fall_back(self._queue.pop()))
                continue
            self._queue.pop()
            self._queue.progress(now)
            actions += self._place(waiting, offset, "")
        if not self._queue:
            for entry, waiting in list(self._ahead.items()):
                offset = self._allocate(waiting.size, actions, for_prefetch=True)
                if offset is None:
                    break
                del self._ahead[entry]
                actions += self._place(waiting, offset, "")
        return actions

    def tick(self, now: float) -> list[StoreAction]:
        """Try to spill again, and end the wait for arena memory when nothing has moved for too long."""
        actions = self.serve(now)
        if self._queue and not self.spills.promise_room and now >= self._queue.patience_ends:
            self._stuck = True
            actions += self.serve(now)
        return actions

    def next_deadline(self) -> float | None:
        deadlines = []
        if self._queue and not self.spills.promise_room:
            deadlines.append(self._queue.patience_ends)
        if self._queue and self._idle.spillable and (retry_at := self.spills.retry_at) is not None:
            deadlines.append(retry_at)
        return min(deadlines, default=None)

    # --- pieces, for objects to come ---

    def grant_piece(self, peer: bytes, size: int) -> int | None:
        """Where it begins; None = others wait for room, or there is not plenty."""
        return None if self._queue or self._ahead else self.pieces.grant(peer, size)

    def give_back(self, peer: bytes, offset: int, size: int, now: float) -> list[StoreAction]:
        self.pieces.give_back(peer, offset, size)
        self._stuck = False
        return self.serve(now)

    def holder_gone(self, peer: bytes) -> None:
        if self.pieces.holds(peer):
            self.pieces.peer_gone(peer)
            self._stuck = False

    # --- who holds bytes ---

    def pin(self, entry: Entry, peer: bytes) -> None:
        self.pins.add(entry, peer)
        self._idle.discard(entry)

    def unpin(self, entry: Entry, peer: bytes, actions: list[StoreAction]) -> None:
        if not self.pins.remove(entry, peer):
            return
        if entry.deleted:
            self._release(entry, actions)
        elif entry.sealed and entry.offset is not None:
            if not entry.path:
                self._idle.add(entry)
            elif entry.blob is not None:
                # It lies on disk twice, and nobody reads it.
                self.drop_bytes(entry, actions)

    def placed(self, entry: Entry) -> None:
        """It was written in a piece, and nobody has pinned it.

        Raises: ValueError when the piece is not its creator's.
        """
        assert entry.offset is not None
        self.pieces.take(entry.creator, entry.offset, entry.size)
        self._idle.add(entry)

    def adopted(self, entry: Entry) -> None:
        """It is the primary copy now, which must not be dropped."""
        if entry in self._idle:
            self._idle.discard(entry)
            self._idle.add(entry)

    def deleted(self, entry: Entry, actions: list[StoreAction]) -> None:
        """Its bytes go with their last pin."""
        if entry.pins:
            self.pins.deleted(entry)
        else:
            self._release(entry, actions)

    def drop_bytes(self, entry: Entry, actions: list[StoreAction]) -> None:
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

    def _release(self, entry: Entry, actions: list[StoreAction]) -> None:
        if entry.offset is not None:
            self.drop_bytes(entry, actions)
        blob, entry.blob = entry.blob, None
        if blob is not None:
            self.spilled_order.discard(entry)
            blob.live -= 1
            self.spilled_bytes -= entry.size
            if not blob.live:
                actions.append(DeleteBlob(blob.key))

    # --- blobs and files ---

    def spill(self, job_id: bytes, entries: Iterable[Entry]) -> Spill:
        """As many of them, which are of one job, as one blob takes."""
        spill = self.spills.begin(job_id, entries)
        offset = 0
        for entry in spill.entries:
            self.pin(entry, SELF)
            entry.blob_offset = offset
            offset += entry.size
        return spill

    def spilled(self, key: str, error: str, now: float) -> list[StoreAction]:
        """A blob was written, or not (``error``)."""
        entries = self.spills.ended(key, error, now)
        actions: list[StoreAction] = []
        if not error:
            self._queue.progress(now)
            blob = Blob(key, len(entries))
            for entry in entries:
                if not entry.deleted:
                    entry.blob = blob
                    self.spilled_order.add(entry)
                    blob.live += 1
                    self.spilled_bytes += entry.size
            if not blob.live:
                actions.append(DeleteBlob(key))
        for entry in entries:
            self.unpin(entry, SELF, actions)
        return actions + self.serve(now)

    def file_made(self, path: str) -> Waiting | None:
        """Who waited for it; None = nobody wants it any more."""
        return self._queue.file_made(path)

    def why_none(self, size: int, file_error: str, disk_full: bool) -> StoreError:
        """For whoever got neither memory nor a file."""
        use = StoreUse(self.allocator.capacity, self.allocator.used, self.pins.arena_bytes())
        return no_room(size, use, self.spills.error, file_error, disk_full)

    # --- what goes ---

    def _allocate(self, size: int, actions: list[StoreAction], *, for_prefetch: bool = False) -> int | None:
        """Drops what is elsewhere too until there is room."""
        offset = self.allocator.allocate(size)
        while offset is None:
            entry = self._idle.evictable(for_prefetch=for_prefetch)
            if entry is None:
                return None
            if entry.home:
                actions += self._evict(entry)
            else:
                self.drop_bytes(entry, actions)
            offset = self.allocator.allocate(size)
        return offset

    def _make_room(self, now: float) -> list[StoreAction]:
        actions: list[StoreAction] = []
        needed = self._queue.size
        coming = self.allocator.capacity - self.allocator.used + self.spills.size
        if self.spills.may_begin(now):
            # With nothing under way, free bytes that suffice in sum lie scattered: spill on until the first fits.
            while self._idle.spillable and (not self.spills or (coming < needed and len(self.spills) < MAX_SPILLS)):
                spill = self._next_spill()
                coming += sum(entry.size for entry in spill.entries)
                actions.append(spill)
        if not self._idle.spillable and not self.spills:
            actions += self._ask_to_uncache()
        return actions

    def _next_spill(self) -> Spill:
        """The objects of one job that were used least recently."""
        job_id = next(iter(self._idle.spillable)).job_id
        return self.spill(job_id, (entry for entry in self._idle.spillable if entry.job_id == job_id))

    def _ask_to_uncache(self) -> list[StoreAction]:
        pinned: list[tuple[bytes, bytes]] = []
        for entry in self.pins.entries():
            if entry.sealed and not entry.deleted and not entry.path and not entry.uncache_sent:
                entry.uncache_sent = True
                pinned += [(peer, entry.object_id) for peer in entry.pins]
        pieces = [Send(peer, frames.ObjectUncache([])) for peer in self.pieces.to_ask()]
        return [*ask_to_uncache(pinned), *pieces]

    # --- for tests ---

    def validate(self, living: Iterable[Entry]) -> None:
        """``living``: the objects that are not deleted."""
        living = set(living)
        self.allocator.validate()
        self.pins.validate(living)
        self._idle.validate()
        self.spills.validate()
        self.pieces.validate()
        self._queue.validate()
        entries = living | self.pins.entries().keys()
        in_arena = [entry for entry in entries if entry.offset is not None and not entry.path]
        objects = [(e.offset, e.offset + Allocator.rounded(e.size)) for e in in_arena if e.offset is not None]
        extents = sorted([*objects, *self.pieces.extents()])
        assert all(end <= start for (_, end), (start, _) in pairwise(extents)), "two objects or pieces overlap"
        assert self.allocator.used == sum(end - start for start, end in extents), "bytes of nobody"
        idle = {entry for entry in in_arena if entry.sealed and not entry.pins}
        assert idle == set(self._idle), "idle is what nobody pins"
        blobs: dict[Blob, list[Entry]] = {}
        for entry in entries:
            if entry.blob is not None:
                blobs.setdefault(entry.blob, []).append(entry)
        assert all(blob.live == len(each) for blob, each in blobs.items()), "a blob counts wrongly"
        self.spilled_order.validate({entry for each in blobs.values() for entry in each})
        assert self.spilled_bytes == sum(entry.size for each in blobs.values() for entry in each)
        assert not self._queue or self.next_deadline() is not None or self.spills, "who waits, waits for ever"
